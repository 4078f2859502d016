"""Lines of programs beside Postfix that name one of its queue ids and the domain they signed as: OpenDKIM, rspamd."""

import re
from typing import Final

from parsers.postfix.facts import DkimSigned
from parsers.postfix.grammar import Grammar, queued
from parsers.record import LogRecord


def signature_added(record: LogRecord, queue_id: str, match: re.Match[str]) -> DkimSigned:
    selector, domain = match.groups()
    return DkimSigned(record, queue_id, domain, selector)


OPENDKIM: Final = Grammar(
    queued("added", "DKIM-Signature field added (s=", r"([^,\s]*+), d=([^,\s()]*+)\)", signature_added),
    diagnostics=(),
)

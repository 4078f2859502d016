"""Lines of programs beside Postfix that name one of its queue ids and the domain they signed as: OpenDKIM, rspamd."""

import re
from typing import Final

from parsers.postfix.facts import Diagnostic, DkimSigned
from parsers.postfix.grammar import Grammar, plain, queued
from parsers.postfix.notes import INFO
from parsers.postfix.tokens import ADDRESS, CERTAIN_QUEUE_ID, QUEUE_ID
from parsers.record import LogRecord


def signature_added(record: LogRecord, queue_id: str, match: re.Match[str]) -> DkimSigned:
    selector, domain = match.groups()
    return DkimSigned(record, queue_id, domain, selector)


def about_message(record: LogRecord, _lead: str, match: re.Match[str]) -> Diagnostic:
    """What a filter found out, in words of its own and of strangers: no more than evidence."""
    return Diagnostic(record, match[1], INFO, match[2])


_ABOUT_MESSAGE: Final = plain("about-message", "", rf"({CERTAIN_QUEUE_ID})(?::| (?=ignoring )) ?(.*)", about_message)

OPENDKIM: Final = Grammar(
    queued("added", "DKIM-Signature field added (s=", r"([^,\s]*+), d=([^,\s()]*+)\)", signature_added),
    _ABOUT_MESSAGE,
    diagnostics=(),
)

OPENDMARC: Final = Grammar(_ABOUT_MESSAGE, diagnostics=())

_QUEUE_ID: Final = re.compile(rf">, qid: <({QUEUE_ID})>,", re.ASCII)
_VERDICT: Final = re.compile(
    rf" ip: [0-9A-Fa-f:.]++,(?: user: [^,<>()\s]++,)?(?: from: <{ADDRESS}>,)? \(default: [^()]*\([a-z ]*+\): ", re.ASCII
)
_SIGNED: Final = re.compile(r"[\[,]DKIM_SIGNED\([-0-9.]++\)\{([^\s:;{}]++):s=([^\s:;{}]++);\}", re.ASCII)


def task_written(record: LogRecord, _lead: str, match: re.Match[str]) -> DkimSigned | None:
    """The line about a message begins with the message-id, and has the sender before the verdict.

    Strangers choose both: where one holds what looks like another queue id or verdict, the line proves nothing.
    """
    text = match[0]
    ids = _QUEUE_ID.findall(text)
    if len(ids) != 1 or text.count(" (default: ") != 1 or (named := _QUEUE_ID.search(text)) is None:
        return None
    verdict = _VERDICT.match(text, named.end())
    signed = _SIGNED.findall(text, verdict.end()) if verdict else []
    if len(signed) != 1:
        return None
    domain, selector = signed[0]
    return DkimSigned(record, ids[0], domain, selector)


RSPAMD: Final = Grammar(
    plain("task-written", "", r"(?:\([a-z_]++\) )?<[0-9a-z]++>; task; rspamd_task_write_log: id: <.*", task_written),
    diagnostics=(),
)

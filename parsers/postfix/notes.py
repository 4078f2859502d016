"""Lines that only tell how Postfix works: known, and of no consequence for any message."""

import re
from typing import Final

from parsers.postfix.facts import Diagnostic
from parsers.postfix.grammar import Shape, plain, queued
from parsers.postfix.tokens import PEER, queue_id
from parsers.record import LogRecord

INFO: Final = "info"
"""The severity of a Diagnostic that is no complaint."""


def note(record: LogRecord, lead: str, match: re.Match[str]) -> Diagnostic:
    return Diagnostic(record, queue_id(lead), INFO, match[0])


def notes(*starts: str, prefix: str = "") -> tuple[Shape, ...]:
    """Shapes that begin with these words."""
    return tuple(plain(prefix + _name(start), start, ".*", note) for start in starts)


def queued_notes(*starts: str) -> tuple[Shape, ...]:
    """The same behind a queue id."""
    return tuple(queued(_name(start), start, ".*", note) for start in starts)


ABOUT_PEER: Final = plain("about-peer", "", rf"{PEER}: .*", note)
"""Of who speaks TLS or SMTP with somebody: certificates, sessions, replies that a table replaced (tls_client.c)."""


def _name(start: str) -> str:
    return "-".join(re.findall(r"[A-Za-z]+", start)[:3]).lower()


ANY_DAEMON: Final = (
    plain("table-changed", "table ", r"\S+ has changed -- restarting", note),
    *notes("using backwards-compatible default setting "),
    plain("database-closed", "close database ", r"\S+: No such file or directory.*", note),
)
"""Any daemon that looks things up may say these (mail_dict.c, compat_level.c, dict_db.c)."""

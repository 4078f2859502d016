"""Lines of cleanup(8): what the message calls itself, what header and body checks and milters did (cleanup_message.c, cleanup_milter.c).

A header's text is the sender's: its end is sought from the right, and no further away than Postfix writes.
"""

import re
from typing import Final

from parsers.postfix.agents import DELIVERY
from parsers.postfix.facts import Filtered, HeaderLogged, Held, MessageIdentified, QueueRemoved
from parsers.postfix.grammar import Grammar, queued
from parsers.postfix.notes import ANY_DAEMON
from parsers.postfix.smtpd import ACTIONS
from parsers.postfix.tokens import PLAIN_ADDRESS
from parsers.postfix.transaction import Transaction, read_transaction
from parsers.record import LogRecord

_make: Final = tuple.__new__


def message_id(record: LogRecord, queue_id: str, match: re.Match[str]) -> MessageIdentified:
    return _make(MessageIdentified, (record, queue_id, match[1], False))


def resent_message_id(record: LogRecord, queue_id: str, match: re.Match[str]) -> MessageIdentified:
    return MessageIdentified(record, queue_id, match[1], resent=True)


_ORIGIN: Final = re.compile(r" from (?:local|unknown|[^\[\]\s]*\[[^\]\s]*\](?::\d{1,5})?)(?=;)", re.ASCII)
_CONTENT_LIMIT: Final = 200
"""Bytes of a header or body line that are logged (`%.200s`)."""
_USUAL: Final = re.compile(
    rf"(.{{0,{_CONTENT_LIMIT}}}) from (?:local|unknown|[^\[\]\s]*\[[^\]\s]*\])"
    rf"; from=<({PLAIN_ADDRESS})> to=<({PLAIN_ADDRESS})>(?: proto=[A-Z]++ helo=<([^<>\s]*+)>)?",
    re.ASCII,
)


def checked(record: LogRecord, queue_id: str, match: re.Match[str]) -> HeaderLogged | Held | Filtered:
    """`ACTION: header|body LINE from ORIGIN; from=<> to=<> proto= helo=<>[: remark]` (cleanup_act_log)."""
    where, rest = match.groups()
    action = match[0].partition(": ")[0]
    line, transaction = _split(rest)
    verb = action.rpartition("-")[2]
    if verb == "hold":
        return Held(
            record,
            queue_id,
            by="milter" if action.startswith("milter-") else "cleanup",
            stage="",
            text=transaction.remark or f"{where} {line}",
            sender=transaction.sender,
            recipient=transaction.recipient,
        )
    if verb == "filter":
        return Filtered(record, queue_id, "", transaction.remark, transaction.sender, transaction.recipient)
    header, _, value = line.partition(":") if where in {"header", "mime", "nested"} else ("", "", line)
    sender, recipient, _, _, _ = transaction
    return _make(HeaderLogged, (record, queue_id, header, value.strip(" "), action, sender, recipient))


def _split(rest: str) -> tuple[str, Transaction]:
    """The line of the message, and what the session had said."""
    if rest.isascii() and (usual := _USUAL.fullmatch(rest)):  # the last place, and nothing behind it is odd
        line, sender, recipient, helo = usual.groups()
        return line, Transaction(sender, recipient, helo or "", "", "")
    origins = [match for match in _ORIGIN.finditer(rest, 0, _CONTENT_LIMIT + 300) if _fits(rest[: match.start()])]
    for origin in reversed(origins):
        text, transaction = read_transaction(rest[origin.end() :])
        if not text:
            return rest[: origin.start()], transaction
    return rest, read_transaction("")[1]


def _fits(line: str) -> bool:
    return len(line.encode("utf-8", "surrogateescape")) <= _CONTENT_LIMIT


def removed(record: LogRecord, queue_id: str, match: re.Match[str]) -> QueueRemoved:
    return QueueRemoved(record, queue_id, match[1])


_VERBS: Final = (
    "info", "warning", "reject", "hold", "discard", "filter", "redirect", "replace", "prepend", "bcc", "strip", "delay",
)  # fmt: skip
_LINE: Final = r": (header|body|content|mime|nested|mime-error) (.*)"

CLEANUP: Final = Grammar(
    queued("message-id", "message-id=", "(.*)", message_id),
    queued("resent-message-id", "resent-message-id=", "(.*)", resent_message_id),
    *(queued(f"{verb}-line", verb, _LINE, checked) for verb in _VERBS),
    *(
        queued(f"milter-{kind}", f"milter-{kind}-", rf"[a-z_]{{1,20}}{_LINE}", checked)  # "add" and what comes
        for kind in ("header", "body")
    ),
    *ACTIONS,
    queued("removed", "removed (", r"(canceled|discarded)\)", removed),
    *DELIVERY,
    *ANY_DAEMON,
)

"""Lines of postsuper(1), whoever called it (postsuper.c)."""

import re
from typing import Final

from parsers.postfix.facts import Held, MessageExpired, Released, Requeued
from parsers.postfix.grammar import Grammar, queued
from parsers.postfix.notes import notes
from parsers.postfix.qmgr import REMOVED
from parsers.record import LogRecord


def held(record: LogRecord, queue_id: str, _match: re.Match[str]) -> Held:
    return Held(record, queue_id, by="admin", stage="", text="", sender="", recipient="")


def released(record: LogRecord, queue_id: str, _match: re.Match[str]) -> Released:
    return Released(record, queue_id)


def requeued(record: LogRecord, queue_id: str, _match: re.Match[str]) -> Requeued:
    return Requeued(record, queue_id)


def expired(record: LogRecord, queue_id: str, _match: re.Match[str]) -> MessageExpired:
    return MessageExpired(record, queue_id, sender="", forced=True)


POSTSUPER: Final = Grammar(
    queued("held", "placed on hold", "", held),
    queued("released", "released from hold", "", released),
    queued("requeued", "requeued", "", requeued),
    queued("expired", "expired", "", expired),
    REMOVED,
    *notes(
        "Deleted: ",
        "Requeued: ",
        "Placed on hold: ",
        "Released from hold: ",
        "Force-expired: ",
        "Renamed to match inode number: ",
        prefix="total-",
    ),
)

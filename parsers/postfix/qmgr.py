"""Lines of the queue manager, qmgr(8) and oqmgr(8): qmgr_active.c, qmgr_message.c, qmgr_deliver.c.

A sender's address may hold what looks like the fields behind it; those stand at the end of the line.
"""

import re
from typing import Final

from parsers.postfix.agents import DELIVERY
from parsers.postfix.facts import Diagnostic, MessageExpired, MessageSkipped, QueueActive, QueueRemoved
from parsers.postfix.grammar import Grammar, queued, warned
from parsers.postfix.notes import ANY_DAEMON, queued_notes
from parsers.postfix.tokens import CERTAIN_QUEUE_ID, PLAIN_ADDRESS
from parsers.record import LogRecord

_make: Final = tuple.__new__


def queue_active(record: LogRecord, queue_id: str, match: re.Match[str]) -> QueueActive:
    sender, size, nrcpt = match.groups()
    return _make(QueueActive, (record, queue_id, sender, int(size), int(nrcpt)))


def queue_removed(record: LogRecord, queue_id: str, _match: re.Match[str]) -> QueueRemoved:
    return _make(QueueRemoved, (record, queue_id, ""))


def message_expired(record: LogRecord, queue_id: str, match: re.Match[str]) -> MessageExpired:
    sender, forced = match.groups()
    return MessageExpired(record, queue_id, sender, forced=forced is not None)


def message_skipped(record: LogRecord, queue_id: str, _match: re.Match[str]) -> MessageSkipped:
    return MessageSkipped(record, queue_id)


def lost_queue_file(record: LogRecord, severity: str, match: re.Match[str]) -> Diagnostic:
    """qmgr_active_done_3_generic and its like: a file that the queue manager had in memory is not where it was."""
    return Diagnostic(record, match[1], severity, match[0])


REMOVED: Final = queued("removed", "removed", "", queue_removed)
"""postsuper says it in the same words."""

_ACTIVE: Final = r">, size=(\d{1,15}), nrcpt=(\d{1,9}) \(queue active\)"

QMGR: Final = Grammar(
    queued("active", "from=<", rf"({PLAIN_ADDRESS}){_ACTIVE}", queue_active),
    # Any other address: up to the last place that fits, as nothing of a stranger's follows the fields.
    queued("active-odd-sender", "from=<", rf"(.*){_ACTIVE}", queue_active),
    REMOVED,
    queued("expired", "from=<", r"(.*)>, status=(force-)?expired, returned to sender", message_expired),
    warned("lost-queue-file", "qmgr_", rf"\w+: remove ({CERTAIN_QUEUE_ID}) from \w+: .*", lost_queue_file),
    queued("skipped", "skipped, still being delivered", "", message_skipped),
    *queued_notes("enabling VERP"),
    *DELIVERY,
    *ANY_DAEMON,
)

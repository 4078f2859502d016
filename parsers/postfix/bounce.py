"""Lines of bounce(8), defer(8) and trace(8): which notification was sent about which message (bounce_*_service.c)."""

import re
from typing import Final

from parsers.postfix.agents import DELIVERY
from parsers.postfix.facts import NonDeliveryNotification
from parsers.postfix.grammar import Grammar, queued
from parsers.postfix.notes import ANY_DAEMON, queued_notes
from parsers.postfix.tokens import QUEUE_ID
from parsers.record import LogRecord


def notification(record: LogRecord, queue_id: str, match: re.Match[str]) -> NonDeliveryNotification:
    notification_id = match[1]
    kind = match[0].removesuffix(f" notification: {notification_id}")
    return NonDeliveryNotification(record, queue_id, kind, notification_id)


_NOTIFICATION: Final = rf"(?:non-delivery|delay|delivery status) notification: ({QUEUE_ID})"

BOUNCE: Final = Grammar(
    queued("sender-notification", "sender ", _NOTIFICATION, notification),
    queued("postmaster-notification", "postmaster ", _NOTIFICATION, notification),
    *queued_notes(
        "not sending trace/success notification",
        "no trace file -- not sending a notification",
        "undeliverable postmaster notification discarded",
        "postmaster notice failed while ",
    ),
    *DELIVERY,
    *ANY_DAEMON,
)

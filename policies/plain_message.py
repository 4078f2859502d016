"""The record of a message whose life was the usual one, from its lines: what `policies/lifecycle.py` would make of them.

It knows which lives are usual: one queue id, its first line seen, its last one too, nothing in between that bears on any
other message. For all others it has no record, and they are left to the lifecycle.
"""

import math
from itertools import pairwise
from operator import itemgetter
from sys import intern
from typing import Any, Final

from parsers.postfix.delivery import usual_attempt
from parsers.postfix.facts import (
    ClientDisconnected,
    DeliveryAttempt,
    DkimSigned,
    Fact,
    HeaderLogged,
    Held,
    MessageExpired,
    NonDeliveryNotification,
    Rejected,
    Released,
)
from parsers.postfix.smtpd import SMTPD
from parsers.usual_lines import usual_active, usual_client
from policies.message_lines import (
    ACTIVATED,
    CAME,
    DELIVERED,
    GONE,
    NAMED,
    READ,
    SHAPES,
    MessageLines,
    Source,
    shape_of,
)
from policies.message_record import End, Hop, MessageRecord, Notification, RecipientOutcome
from policies.open_message import HEADERS

_make: Final = tuple.__new__
_ACTIVATED: Final = SHAPES[ACTIVATED].match
_CAME: Final = SHAPES[CAME].match
_LOGGED_IN: Final = shape_of(SMTPD, "client-logged-in").match


def plain_record(lines: MessageLines, window: float) -> MessageRecord | None:  # noqa: PLR0915  # one life, from its first line to its last
    """The record, or None where the life was not plain. `window`: seconds by which lines may be out of order."""
    lines.unfold()
    items = lines.lines if lines.orderly else _in_order(lines.lines, window)
    place, queue_id = lines.place, lines.queue_id
    hop = _make(Hop, (place.host, place.instance, queue_id))
    client_host = client_address = sasl_username = message_id = notification_of = ""
    sender: str | None = None
    size = activations = 0
    expired = named = False
    end: End | None = None
    outcomes: dict[tuple[str, str], RecipientOutcome] = {}
    again: dict[tuple[str, str], tuple[Any, Any]] = {}
    more: _More | None = None
    first = True
    arrival = 0.0
    left_at = math.inf
    """When the client had gone, of a message that was not yet named: it is none if it is not queued at once."""
    time = 0.0
    for place_of_line in range(0, len(items), 4):
        if end is not None:
            return None
        time = items[place_of_line]
        source: Source = items[place_of_line + 1]
        kind: int = items[place_of_line + 2]
        said = items[place_of_line + 3]
        if kind == DELIVERED:
            recipient, orig_to, relay_host, relay_address, _, _, _, _, _, dsn, status, reason = usual_attempt(
                said, 0, len(said), len(queue_id) + 2 + len(said)
            )
            if not status:
                odd = source.shapes.read(source.record(time, f"{queue_id}: {said}"))
                if not isinstance(odd, DeliveryAttempt):
                    continue
                recipient, orig_to, relay_host, relay_address = (
                    odd.recipient,
                    odd.orig_to,
                    odd.relay_host,
                    odd.relay_address,
                )
                dsn, status, reason = odd.dsn, odd.status, odd.reason
            if first:
                return None
            key = recipient, orig_to
            before = outcomes.get(key)
            attempts, begun = 1, time
            line = time, source.pid, said
            if before is not None:
                if line in again[key]:
                    continue
                attempts, begun = before.attempts + 1, before.first_attempt
                again[key] = line, again[key][0]
            else:
                again[key] = line, None
            outcomes[key] = _make(
                RecipientOutcome,
                (
                    recipient, orig_to, status, dsn, reason, relay_host, relay_address, source.service, source.daemon,
                    hop, attempts, begun, time,
                ),
            )  # fmt: skip
        elif kind == ACTIVATED:
            active = usual_active(said, 0, len(said)) or _odd_active(said)
            if active is None or first or time > left_at + window:
                return None
            left_at = math.inf
            if not activations:
                sender, size, _ = active
            activations += 1
        elif kind == NAMED:
            if not said.startswith("message-id=") or "\n" in said or named or activations:
                return None
            if first:
                arrival = time
            named, first = True, False
            message_id = said[11:]
        elif kind == CAME:
            if not first:
                return None
            client = _client(said)
            if client is None:
                return None
            client_host, client_address, sasl_username = client
            arrival, first = time, False
        elif kind == GONE:
            if said != "removed" or first or left_at < math.inf:
                return None
            end = End.DELETED if source.daemon == "postsuper" else End.EXPIRED if expired else End.REMOVED
        elif kind != READ:
            return None
        elif said.__class__ is NonDeliveryNotification and said.queue_id != queue_id:
            notification_of = said.queue_id
        elif first:
            return None
        elif said.__class__ is ClientDisconnected:
            if activations:
                return None
            left_at = time
        elif said.__class__ is MessageExpired:
            expired = expired or source.daemon != "postsuper"
        else:
            more = more or _More()
            if not more.takes(said, queued=activations > 0):
                return None
    if end is None:
        return None
    return _make(
        MessageRecord,
        (
            (hop,), True, end, arrival, time, sender, message_id, client_host, client_address, sasl_username, size,
            tuple(outcomes.values()), *((more.headers, more.dkim_domains, more.notifications) if more else ((), (), ())),
            notification_of,
        ),
    )  # fmt: skip


def _in_order(items: list[Any], window: float) -> list[Any]:
    """The lines by their stamps; none where one came later than the window allows."""
    lines = [items[place : place + 4] for place in range(0, len(items), 4)]
    if any(before[0] - after[0] > window for before, after in pairwise(lines)):
        return []
    return [item for line in sorted(lines, key=itemgetter(0)) for item in line]


def _odd_active(said: str) -> tuple[str, int, int] | None:
    match = _ACTIVATED(said)
    return match and (match[1], int(match[2]), int(match[3]))


def _client(said: str) -> tuple[str, str, str] | None:
    """Its name, address and login; None where the line is odd or names the queue id before."""
    usual = usual_client(said, 0, len(said))
    if usual is not None:
        host, address, _, username = usual
        return host, address, username
    if match := _CAME(said):
        return None if match[4] else (match[1], match[2], "")
    match = _LOGGED_IN(said)
    return match and (match[1], match[2], match[5].partition(", sasl_sender=")[0])


class _More:
    """What else may be said of a message without a change to its life."""

    __slots__ = ("dkim_domains", "headers", "notifications")

    def __init__(self) -> None:
        self.headers: tuple[tuple[str, str], ...] = ()
        self.dkim_domains: tuple[str, ...] = ()
        self.notifications: tuple[Notification, ...] = ()

    def takes(self, fact: Fact, *, queued: bool) -> bool:
        """Whether it is of that sort. `queued`: the queue manager has had the message before."""
        if isinstance(fact, Held | Released):
            return True
        if isinstance(fact, DkimSigned):
            if fact.domain not in self.dkim_domains:
                self.dkim_domains = (*self.dkim_domains, intern(fact.domain))
        elif isinstance(fact, NonDeliveryNotification):
            told = Notification(fact.kind, fact.notification_id)
            if told not in self.notifications:
                self.notifications = (*self.notifications, told)
        elif isinstance(fact, HeaderLogged):
            header = intern(fact.header), fact.value
            if len(self.headers) < HEADERS and header not in self.headers:
                self.headers = (*self.headers, header)
            return queued or fact.action.rpartition("-")[2] not in {"reject", "discard"}
        elif isinstance(fact, Rejected):
            return queued or (fact.action.rpartition("-")[2] != "discard" and fact.stage == "RCPT")
        else:
            return False
        return True

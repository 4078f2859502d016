"""The record of a message whose life was the usual one, from its lines: what `policies/lifecycle.py` would make of them.

It knows which lives are usual: one queue id, its first line seen, its last one too, nothing in between that bears on any
other message. For all others it has no record, and they are left to the lifecycle.
"""

import math
from itertools import pairwise
from operator import itemgetter
from sys import intern
from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:  # compiled code counts with such numbers as C does; there are none where it is interpreted
    from mypy_extensions import i64

_make: Final = tuple.__new__
_REMOVED: Final = End.REMOVED
"""To ask the enumeration for it takes as long as a comparison of two texts."""
_ACTIVATED: Final = SHAPES[ACTIVATED]
_CAME: Final = SHAPES[CAME]
_LOGGED_IN: Final = shape_of(SMTPD, "client-logged-in")


def plain_record(lines: MessageLines, window: float) -> MessageRecord | None:  # noqa: PLR0915  # one life, from its first line to its last
    """The record, or None where the life was not plain. `window`: seconds by which lines may be out of order."""
    lines.unfold()
    items = lines.lines if lines.orderly else _in_order(lines.lines, window)
    queue_id = lines.queue_id
    hop = _make(Hop, (lines.place.host, lines.place.instance, queue_id))
    client_host = client_address = sasl_username = message_id = notification_of = active_text = ""
    sender: str | None = None
    size = 0
    expired = named = activated = ended = False
    end = _REMOVED
    outcomes: dict[Any, RecipientOutcome] = {}
    more: _More | None = None
    first = True
    arrival = 0.0
    left_at = math.inf
    """When the client had gone, of a message that was not yet named: it is none if it is not queued at once."""
    time = 0.0
    at: i64 = 0
    items_end: i64 = len(items)
    while at < items_end:
        if ended:
            return None
        time = items[at]
        source: Source = items[at + 1]
        kind: i64 = items[at + 2]
        if kind == DELIVERED:
            said: str = items[at + 3]
            recipient, orig_to, relay_host, relay_address, _, _, _, _, _, dsn, status, reason = usual_attempt(
                said, 0, len(said), len(queue_id) + 2 + len(said)
            )
            if not status:
                odd = source.shapes.read(source.record(time, f"{queue_id}: {said}"))
                if not isinstance(odd, DeliveryAttempt):
                    at += 4
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
            key: Any = (recipient, orig_to) if orig_to else recipient
            before = outcomes.get(key)
            attempts, begun = 1, time
            if before is not None:
                copy = _copied(items, at)
                if copy == _UNCERTAIN:
                    return None
                if copy:
                    at += 4
                    continue
                attempts, begun = before.attempts + 1, before.first_attempt
            outcomes[key] = _make(
                RecipientOutcome,
                (
                    recipient, orig_to, status, dsn, reason, relay_host, relay_address, source.service, source.daemon,
                    hop, attempts, begun, time,
                ),
            )  # fmt: skip
        elif kind == ACTIVATED:
            active_now: str = items[at + 3]
            if first or time > left_at + window:
                return None
            if active_now != active_text:  # a message that is deferred says the same each time
                active = usual_active(active_now, 0, len(active_now)) or _odd_active(active_now)
                if active is None:
                    return None
                active_text = active_now
                if not activated:
                    sender, size, _ = active
            left_at = math.inf
            activated = True
        elif kind == NAMED:
            name: str = items[at + 3]
            if not name.startswith("message-id=") or "\n" in name or named or activated:
                return None
            if first:
                arrival = time
            named, first = True, False
            message_id = name[11:]
        elif kind == CAME:
            if not first:
                return None
            client = _client(items[at + 3])
            if client is None:
                return None
            client_host, client_address, sasl_username = client
            arrival, first = time, False
        elif kind == GONE:
            gone: str = items[at + 3]
            if gone != "removed" or first or left_at < math.inf:
                return None
            ended = True
            if source.daemon == "postsuper":
                end = End.DELETED
            elif expired:
                end = End.EXPIRED
        elif kind != READ:
            return None
        else:
            fact: Any = items[at + 3]
            if fact.__class__ is NonDeliveryNotification and fact.queue_id != queue_id:
                notification_of = fact.queue_id
            elif first:
                return None
            elif fact.__class__ is ClientDisconnected:
                if activated:
                    return None
                left_at = time
            elif fact.__class__ is MessageExpired:
                expired = expired or source.daemon != "postsuper"
            else:
                more = more or _More()
                if not more.takes(fact, queued=activated):
                    return None
        at += 4
    if not ended:
        return None
    headers: tuple[tuple[str, str], ...] = ()
    dkim_domains: tuple[str, ...] = ()
    notifications: tuple[Notification, ...] = ()
    if more is not None:
        headers, dkim_domains, notifications = more.headers, more.dkim_domains, more.notifications
    return _make(
        MessageRecord,
        (
            (hop,), True, end, arrival, time, sender, message_id, client_host, client_address, sasl_username, size,
            tuple(outcomes.values()), headers, dkim_domains, notifications, notification_of,
        ),
    )  # fmt: skip


_UNCERTAIN: Final = 2


def _copied(items: list[Any], at: "i64") -> "i64":
    """Whether the delivery there, of a recipient that had one before, is the line before once more: 1, or 0, or `_UNCERTAIN`
    where others came in the same moment, for a copy is known by the recipient's last two lines alone.
    """
    time: float = items[at]
    source: Source = items[at + 1]
    said: str = items[at + 3]
    others = False
    place: i64 = at - 4
    while place >= 0:
        then: float = items[place]
        if then != time:
            break
        kind: i64 = items[place + 2]
        if kind == DELIVERED:
            before: str = items[place + 3]
            whose: Source = items[place + 1]
            if before == said and whose.pid == source.pid:
                return _UNCERTAIN if others else 1
            others = True
        place -= 4
    return 0


def _in_order(items: list[Any], window: float) -> list[Any]:
    """The lines by their stamps; none where one came later than the window allows."""
    lines = [items[place : place + 4] for place in range(0, len(items), 4)]
    if any(before[0] - after[0] > window for before, after in pairwise(lines)):
        return []
    return [item for line in sorted(lines, key=itemgetter(0)) for item in line]


def _odd_active(said: str) -> tuple[str, int, int] | None:
    match = _ACTIVATED.match(said)
    return match and (match[1], int(match[2]), int(match[3]))


def _client(said: str) -> tuple[str, str, str] | None:
    """Its name, address and login; None where the line is odd or names the queue id before."""
    usual = usual_client(said, 0, len(said))
    if usual is not None:
        host, address, _, username = usual
        return host, address, username
    if match := _CAME.match(said):
        return None if match[4] else (match[1], match[2], "")
    match = _LOGGED_IN.match(said)
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

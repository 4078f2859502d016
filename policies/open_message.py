"""A message of a log while more lines may come of it, and the record that it becomes.

It knows what a message is made of; which line belongs to which message, and when one has ended, `policies/lifecycle.py`
decides.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from sys import intern
from typing import Final

from parsers.postfix.facts import DeliveryAttempt
from policies.message_record import End, Hop, MessageRecord, Notification, RecipientOutcome

HEADERS: Final = 32
"""Header lines kept of a message."""
_FEW: Final = 8
"""Recipients that are looked up one by one; a dictionary for each message would be a good part of its size."""
_LOOPBACK: Final = ("127.", "::1", "/", "private/", "public/")


class Recipient:
    """One recipient's attempts, and what the last one came to."""

    __slots__ = (
        "attempts", "daemon", "dsn", "first", "last", "line", "line_before", "next_id", "orig_to", "reason", "recipient",
        "relay_address", "relay_host", "service", "status",
    )  # fmt: skip

    def __init__(self, attempt: DeliveryAttempt) -> None:
        self.recipient = attempt.recipient
        self.orig_to = attempt.orig_to
        self.first = attempt.record.time
        self.attempts = 0
        self.line = 0
        """Hash of the last line, and of the one before: a line that comes twice counts once."""
        self.seen(attempt)

    def seen(self, attempt: DeliveryAttempt) -> None:
        """One more attempt; the outcome is the last one's."""
        record = attempt.record
        self.attempts += 1
        self.last = record.time
        self.line_before = self.line
        self.line = line_hash(attempt)
        self.next_id = next_queue_id(attempt)
        self.status = attempt.status  # this, dsn, relay and tag are the parser's, one object for all
        self.dsn = attempt.dsn
        self.reason = attempt.reason
        self.relay_host = attempt.relay_host
        self.relay_address = attempt.relay_address
        self.service = record.service
        self.daemon = record.daemon

    def outcome(self, hop: Hop, before: "Recipient | None" = None) -> RecipientOutcome:
        """With the attempts before a requeue counted in."""
        attempts, first = self.attempts, self.first
        if before is not None:
            attempts, first = attempts + before.attempts, min(first, before.first)
        return RecipientOutcome(
            self.recipient,
            self.orig_to,
            self.status,
            self.dsn,
            self.reason,
            self.relay_host,
            self.relay_address,
            self.service,
            self.daemon,
            hop,
            attempts,
            first,
            self.last,
        )


class OpenMessage:
    """One queue id's message, from its first line on. Only the tracker changes it."""

    __slots__ = (
        "_first", "activations", "arrival", "begun_at", "client_address", "client_host", "closed", "dkim_domains", "end", "ended",
        "expired", "fate", "first_line", "headers", "host", "identified_at", "index", "instance", "last_line", "message_id", "notification_of",
        "notifications", "nrcpt", "parent", "parts", "previous", "queue_id", "recipients",
        "sasl_username", "sender", "size", "told",
    )  # fmt: skip

    def __init__(self, host: str, instance: str, queue_id: str, *, time: float) -> None:
        self.host = host
        self.instance = instance
        self.queue_id = queue_id
        self.arrival = time
        self.last_line = time
        self.begun_at: float | None = None
        """Time of its first line (smtpd's, pickup's, or cleanup's of mail from within), None where that was not seen."""
        self.first_line = 0
        """Hash of smtpd's or pickup's line, 0 where there was none."""
        self.identified_at: float | None = None
        """Time of its `message-id=` line."""
        self.message_id = ""
        self.sender: str | None = None
        self.client_host = ""
        self.client_address = ""
        self.sasl_username = ""
        self.size = 0
        self.nrcpt = 0
        self.activations = 0
        self.recipients: list[Recipient] = []
        self.index: dict[tuple[str, str], Recipient] | None = None
        """The recipients by address and original address, where they are many."""
        self.headers: tuple[tuple[str, str], ...] = ()
        self.dkim_domains: tuple[str, ...] = ()
        self.notifications: tuple[Notification, ...] = ()
        self.notification_of = ""
        self.expired = False
        self.fate: End | None = None
        """How it ends if it is never queued."""
        self.end: End | None = None
        """Its last line was seen; lines that were overtaken may follow."""
        self.ended = 0.0
        self.closed = False
        """Nothing more will come of this queue id."""
        self.told = False
        """Its record was made."""
        self.previous: OpenMessage | None = None
        """The one that had this queue id before, while lines may still come of it."""
        self.parent: OpenMessage | None = None
        """The hop before."""
        self._first: OpenMessage | None = None
        """The root, unless it is this one: with a reference to itself only the garbage collector could free it."""
        self.parts: list[OpenMessage] | None = None
        """Of a root: all hops, itself the first; None while it is the only one."""

    @property
    def root(self) -> "OpenMessage":
        """The first hop, by which all are known."""
        return self if self._first is None else self._first

    @property
    def hop(self) -> Hop:
        return Hop(self.host, self.instance, self.queue_id)

    def recipient(self, address: str, orig_to: str) -> Recipient | None:
        """The recipient, if an outcome of it was seen."""
        if self.index is not None:
            return self.index.get((address, orig_to))
        for one in self.recipients:
            if one.recipient == address and one.orig_to == orig_to:
                return one
        return None

    def add(self, recipient: Recipient) -> None:
        """One that was not seen before."""
        self.recipients.append(recipient)
        if self.index is not None:
            self.index[recipient.recipient, recipient.orig_to] = recipient
        elif len(self.recipients) > _FEW:
            self.index = {(one.recipient, one.orig_to): one for one in self.recipients}

    def follows(self, parent: "OpenMessage") -> None:
        """This is the same message, after `parent`."""
        first, root = parent.root, self.root
        self.parent = parent
        first.parts = [*(first.parts or [first]), *(root.parts or [root])]
        root.parts = None
        for part in first.parts[1:]:
            part._first = first  # noqa: SLF001  # of its own kind

    def header_logged(self, name: str, value: str) -> None:
        if len(self.headers) < HEADERS and (name, value) not in self.headers:
            self.headers = (*self.headers, (intern(name), value))

    def signed(self, domain: str) -> None:
        if domain not in self.dkim_domains:
            self.dkim_domains = (*self.dkim_domains, intern(domain))

    def notified(self, kind: str, queue_id: str) -> None:
        notification = Notification(kind, queue_id)
        if notification not in self.notifications:
            self.notifications = (*self.notifications, notification)


def line_hash(attempt: DeliveryAttempt) -> int:
    """Of what makes a line the same line."""
    return hash((attempt.record.time, attempt.record.pid, attempt.record.text))


def is_local(address: str) -> bool:
    """Whether a relay's address is on the machine itself: a content filter's, not a stranger's."""
    return address.startswith(_LOOPBACK)


def is_near(address: str) -> bool:
    """Whether a relay's address is on the machine or in a private network, as a container's is."""
    if is_local(address):
        return True
    try:
        return ipaddress.ip_address(address).is_private
    except ValueError:
        return False


def next_queue_id(attempt: DeliveryAttempt) -> str:
    """The queue id that the outcome names as the next one, "" for none: `queued as Q2`, `forwarded as Q2`."""
    if attempt.status != "sent":
        return ""
    if attempt.reason.startswith("forwarded as "):  # local(8) speaks; a server's reply begins with its code
        return attempt.reason[len("forwarded as ") :]
    _, found, queue_id = attempt.reason.rpartition("queued as ")
    return queue_id if found and queue_id.isalnum() and queue_id.isascii() and 5 <= len(queue_id) <= 64 else ""


def record_of(message: OpenMessage) -> MessageRecord:
    """The record of a root and its hops."""
    if message.parts is None:
        return _record_of_one(message)
    parts = message.parts
    last = max(parts, key=lambda part: part.ended)
    ends = [part.end or End.UNFINISHED for part in parts]
    return MessageRecord(
        hops=tuple(part.hop for part in parts),
        begun=message.begun_at is not None,
        end=End.UNFINISHED if End.UNFINISHED in ends else (last.end or End.UNFINISHED),
        arrival=message.arrival,
        ended=last.ended,
        sender=next((part.sender for part in parts if part.sender is not None), None),
        message_id=next((part.message_id for part in parts if part.message_id), ""),
        client_host=message.client_host,
        client_address=message.client_address,
        sasl_username=message.sasl_username,
        size=next((part.size for part in parts if part.size), 0),
        recipients=tuple(_outcomes(parts)),
        headers=tuple(dict.fromkeys(header for part in parts for header in part.headers)),
        dkim_domains=tuple(dict.fromkeys(domain for part in parts for domain in part.dkim_domains)),
        notifications=tuple(dict.fromkeys(told for part in parts for told in part.notifications)),
        notification_of=message.notification_of,
    )


def _record_of_one(message: OpenMessage) -> MessageRecord:
    """The same where there is one queue id: nearly every message."""
    hop = message.hop
    return MessageRecord(
        (hop,),
        message.begun_at is not None,
        message.end or End.UNFINISHED,
        message.arrival,
        message.ended,
        message.sender,
        message.message_id,
        message.client_host,
        message.client_address,
        message.sasl_username,
        message.size,
        tuple([one.outcome(hop) for one in message.recipients]),
        message.headers,
        message.dkim_domains,
        message.notifications,
        message.notification_of,
    )


def _outcomes(parts: Sequence[OpenMessage]) -> Iterator[RecipientOutcome]:
    """Of each hop those recipients that it did not pass on."""
    earlier: dict[str, tuple[OpenMessage, Recipient]] = {}
    for part in parts:
        children = [other for other in parts if other.parent is part]
        requeued = part.end is End.REQUEUED and children
        for recipient in part.recipients:
            if requeued and recipient.status == "deferred":
                earlier[recipient.recipient] = part, recipient  # the next queue id tries it again
            elif not _passed_on(recipient, children):
                _, before = earlier.pop(recipient.recipient, (part, None))
                yield recipient.outcome(part.hop, before)
    for part, recipient in earlier.values():
        yield recipient.outcome(part.hop)


def _passed_on(recipient: Recipient, children: Iterable[OpenMessage]) -> bool:
    if recipient.status != "sent":
        return False
    if recipient.next_id:
        return any(child.queue_id == recipient.next_id for child in children)
    # A filter that does not say what it queued.
    return is_local(recipient.relay_address) and any(
        recipient.recipient == other.recipient for child in children for other in child.recipients
    )

"""Messages that a sender sends again: the same Message-ID to one recipient twice, or in one message after another.

Knows that the same message may pass the queue several times inside (filters, forwards): what was delivered to a host on
the network counts. Bounded: of the messages and deliveries that were seen last; what is older is forgotten.
"""

from array import array
from collections import Counter, OrderedDict
from sys import intern
from typing import Final, NamedTuple, TypeVar

from parsers.address import domain_of
from parsers.postfix.facts import DeliveryAttempt, MessageIdentified, QueueActive
from policies.open_message import is_local

K = TypeVar("K")
V = TypeVar("V")

MESSAGES_MAX: Final = 8_192
"""Messages whose Message-ID is remembered until they are delivered."""
DELIVERIES: Final = 1 << 17
"""Places for deliveries, each for one; one that falls on another's place takes it."""
IDS_MAX: Final = 4_096
"""Message-IDs whose messages are counted."""
DOMAINS_MAX: Final = 1_000
HOUR: Final = 3600.0
_TEXT_MAX: Final = 200
_WORD: Final = (1 << 64) - 1


class Repeated(NamedTuple):
    """What a sending domain repeated in the hour that is going on, and in the one before."""

    domain: str
    delivered: int
    again: int
    """Deliveries to somebody who had the same Message-ID in another message."""
    example: str
    """"MESSAGE-ID in QUEUE-ID", of the last of them."""
    alike: int
    """The most messages with one Message-ID."""
    alike_id: str


class _Domain:
    """Counts of one sending domain in one hour."""

    __slots__ = ("again", "alike", "alike_id", "delivered", "example")

    def __init__(self) -> None:
        self.delivered = self.again = self.alike = 0
        self.example = self.alike_id = ""


class _Id:
    """One Message-ID: the last message that had it, and how many did."""

    __slots__ = ("messages", "queue_id", "since")

    def __init__(self, queue_id: str, since: float) -> None:
        self.queue_id, self.since, self.messages = queue_id, since, 1


class Repeats:
    def __init__(self, *, deliveries: int = DELIVERIES) -> None:
        self._ids: OrderedDict[tuple[str, str], tuple[str, str]] = OrderedDict()
        """(instance, queue id) -> (Message-ID, sending domain); the domain is "" until the message is active."""
        self._deliveries = array("Q", bytes(8 * deliveries))
        self._of_message = array("Q", bytes(8 * deliveries))
        self._alike: OrderedDict[str, _Id] = OrderedDict()
        self._hours: dict[int, dict[str, _Domain]] = {}

    def identified(self, fact: MessageIdentified) -> None:
        if fact.message_id not in {"", "<>"}:
            _keep(self._ids, (fact.record.instance, fact.queue_id), (fact.message_id, ""))

    def active(self, fact: QueueActive) -> None:
        place = fact.record.instance, fact.queue_id
        message_id, domain = self._ids.get(place, ("", ""))
        if message_id and not domain:
            self._ids[place] = message_id, intern(domain_of(fact.sender))

    def attempted(self, fact: DeliveryAttempt, *, now: float) -> None:
        if fact.status != "sent" or fact.relay_port is None or is_local(fact.relay_address):
            return
        place = fact.record.instance, fact.queue_id
        message_id, domain = self._ids.get(place, ("", ""))
        if not domain:
            return
        counts = self._counts(domain, now=now)
        if counts is None:
            return
        counts.delivered += 1
        text = message_id[:_TEXT_MAX]
        if self._had_it(message_id, fact.recipient, place):
            counts.again += 1
            counts.example = f"{text} in {fact.queue_id}"
        messages = self._messages(message_id, fact.queue_id, now=now)
        if messages > counts.alike:
            counts.alike, counts.alike_id = messages, text

    def _had_it(self, message_id: str, recipient: str, place: tuple[str, str]) -> bool:
        """Whether the recipient has it in another message; remembers that they have it in this one."""
        delivery, message = hash((message_id, recipient.lower())) & _WORD or 1, hash(place) & _WORD or 1
        slot = delivery % len(self._deliveries)
        again = self._deliveries[slot] == delivery and self._of_message[slot] != message
        self._deliveries[slot], self._of_message[slot] = delivery, message
        return again

    def _messages(self, message_id: str, queue_id: str, *, now: float) -> int:
        """How many messages had this Message-ID within an hour."""
        seen = self._alike.get(message_id)
        if seen is None or now - seen.since > HOUR:
            _keep(self._alike, message_id, _Id(queue_id, now), most=IDS_MAX)
            return 1
        if seen.queue_id != queue_id:
            seen.queue_id = queue_id
            seen.messages += 1
        return seen.messages

    def _counts(self, domain: str, *, now: float) -> _Domain | None:
        hour = int(now // HOUR)
        domains = self._hours.get(hour)
        if domains is None:
            domains = self._hours[hour] = {}
            for old in [each for each in self._hours if not hour - 1 <= each <= hour]:
                del self._hours[old]
        counts = domains.get(domain)
        if counts is None and len(domains) < DOMAINS_MAX:
            counts = domains[domain] = _Domain()
        return counts

    def told(self, *, now: float) -> list[Repeated]:
        """Give what each domain repeated since the begin of the hour before this one."""
        hour = int(now // HOUR)
        parts = [self._hours.get(each, {}) for each in (hour - 1, hour)]
        delivered: Counter[str] = Counter()
        for domains in parts:
            delivered.update({name: counts.delivered for name, counts in domains.items()})
        return [
            _told(name, number, [part[name] for part in parts if name in part]) for name, number in delivered.items()
        ]


def _told(name: str, delivered: int, parts: list[_Domain]) -> Repeated:
    example = next((part.example for part in reversed(parts) if part.example), "")
    most = max(parts, key=lambda part: part.alike)
    return Repeated(name, delivered, sum(part.again for part in parts), example, most.alike, most.alike_id)


def _keep(known: OrderedDict[K, V], key: K, value: V, *, most: int = MESSAGES_MAX) -> None:
    """Remember it as the newest; the oldest goes where there are too many."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)

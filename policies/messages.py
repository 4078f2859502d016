"""The messages that are alive in a Postfix queue, and what is known of each.

Live messages only: a message is here from its first line or policy answer until `removed`, or until
it is older than any queue lifetime. What identifies one is (place, queue id); the place is the Postfix
instance, with the host before it where a log carries several.
"""

from collections.abc import Iterator
from enum import IntEnum
from itertools import islice
from sys import intern
from typing import Final

from parsers.address import domain_of
from policies.key import Key
from policies.sent_as import ListHeaders
from policies.stream import NO_STREAM


class Place(IntEnum):
    """Where a message is, as far as we had a hand in it (design: the books of what is ours)."""

    QUEUED = 0
    """incoming, active or deferred: Postfix has it."""
    PROMISED = 1
    """We answered HOLD; our `hold:` line was not yet seen."""
    TAKING = 2
    """`postsuper -h` was asked for."""
    HELD = 3
    """On hold, by us."""
    RELEASING = 4
    """`postsuper -H` was asked for."""
    FOREIGN = 5
    """On hold by somebody else: an admin, a header check, a milter. Never last_line."""


_QUEUED: Final = Place.QUEUED
"""In Python 3.11 a member costs a call each time that one asks its class for it."""


class Recipient:
    """One recipient of a live message."""

    __slots__ = ("activation", "address", "domain", "done", "orig_to")

    def __init__(self, address: str, orig_to: str = "") -> None:
        self.address = address
        self.orig_to = orig_to
        self.domain = intern(domain_of(address))
        self.done = False
        """Delivered or bounced: Postfix will not try it again."""
        self.activation = 0
        """The message's activation in which its last outcome was logged, 0 before the first."""


class Message:
    """One live message. Mutable, and only the engine's."""

    __slots__ = (
        "activation",
        "arrival",
        "attempts",
        "dkim_domains",
        "entry",
        "exempt",
        "from_domain",
        "held_since",
        "held_under",
        "instance",
        "last_line",
        "let_out",
        "list_headers",
        "nrcpt",
        "own_line",
        "paid",
        "pending",
        "place",
        "probing",
        "queue_id",
        "recipients",
        "retry_at",
        "seen_on_hold",
        "sender",
        "sender_domain",
        "service",
        "stream",
    )

    def __init__(self, instance: str, queue_id: str, *, now: float) -> None:
        self.instance = instance
        self.queue_id = queue_id
        self.arrival = now
        self.last_line = now
        """When a line or a policy request last spoke of it."""
        self.sender: str | None = None
        """None while unknown; "" is the null sender."""
        self.sender_domain = ""
        self.nrcpt = 0
        """0 while unknown."""
        self.recipients: tuple[Recipient, ...] = ()
        self.dkim_domains: tuple[str, ...] = ()
        self.from_domain = ""
        self.list_headers = ListHeaders.NONE
        self.stream = NO_STREAM
        self.service = ""
        """The transport of its last attempt, as logged; "" before the first that we saw."""
        self.entry: Entry | None = None
        """What is known of how it entered; None where no line before its first activation was seen."""
        self.place = _QUEUED
        self.held_under: tuple[Key, ...] = ()
        """The sub-queues it waits in."""
        self.held_since = 0.0
        self.own_line = False
        """Our own `hold:` line, or the helper's word, was seen."""
        self.seen_on_hold = False
        """It was found in the hold queue."""
        self.retry_at = 0.0
        """Not to be released before (a promise not yet kept, a file still locked)."""
        self.exempt = False
        """Not to be taken again before one attempt: it left at hold_max, or an admin released it."""
        self.let_out = 0.0
        """When we last let it go, 0 where we never did."""
        self.probing = False
        """It is the probe of a sub-queue."""
        self.attempts = 0
        self.activation = 0
        """How many `(queue active)` lines were seen."""
        self.pending = 0
        """Recipients without an outcome in this activation: above 0 the message is in core."""
        self.paid = False
        """Its next attempt is already spent from the budgets."""

    def signs_as(self, domain: str) -> None:
        """It carries a DKIM signature of this domain."""
        if domain not in self.dkim_domains:
            self.dkim_domains = (*self.dkim_domains, domain)

    @property
    def in_core(self) -> bool:
        """Whether the queue manager may still have it in memory (qmgr_active.c); then it must not be released."""
        return self.pending > 0

    @property
    def on_hold(self) -> bool:
        """Whether we hold it, or have asked for that."""
        return self.place in _OURS

    @property
    def open_recipients(self) -> list[Recipient]:
        """Recipients that have no final outcome."""
        return [recipient for recipient in self.recipients if not recipient.done]

    @property
    def all_known(self) -> bool:
        """Whether every recipient is known, so that one may say whom holding would touch."""
        return 0 < self.nrcpt <= len(self.recipients)

    @property
    def finished(self) -> bool:
        """No recipient is left: Postfix removes it as soon as it is off hold."""
        return self.all_known and all(recipient.done for recipient in self.recipients)

    def recipient(self, address: str, orig_to: str = "") -> Recipient:
        """Find, or learn, a recipient by its final address.

        The policy service knows addresses before rewriting: a recipient that is only known from there
        (no outcome yet) is taken over by the first outcome under another address when their number is
        otherwise complete, because canonical and virtual maps change the text and not the count.
        """
        for known in self.recipients:
            if known.address == address and (not orig_to or known.orig_to in {"", orig_to}):
                known.orig_to = orig_to
                return known
        if orig_to:
            for known in self.recipients:
                if known.address == orig_to and not known.activation:
                    return self._renamed(known, address, orig_to)
        if self.nrcpt and len(self.recipients) >= self.nrcpt:
            for known in self.recipients:
                if not known.activation and not known.done:
                    return self._renamed(known, address, orig_to)
        fresh = Recipient(address, orig_to)
        self.recipients = (*self.recipients, fresh)
        return fresh

    @staticmethod
    def _renamed(known: Recipient, address: str, orig_to: str) -> Recipient:
        known.address, known.orig_to, known.domain = address, orig_to, intern(domain_of(address))
        return known

    def activated(self, *, nrcpt: int) -> None:
        """`(queue active)`: qmgr has it in memory until each of its recipients has an outcome.

        qmgr logs the message's recipient count as cleanup stored it, also on a retry, when those that
        are done get no further outcome (qmgr_message.c).
        """
        self.activation += 1
        self.nrcpt = nrcpt
        self.pending = max(1, nrcpt - sum(recipient.done for recipient in self.recipients))

    def outcome(self, recipient: Recipient, *, final: bool) -> None:
        """One recipient's outcome line, which takes it out of core."""
        fresh = recipient.activation != self.activation
        recipient.activation = self.activation or _BEFORE_OURS
        recipient.done = recipient.done or final
        if fresh and self.pending:
            self.pending -= 1

    def left_core(self) -> None:
        """Proof that qmgr has it no longer: the agent's warning, or a new queue manager."""
        self.pending = 0


Entry = tuple[str | None, str]
"""Who submitted a message, "" for local mail, None where no line said so, as of mail from within Postfix; and its
message-id. Once it is active both are forgotten."""
ENTERED: Entry = ("", "")
IDENTIFIED: Entry = (None, "")

_BEFORE_OURS: Final = -1
"""An outcome in an activation whose `(queue active)` line we did not see."""

_OURS: Final = frozenset({Place.PROMISED, Place.TAKING, Place.HELD, Place.RELEASING})


def by_arrival(message: Message) -> tuple[float, str]:
    """Sort oldest first; the queue id settles ties, so that the same log gives the same order."""
    return message.arrival, message.queue_id


Announced = tuple[str, tuple[str, ...], float]
"""What the policy service learned of a message that nothing was done about: the sender, the recipients (none where not
all of them are known), the time. A bare tuple, for one is made for each message."""
MOST_ANNOUNCED = 25_000
"""Of a generation: messages that wait for their first line. Many never get one, for they are refused after our
answer; the log is read within a second, so that one who is still waiting behind so many others waits in vain."""


class Messages:
    """All live messages, by (instance, queue id), and by envelope sender's domain.

    One that was only announced is made when it is asked for by its id, mostly by its first line: until then, which is
    while Postfix waits for an answer and some moments more, it costs next to nothing. It is none of those that are
    listed: before its first activation no message is taken.
    """

    def __init__(self) -> None:
        # Two generations, as in policies/access: the older is dropped as a whole.
        self._announced: dict[tuple[str, str], Announced] = {}
        self._announced_before: dict[tuple[str, str], Announced] = {}
        self._by_id: dict[str, dict[str, Message]] = {}
        self._by_sender: dict[str, set[Message]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_id.values()))

    def __iter__(self) -> Iterator[Message]:
        for messages in self._by_id.values():
            yield from messages.values()

    def sample(self, most: int) -> list[Message]:
        """Take every n-th, so that about `most` are taken; all of them where there are no more."""
        step = -(-len(self) // most) or 1
        return [each for messages in self._by_id.values() for each in islice(messages.values(), 0, None, step)]

    def get(self, instance: str, queue_id: str) -> Message | None:
        messages = self._by_id.get(instance)
        message = messages.get(queue_id) if messages else None
        if message is None:
            place = instance, queue_id
            if place in self._announced:
                return self._make(instance, queue_id, self._announced.pop(place))
            if place in self._announced_before:
                return self._make(instance, queue_id, self._announced_before.pop(place))
        return message

    def announce(self, instance: str, queue_id: str, announced: Announced) -> None:
        """Note a message that is not live yet, by whatever is known of it before its first line."""
        if len(self._announced) >= MOST_ANNOUNCED:
            self._announced, self._announced_before = {}, self._announced
        self._announced[instance, queue_id] = announced

    def forget_announced(self) -> None:
        """Lines may be missing, those of activations among them: what was only announced may be in core unseen."""
        self._announced.clear()
        self._announced_before.clear()

    def obtain(self, instance: str, queue_id: str, *, now: float) -> Message:
        """Get the live message, or a new one."""
        message = self.get(instance, queue_id) or self._new(instance, queue_id, now=now)
        message.last_line = now
        return message

    def _new(self, instance: str, queue_id: str, *, now: float) -> Message:
        messages = self._by_id.get(instance)
        if messages is None:
            messages = self._by_id[intern(instance)] = {}
        message = messages[queue_id] = Message(intern(instance), queue_id, now=now)
        return message

    def _make(self, instance: str, queue_id: str, announced: Announced) -> Message:
        sender, recipients, time = announced
        message = self._new(instance, queue_id, now=time)
        self.sent_by(message, sender)
        message.recipients = tuple(map(Recipient, recipients))
        message.nrcpt = len(message.recipients)
        return message

    def adopt(self, message: Message) -> None:
        """Take a message made elsewhere (restored from the store)."""
        self._by_id.setdefault(intern(message.instance), {})[message.queue_id] = message
        if message.sender is not None:
            message.sender_domain = intern(domain_of(message.sender))
            self._by_sender.setdefault(message.sender_domain, set()).add(message)

    def sent_by(self, message: Message, sender: str) -> None:
        """Note the envelope sender, which is what messages are looked up by when a sub-queue opens."""
        if message.sender == sender:
            return
        if message.sender is not None:
            self._unlist(message)
        message.sender = sender
        message.sender_domain = intern(domain_of(sender))
        self._by_sender.setdefault(message.sender_domain, set()).add(message)

    def of_sender(self, domain: str) -> list[Message]:
        """List the live messages whose envelope sender is of exactly this domain, in no order."""
        return list(self._by_sender.get(domain, ()))

    def sender_domains(self) -> list[str]:
        """List the envelope domains of live messages."""
        return list(self._by_sender)

    def remove(self, message: Message) -> None:
        """The message is gone from the queue."""
        self._by_id[message.instance].pop(message.queue_id, None)
        if message.sender is not None:
            self._unlist(message)

    def live(self, queue_id: str) -> Message | None:
        """Find a live message by its queue id alone, in any instance."""
        found = (messages.get(queue_id) for messages in self._by_id.values())
        return next((message for message in found if message is not None), None)

    def of_instance(self, instance: str) -> list[Message]:
        """List the live messages of one Postfix instance."""
        return list(self._by_id.get(instance, {}).values())

    def _unlist(self, message: Message) -> None:
        messages = self._by_sender.get(message.sender_domain)
        if messages is not None:
            messages.discard(message)
            if not messages:
                del self._by_sender[message.sender_domain]

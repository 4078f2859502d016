"""One open sub-queue: its state machine, and the mail that waits in it, oldest first."""

import heapq
from collections.abc import Iterator
from typing import Final

from policies.by_hand import ByHand, Requeueing
from policies.key import Key
from policies.messages import Message, Place
from policies.rule import Strategy
from policies.subqueue import State, SubQueue

STOPPED: Final = frozenset({State.PAUSED, State.PROBING})
"""States in which queued mail is taken."""
_PARK = Strategy.PARK
_FORGOTTEN_AFTER = 60.0
"""Seconds after which one that was let out is no longer believed to be under way, whatever became of it."""
_MOST_EARLY = 1_000
"""More are not in delivery; one whose outcome never came is forgotten."""


class OpenSubQueue:
    """Mutable, and only the engine's."""

    __slots__ = (
        "_early",
        "_heap",
        "_sequence",
        "_under_way",
        "dirty",
        "due_at",
        "held",
        "key",
        "let_out",
        "line",
        "machine",
        "opened_at",
        "probe",
        "rule",
        "said",
        "strategy",
        "unheld_attempts",
    )

    def __init__(
        self,
        key: Key,
        machine: SubQueue | ByHand,
        *,
        rule: str,
        line: str,
        now: float,
        strategy: Strategy = Strategy.PARK,
    ) -> None:
        self.key = key
        self.machine = machine
        self.rule = rule
        self.line = line
        self.opened_at = now
        self.strategy = strategy
        self.held = 0
        """Messages waiting."""
        self.probe: Message | None = None
        self.let_out = 0
        self.unheld_attempts = 0
        """Attempts of the key's mail during a pause that we did not let out."""
        self.said = machine.state
        """The state last told in the audit log."""
        self.dirty = True
        """Changed since it was last stored."""
        self.due_at = 0.0
        """When it is to be looked at; 0 where that is not arranged."""
        self._early: dict[Message, None] = {}
        """Refused by one MX host, whose word the machine has; the outcome's own line is still to come."""
        self._heap: list[tuple[float, int, Message]] = []
        self._sequence = 0
        self._under_way: dict[Message, float] = {}
        """Let out, and perhaps still to be tried; with the time of it."""

    @property
    def parks(self) -> bool:
        """Whether mail is held for it."""
        return self.strategy is _PARK

    @property
    def requeueing(self) -> Requeueing | None:
        """Where its mail is led, if it is requeued and not released."""
        return self.machine.requeueing if isinstance(self.machine, ByHand) else None

    @property
    def takes(self) -> bool:
        """Whether queued mail is put on hold for it now."""
        state = self.machine.state
        return self.parks and (state in STOPPED or (self.requeueing is not None and state is not State.CLOSED))

    @property
    def oldest_arrival(self) -> float | None:
        """When the oldest waiting message arrived; perhaps of one that has just left."""
        return self._heap[0][0] if self._heap else None

    def probes_with(self, message: Message) -> None:
        """This message is the probe."""
        self.probe = message
        message.probing = True

    def lets_out(self, message: Message, *, now: float) -> None:
        """This message goes, and its attempt is paid for."""
        self.let_out += 1
        self.machine.spent(1, now=now)
        if isinstance(self.machine, SubQueue):  # a stream by hand lets go as it is told, and counts nothing
            self._under_way[message] = now
        self.dirty = True

    def still_under_way(self, *, now: float) -> int:
        """Count what was let out and is still to be tried, or just being tried."""
        self._under_way = {
            message: since
            for message, since in self._under_way.items()
            if is_under_way(message) and now - since < _FORGOTTEN_AFTER
        }
        return len(self._under_way)

    def refused_early(self, message: Message) -> None:
        """The machine was told of a refusal before the outcome's own line."""
        self._early[message] = None
        if len(self._early) > _MOST_EARLY:
            del self._early[next(iter(self._early))]

    def was_refused_early(self, message: Message) -> bool:
        """Whether the machine knows of this outcome; asked once."""
        return self._early.pop(message, self) is None

    def settled(self, message: Message) -> None:
        """If this message was the probe, it is not any more."""
        if self.probe is message:
            self.probe = None
            message.probing = False

    def park(self, message: Message) -> None:
        """The message waits here from now on."""
        self._sequence += 1
        heapq.heappush(self._heap, (message.arrival, self._sequence, message))
        self.held += 1

    def left(self) -> None:
        """One that waited here waits no longer; its entry is dropped when it comes up."""
        self.held -= 1
        if len(self._heap) > 2 * self.held + 1_000:
            self._heap = [entry for entry in self._heap if self._waits(entry[2])]
            heapq.heapify(self._heap)

    def oldest(self, most: int) -> Iterator[Message]:
        """Walk the waiting mail, oldest first, at most `most` of it; what is not taken stays in place."""
        looked: list[tuple[float, int, Message]] = []
        seen: set[Message] = set()
        try:
            while self._heap and len(looked) < most:
                entry = heapq.heappop(self._heap)
                if not self._waits(entry[2]) or entry[2] in seen:
                    continue
                looked.append(entry)
                seen.add(entry[2])
                yield entry[2]
        finally:
            for entry in looked:
                if self._waits(entry[2]):
                    heapq.heappush(self._heap, entry)

    def _waits(self, message: Message) -> bool:
        return message.on_hold and self.key in message.held_under


def is_under_way(message: Message) -> bool:
    """Whether one that was let go is still to be tried, or just being tried."""
    return message.place is Place.RELEASING or (message.place is Place.QUEUED and (message.paid or message.in_core))

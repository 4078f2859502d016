"""Taking queued mail: whom a paused sub-queue may take out of Postfix's queue, and when."""

from collections.abc import Iterator
from itertools import islice

from policies.books import Books
from policies.commands import Command, Hold
from policies.key import Key
from policies.messages import Message, Messages, Place, by_arrival
from policies.parked import OpenSubQueue
from policies.site import Settings
from policies.subqueues import SubQueues

BATCH = 500
"""Messages a `postsuper -h`."""
_SLICE = 2_000
"""Messages looked at in one step, so that policy answers are not delayed."""


class Taking:
    def __init__(self, messages: Messages, subqueues: SubQueues, books: Books, settings: Settings) -> None:
        self.allowed = settings.act
        """Off in observe mode, and while intent cannot be stored."""
        self._messages = messages
        self._subqueues = subqueues
        self._books = books
        self.settings = settings
        self._candidates: list[Iterator[Message]] = []
        self._wanted: dict[str, dict[Message, Key]] = {}
        """By instance."""

    @property
    def busy(self) -> bool:
        """Whether there is more to look at, or to command."""
        return bool(self._candidates or self._wanted)

    def sweep(self, key: Key) -> None:
        """A sub-queue has paused: look at all queued mail that may be its own, oldest first."""
        candidates = self._subqueues.candidates(key, self._messages)
        self._candidates.append(iter(sorted(candidates, key=by_arrival)))

    def consider(self, message: Message, *, now: float) -> None:
        """Look at a queued message that is about to be, or was just, attempted."""
        if not self._subqueues or message.exempt:
            return
        subs = self._under(message, now=now)
        if subs is None:
            return
        if any(sub.takes for sub in subs):
            self._take(message, subs, now=now)
        elif message.in_core and not message.paid:  # Postfix tries it by itself: it goes, and is paid for
            message.paid = True
            for sub in subs:
                sub.machine.spent(1, now=now)

    def commands(self, *, now: float) -> list[Command]:
        """Go on with the sweeps, and give the holds to command, oldest first."""
        self._go_on(now=now)
        commands: list[Command] = []
        for instance, keys in self._wanted.items():
            wanted = sorted((message for message in keys if message.place is Place.TAKING), key=by_arrival)
            for start in range(0, len(wanted), BATCH):
                batch = wanted[start : start + BATCH]
                commands.append(Hold(instance, {message.queue_id: str(keys[message]) for message in batch}))
        self._wanted.clear()
        return commands

    def _go_on(self, *, now: float) -> None:
        while self._candidates:
            looked = list(islice(self._candidates[0], _SLICE))
            for message in looked:
                self._look_at(message, now=now)
            if len(looked) == _SLICE:
                return
            self._candidates.pop(0)

    def _look_at(self, message: Message, *, now: float) -> None:
        if message.place is Place.QUEUED:
            subs = None if message.exempt else self._under(message, now=now)
            if subs and any(sub.takes for sub in subs):
                self._take(message, subs, now=now)
        elif message.on_hold:  # it waits in another sub-queue, and now in this one too
            domains = {recipient.domain for recipient in message.open_recipients}
            for sub in self._subqueues.covering(message, domains, now=now) or ():
                if sub.parks:
                    self._books.also_under(message, sub.key)

    def _under(self, message: Message, *, now: float) -> list[OpenSubQueue] | None:
        """List the sub-queues that a queued message may be taken under; None where it may not be (rules 1, 4, 8)."""
        if message.place is not Place.QUEUED or not message.all_known or message.finished:
            return None
        if message.probing:
            return None
        if message.in_core and message.nrcpt > 1:
            return None  # no proof would come that qmgr has let go; it is taken when it is deferred
        if not message.activation and not message.attempts:
            return None  # perhaps still being received: postsuper -h would skip it
        if now - message.arrival >= self.settings.hold_max_of(message) or self.settings.is_verification(message):
            return None
        return self._subqueues.covering(message, {recipient.domain for recipient in message.open_recipients}, now=now)

    def _take(self, message: Message, subs: list[OpenSubQueue], *, now: float) -> None:
        if not self.allowed:
            return
        keys = [sub.key for sub in subs if sub.parks]
        self._books.park(message, keys, Place.TAKING, now=now)
        self._wanted.setdefault(message.instance, {})[message] = keys[0]

"""Releasing held mail: what may leave now, by budget, by age, or because nothing holds it any more."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from policies.books import Books
from policies.by_hand import STREAM, Requeueing
from policies.commands import Command, Leaving, Release, Reload, Requeue
from policies.key import Key
from policies.messages import Message, Messages, Place
from policies.parked import STOPPED, OpenSubQueue, is_under_way
from policies.site import Settings
from policies.subqueue import State, SubQueue
from policies.subqueues import SubQueues
from policies.telling import Telling

TICK = 1.0
"""Seconds between two releases: each ends in a kick, and a kick scans the deferred queue."""
_LATE = 0.25
"""Seconds by which a release may be late, and the next one is not."""
MIN_HOLD = 2.0
"""Seconds a message stays on hold at least, so that a `(queue active)` line written meanwhile is read first."""
RESOLVED_FOR = 31.0
"""Seconds that a message stays on hold before it is requeued: so long trivial-rewrite(8)'s clients remember the last
address that they asked about (resolve_clnt.c), and would send it by the old answer."""
BULK_RATE = 150
"""Messages a second at most when mail without a sub-queue leaves: Postfix takes over a thousand."""
BULK_LEAST = 40
"""So many may be under way at the least: as many as two destinations have slots."""
BULK_FORGOTTEN = 60.0
"""Seconds after which one that we let go is no longer believed to be under way, whatever became of it."""
ROUNDS_EVERY = 10.0
"""Seconds between two looks at all sub-queues."""
CAP_RATE = 20
"""Messages a second that leave at hold_max: slower, for their provider still refuses them."""
_CAPPED_AT_ONCE = int(CAP_RATE * ROUNDS_EVERY)
FULL_ACTIVE = 2_000
"""Messages in core beyond which no bulk mail is added: the active queue holds 20,000 (qmgr_message_active_limit)."""
STUCK_AFTER = 600.0
"""Seconds a held message may lack the proof of rule 1 before the queue manager is reloaded."""
SEVERAL = "several"
"""Stands for the key where messages of several, or of none any more, are released together."""
_LOOK_PAST = 200
"""Messages looked at beyond the budget: those in core or locked stay, and do not block the ones behind."""


class Releasing:
    def __init__(
        self, messages: Messages, subqueues: SubQueues, books: Books, telling: Telling, settings: Settings
    ) -> None:
        self._messages = messages
        self._subqueues = subqueues
        self._books = books
        self._telling = telling
        self.settings = settings
        self.phase: float | None = None
        """Where in a TICK we release; None: whenever there is something. Hosts of a fleet take turns by it."""
        self._tick_at = 0.0
        self._rounds_at = 0.0
        self._ready: dict[Key, OpenSubQueue] = {}
        self._under_way: dict[Message, float] = {}
        """Let go in bulk and not yet tried, with the time of it."""
        self._bulk_looked = 0.0
        self._reloaded: dict[str, float] = {}

    def look_at(self, sub: OpenSubQueue) -> None:
        """Its state or budget changed: held mail of it may leave with the next release."""
        self._ready[sub.key] = sub

    def next_at(self, *, now: float) -> float | None:
        """Tell when to ask again, as far as held mail is concerned."""
        waiting = self._ready or self._books.free or self._books.done
        return max(now, self._tick_at) if waiting else None

    def commands(self, *, now: float) -> list[Command]:
        """Give the releases of this moment, at most once a TICK."""
        if now < self._tick_at:
            return []
        chosen: dict[str, list[Message]] = {}
        for message in (*self._books.done, *self._in_turn(now=now)):
            self._choose(message, chosen, now=now)
        bulk: dict[str, list[Message]] = {}
        for message in self._bulk(now=now):
            self._choose(message, bulk, now=now)
            self._under_way[message] = now
        self._tick_at = self._next_tick(now)
        releases = [command for instance, messages in chosen.items() for command in self._leaving(instance, messages)]
        releases += [_release(instance, messages, TICK) for instance, messages in bulk.items()]
        return releases + self._now_and_then(now=now)

    def _next_tick(self, now: float) -> float:
        soonest = now + TICK
        if self.phase is None:
            return soonest
        late = (soonest - self.phase) % TICK
        return soonest - late if late <= _LATE else soonest - late + TICK

    def _choose(self, message: Message, chosen: dict[str, list[Message]], *, now: float) -> None:
        if self._clear(message, now=now):
            message.place = Place.RELEASING
            self._books.note(message)
            chosen.setdefault(message.instance, []).append(message)

    def _clear(self, message: Message, *, now: float) -> bool:
        """Whether a held message may go back into the queue without harm (rule 1), and the hold is ours (rule 3)."""
        return (
            message.place in _RELEASABLE
            and message.own_line
            and not message.in_core
            and now >= message.retry_at
            and now - message.held_since >= (MIN_HOLD if self._requeueing(message) is None else RESOLVED_FOR)
        )

    def _leaving(self, instance: str, messages: Iterable[Message]) -> Iterator[Command]:
        """Let messages out: those that are to go another way in one command for each such way, the others as they are."""
        by_way: dict[Requeueing | None, list[Message]] = {}
        for message in messages:
            by_way.setdefault(self._requeueing(message), []).append(message)
        for way, leaving in by_way.items():
            yield _release(instance, leaving, 0.0) if way is None else self._requeue(instance, leaving, way)

    def _requeueing(self, message: Message) -> Requeueing | None:
        """Where a held message is led, if it is to be requeued: never one that is delivered, even in part."""
        way = next((sub.requeueing for sub in self._streams_of(message) if sub.requeueing is not None), None)
        return None if any(recipient.done for recipient in message.recipients) else way

    def _streams_of(self, message: Message) -> Iterator[OpenSubQueue]:
        """Give the sub-queues by hand that a message waits in."""
        for key in message.held_under:
            sub = self._subqueues.get(key) if key.type == STREAM else None
            if sub is not None:
                yield sub

    def _requeue(self, instance: str, messages: Sequence[Message], way: Requeueing) -> Requeue:
        mail = {
            message.queue_id: Leaving(
                self._subqueues.organizational(message.sender_domain),
                tuple(recipient.address for recipient in message.open_recipients),
            )
            for message in messages
        }
        key = next(sub.key for sub in self._streams_of(messages[0]) if sub.requeueing == way)
        return Requeue(instance, str(key), way.source, way.to, mail)

    # By budget.

    def _in_turn(self, *, now: float) -> list[Message]:
        ready, self._ready = self._ready, {}
        messages: list[Message] = []
        for key in sorted(ready):
            sub = ready[key]
            if self._subqueues.get(key) is sub:
                messages += self._affordable(sub, now=now)
                self._subqueues.schedule(sub, now=now, not_before=now + TICK)
        return messages

    def _affordable(self, sub: OpenSubQueue, *, now: float) -> Iterator[Message]:
        """Choose the oldest messages that this sub-queue, and every other they wait in, lets go now."""
        if isinstance(sub.machine, SubQueue):
            sub.machine.under_way = sub.still_under_way(now=now)
        budget = sub.machine.allowance(now=now, held=sub.held)
        if budget <= 0:
            return
        for message in self._oldest_clear(sub, budget, now=now):
            waits_in = [other for key in message.held_under if (other := self._subqueues.get(key)) is not None]
            if any(other.machine.allowance(now=now, held=other.held) <= 0 for other in waits_in):
                continue
            for paying in waits_in:
                _pay(paying, message, now=now)
            yield message
            budget -= 1
            if budget <= 0:
                return

    def _oldest_clear(self, sub: OpenSubQueue, budget: int, *, now: float) -> Iterator[Message]:
        waiting = (message for message in sub.oldest(budget + _LOOK_PAST) if self._clear(message, now=now))
        if sub.machine.state is not State.PROBING:
            yield from waiting
            return
        candidates = [message for message in waiting if not message.finished]
        single = [message for message in candidates if len(message.open_recipients) == 1]
        yield from (single or candidates)[:1]

    # By age, or because nothing holds it.

    def _bulk(self, *, now: float) -> list[Message]:
        """Choose free mail, in the order in which it became free, as long as Postfix has room.

        The queue manager serves a destination in turn, so what we add to it is what everybody else waits behind:
        never more than twice what left in the last second, or BULK_LEAST.
        """
        left = self._landed(now=now)
        if not self._books.free or sum(message.in_core for message in self._messages) > FULL_ACTIVE:
            return []
        room = 2 * left + BULK_LEAST - len(self._under_way)
        waiting = (message for message in self._books.free if self._clear(message, now=now))
        return list(islice(waiting, max(0, min(BULK_RATE, room))))

    def _landed(self, *, now: float) -> int:
        """Count those that were tried since the last look, a second."""
        before = len(self._under_way)
        self._under_way = {
            message: since
            for message, since in self._under_way.items()
            if is_under_way(message) and now - since < BULK_FORGOTTEN
        }
        seconds, self._bulk_looked = max(TICK, now - self._bulk_looked), now
        return int((before - len(self._under_way)) / seconds)

    def _now_and_then(self, *, now: float) -> list[Command]:
        """Make the rounds that look at all sub-queues: who has reached hold_max, and who waits for a proof in vain."""
        if now < self._rounds_at:
            return []
        self._rounds_at = now + ROUNDS_EVERY
        return [*self._capped(now=now), *self._reloads(now=now)]

    def _capped(self, *, now: float) -> list[Command]:
        """Release mail at hold_max, oldest first and paced; it is not taken again before one attempt."""
        chosen: dict[str, list[Message]] = {}
        capped: list[tuple[str, str]] = []
        for sub in self._subqueues.all():
            oldest = sub.oldest_arrival
            if oldest is None or now - oldest < self.settings.least_hold_max:
                continue
            for message in sub.oldest(_CAPPED_AT_ONCE - len(capped)):
                if now - message.arrival < self.settings.hold_max_of(message):
                    break
                message.exempt = True
                self._choose(message, chosen, now=now)
                if message.place is Place.RELEASING:
                    capped.append((message.instance, message.queue_id))
        if capped:
            self._telling.tell("capped", "reached hold_max", now=now, messages=len(capped), ids=capped)
        return [_release(instance, messages, ROUNDS_EVERY) for instance, messages in chosen.items()]

    # The last resort.

    def _reloads(self, *, now: float) -> list[Command]:
        """Replace a queue manager whose proof does not come, once in a long while."""
        stuck_after = STUCK_AFTER / self.settings.scale
        waiting: dict[str, int] = {}
        for message in self._wanting_out(now=now):
            if message.in_core and now - message.held_since > stuck_after:
                waiting[message.instance] = waiting.get(message.instance, 0) + 1
        commands: list[Command] = []
        for instance, count in waiting.items():
            if now - self._reloaded.get(instance, -stuck_after) >= stuck_after:
                self._reloaded[instance] = now
                why = f"{count} held messages lack proof that the queue manager let go"
                self._telling.tell("reload", why, now=now, messages=count)
                commands.append(Reload(instance, count))
        return commands

    def _wanting_out(self, *, now: float) -> Iterator[Message]:
        yield from self._books.free
        for sub in self._subqueues.all():
            if sub.held and (sub.machine.state not in STOPPED or sub.machine.allowance(now=now, held=sub.held) > 0):
                yield from sub.oldest(_LOOK_PAST)


_RELEASABLE = frozenset({Place.HELD, Place.PROMISED})


def _pay(sub: OpenSubQueue, message: Message, *, now: float) -> None:
    if sub.machine.state is State.PROBING:
        sub.probes_with(message)
    sub.lets_out(message, now=now)


def _release(instance: str, messages: list[Message], spread: float) -> Release:
    return Release(instance, tuple(message.queue_id for message in messages), _key_of(messages), spread)


def _key_of(messages: Iterable[Message]) -> str:
    keys = {key for message in messages for key in message.held_under}
    return str(next(iter(keys))) if len(keys) == 1 else SEVERAL

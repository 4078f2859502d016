"""What is ordered of one sub-queue, by hand, by a rule, by a breakage or by another host of the fleet, and what follows.

It knows nothing of log lines or of arriving mail; whoever orders says by whom and because of which line.
"""

import math

from parsers.expression import ExpressionError
from policies.books import Books
from policies.by_hand import STREAM, Requeueing, stream_key
from policies.fail_fast import RULE, FailFast, HoldBroken
from policies.fleet.row import Row
from policies.key import EVERYWHERE, Key
from policies.messages import by_arrival
from policies.outcomes import Outcomes
from policies.parked import OpenSubQueue
from policies.reacting import RULE as REACTED
from policies.subqueue import State, SubQueue
from policies.subqueues import BY_HAND, DOMAIN_TYPES, SubQueues
from policies.taking import Taking
from policies.telling import Telling


class Orders:
    """Opens, pauses, resumes and closes sub-queues, and lets go what they hold."""

    def __init__(
        self,
        subqueues: SubQueues,
        books: Books,
        taking: Taking,
        telling: Telling,
        outcomes: Outcomes,
        *,
        hold_broken: HoldBroken,
    ) -> None:
        self._subqueues = subqueues
        self._books = books
        self._taking = taking
        self._telling = telling
        self._outcomes = outcomes
        self.fail_fast = FailFast(self, hold_broken)

    def open(self, key: Key, *, rule: str, line: str = "", by_whom: str = "engine", now: float) -> OpenSubQueue:
        """Open a sub-queue, or find it open, and begin to take its queued mail."""
        sub = self._subqueues.get(key)
        if sub is None:
            if key.type == STREAM:
                raise ValueError(f"{key}: not open; a stream is opened by a condition, with --where")
            accepted = self._outcomes.accepted_lately(key, now=now)
            sub = self._subqueues.open(key, rule=rule, line=line, by_whom=by_whom, accepted=accepted, now=now)
            self._taking.sweep(key)
        return sub

    def open_stream(
        self, where: str, *, name: str, rate: float, seconds: float | None, by_whom: str, now: float
    ) -> OpenSubQueue:
        """Take the mail for which a condition holds out of the lane: paused, or at `rate` messages a second.

        For so many seconds, or (None) until it is closed. The same condition again changes the pace. Raises ValueError.
        """
        until = math.inf if seconds is None else now + seconds
        try:
            key = stream_key(where, name)
            sub = self._subqueues.open_stream(key, where, rate=rate, until=until, by_whom=by_whom, now=now)
        except ExpressionError as error:
            raise ValueError(f"where: {error}") from error
        if sub.machine.state is State.PAUSED:
            self._taking.sweep(key)
        return sub

    def requeue(
        self, requeueing: Requeueing, *, where: str, name: str, rate: float, seconds: float, by_whom: str, now: float
    ) -> OpenSubQueue:
        """Have queued mail that was last tried over a transport requeued, at `rate` messages a second, for `seconds`.

        Mail that comes later is not touched; what has not left by then is released as it is. Raises ValueError.
        """
        try:
            key = stream_key(where, name)
            sub = self._subqueues.open_stream(
                key, where, rate=rate, until=now + seconds, by_whom=by_whom, now=now, requeueing=requeueing
            )
        except ExpressionError as error:
            raise ValueError(f"where: {error}") from error
        self._taking.sweep(key)
        return sub

    def pause(self, key: Key, seconds: float | None, *, by_whom: str, now: float) -> OpenSubQueue:
        """Pause by hand, opening the sub-queue if need be."""
        sub = self.open(key, rule=BY_HAND, by_whom=by_whom, now=now)
        sub.machine.pause(now=now, seconds=seconds)
        self._changed(sub, by_whom=by_whom, now=now)
        return sub

    def hold(self, key: Key, seconds: float, *, rule: str, line: str, by_whom: str, now: float) -> OpenSubQueue:
        """Let nothing out for so long from now, whatever was to be tried; a longer pause stays."""
        sub = self.open(key, rule=rule, line=line, by_whom=by_whom, now=now)
        sub.machine.hold(now=now, seconds=seconds)
        self._changed(sub, rule=rule, line=line, by_whom=by_whom, now=now)
        return sub

    def resume(self, key: Key, *, by_whom: str, now: float) -> bool:
        """End a pause that waits for a repair: the probe goes now. Whether there was one."""
        sub = self._subqueues.get(key)
        if sub is None or not (sub.rule.startswith((RULE, REACTED)) or self._outcomes.waits_for_repair(sub.rule)):
            return False
        sub.machine.resume(now=now)
        self._changed(sub, by_whom=by_whom, now=now)
        return True

    def follow(self, row: Row, *, left: float, now: float) -> None:
        """Do as another host of the fleet does with a key; `left`: seconds that its pause lasts from now on."""
        by_whom = f"host {row.host}"
        sub = self._subqueues.get(row.key)
        if sub is None:
            if row.state is State.CLOSED:
                return
            sub = self.open(row.key, rule=row.rule, line=row.line, by_whom=by_whom, now=now)
        if not isinstance(sub.machine, SubQueue):
            return
        pause = row.until - row.since
        sub.machine.follow(row.state, pace=row.ceiling, exploring=row.exploring, pause=pause, left=left, now=now)
        self._changed(sub, rule=row.rule, line=row.line, by_whom=by_whom, now=now)

    def close(self, key: Key, *, by_whom: str, now: float) -> bool:
        """Close by hand: what waits leaves at the bulk rate, unless another sub-queue holds it too."""
        self.fail_fast.let_go(key, by_whom=by_whom)
        sub = self._subqueues.get(key)
        if sub is None:
            return False
        if self._waits_by_reply(sub):
            self.fail_fast.let_go_at(key, sub.rule, sub.line, since=sub.opened_at, by_whom=by_whom)
        sub.machine.close(now=now)
        self.tell_state(sub, by_whom=by_whom, now=now)
        return True

    def release(self, key: Key | None, *, by_whom: str, now: float) -> int:
        """Let go what is held under a key (under all where None) at the bulk rate; each message gets one attempt."""
        chosen = [sub for sub in self._subqueues.all() if key is None or sub.key == key]
        waiting = {message: None for sub in chosen for message in sub.oldest(sub.held)}
        for message in sorted(waiting, key=by_arrival):
            message.exempt = True
            self._books.free[message] = None
        ids = [(message.instance, message.queue_id) for message in waiting]
        self._telling.tell(
            "released", "by hand", now=now, key=str(key or ""), by_whom=by_whom, messages=len(ids), ids=ids
        )
        broken = self.fail_fast.let_go(key, by_whom=by_whom) + [sub.key for sub in chosen if self._waits_by_reply(sub)]
        for each in broken:  # nor is its new mail held
            self.close(each, by_whom=by_whom, now=now)
        return len(waiting)

    def open_keys(self) -> list[Key]:
        return [sub.key for sub in self._subqueues.all()]

    def concerns_others(self, sub: OpenSubQueue) -> bool:
        """Whether a sub-queue is of our sending domains, and holds; not of our address or of what is to be repaired."""
        held = sub.key.type in DOMAIN_TYPES and sub.parks
        return held and not sub.rule.startswith(RULE) and not self._outcomes.waits_for_repair(sub.rule)

    def _waits_by_reply(self, sub: OpenSubQueue) -> bool:
        """Whether a provider's replies hold its mail until something of ours is repaired."""
        return sub.key.provider != EVERYWHERE and self._outcomes.waits_for_repair(sub.rule)

    def _changed(
        self, sub: OpenSubQueue, *, now: float, rule: str = "", line: str = "", by_whom: str = "engine"
    ) -> None:
        """Somebody gave it another time to move at, and perhaps another state."""
        sub.dirty = True
        self._subqueues.schedule(sub, now=now)
        self.tell_state(sub, now=now, rule=rule, line=line, by_whom=by_whom)

    def tell_state(
        self, sub: OpenSubQueue, *, now: float, rule: str = "", line: str = "", by_whom: str = "engine"
    ) -> None:
        """Tell of a sub-queue that is in another state than was told, and do what follows: take its mail, or let it go."""
        if not self._subqueues.tell_state(sub, now=now, rule=rule, line=line, by_whom=by_whom):
            return
        if sub.machine.state is State.PAUSED:
            self._taking.sweep(sub.key)
        elif sub.machine.state is State.CLOSED:
            waiting = list(sub.oldest(sub.held))
            self._subqueues.retire(sub)
            for message in waiting:
                self._books.no_longer_under(message, sub.key)

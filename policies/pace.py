"""At what pace a throttled key's mail may leave: how the belief in a limit becomes messages a second, step by step.
Knows when refusals ended the last ramp; pauses and probes are the caller's."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from policies.chance import Chance
from policies.limit import FLOOR, Aftermath, Episode, Limit, Overrun, finite, or_infinite
from policies.trail import Trail


class Pacing(NamedTuple):
    """Every duration (seconds) and rate (messages/s) that a sub-queue goes by."""

    pause: float = 300.0
    """The first pause."""
    pause_min: float = 30.0
    pause_max: float = 3600.0
    probe_timeout: float = 600.0
    """A probe without an outcome for so long is replaced."""
    void_delay: float = 5.0
    """A probe that ended without a reply is replaced after so long."""
    close_after: float = 600.0
    """So long at full pace, with nothing held and no refusal."""
    forget_after: float = 86400.0
    """A sub-queue that wants to probe and has no mail to do it with closes after so long."""
    step: float = 5.0
    """The pace changes once in so long."""
    quick: float = 40.0
    """The shortest time in which a pace may grow e-fold while nothing is known of the limit ..."""
    careful: float = 60.0
    """... and once the limit has been met."""
    span: float = 60.0
    """What a limit lets through at once is taken to be so many seconds' worth, until two episodes tell better."""
    slack: float = 30.0
    """Held mail that leaves within so long at the present pace counts as none waiting ..."""
    idle: float = 60.0
    """... and after so long of that, the pace may grow untested: demand is below the limit."""
    creep_max: float = 1800.0
    """The longest that the way back up takes after an episode that lowered the limit."""
    hold_max: float = 21600.0
    """The longest that a learned pace is held before more is tried."""
    full_pace: float = 50.0
    """At this pace the key no longer counts as limited."""
    first_pace: float = 1.0
    """Where the first ramp begins when nothing is known."""

    def scaled(self, by: float) -> Self:
        """For labs, where an hour passes in a minute: divides each duration by `by`.

        Rates stay. A lab that divides its provider's windows raises the rates that these allow, and they are
        learned as any other; how fast outcomes come back is measured, and bounds the growth whatever the scale.
        """
        return self._replace(**{name: getattr(self, name) / by for name in self._fields if name not in _RATES})


_RATES = frozenset({"full_pace", "first_pace"})

MARGIN = 0.97
"""A pace stays so far below what the limit is believed to be."""
CARE = 9.0
"""Exploring, a pace grows e-fold in no less than the time in which so many bursts leave at it."""
PATIENCE = 2.0
"""For how many times its price, in pauses, a pace is held before more is tried, for an e-fold of hope."""
RARER = 1.5
"""Each exploration that found nothing makes the next one so much rarer."""
DEAR = 5.0
"""How much rarer exploring gets where an episode lowered the limit."""
UNKNOWN_BURST = 100.0
_SPARE = 15.0
"""Refusals that exploring may cost in an opening: a third of what a small backlog may see (15 in 1000 of 3,000) ..."""
_SHARE = 0.002
"""... and for each message that was accepted in it, while enough waits to be worth it: with what comes unasked,
3 in 1000 of a large backlog."""
_UNSEEN = 1.0
"""Seconds' worth of the pace that is let out unseen, beside the lag: releases go once a second, all at a time."""
_LAGS = 10.0
"""A pace grows e-fold in no less than so many times what an outcome takes to come back."""
_SLOWLY = 10.0
"""Where probes failed, the first ramp takes at least the shut-out by this to grow e-fold."""
_CARRIED = 0.7
"""The first ramp begins no lower than at this part of what was accepted over burst and pause."""
_BELIEVED = 0.5
"""Nor lower than at this part of what explains it, were what goes through at once no more than `Pacing.span` seconds' worth ..."""
_AT_STAKE = 0.5
"""... with so much of what exploring may cost under way: unlike what was carried, that may be far above the limit."""
_ABSENT = 30.0
"""Seconds. Who asks this late has been away: ours to fear, whatever the scale."""
_WORTH = 2.0
"""More is tried only if what is held takes so many of the pauses that it may cost to leave."""
_BACK = 5.0
"""The way back up after a fall takes so many pauses."""


@dataclass(slots=True)
class Plan:
    """How mail leaves until the limit is known better: creep up to the goal, hold it, then explore."""

    goal: float
    """Messages/s that are believed to be safe."""
    start: float
    """Where the ramp begins; not above the goal."""
    creep: float = math.inf
    """Seconds in which a pace below the goal grows e-fold."""
    explore_at: float = 0.0
    care: float = 1.0
    quickest: float = 0.0
    """Seconds in which the pace may grow e-fold at most."""
    exploring: bool = False
    idle_since: float | None = None
    """Since when next to nothing waits."""
    lent: bool = False
    """The pace has grown untested."""


class Pace:
    def __init__(self, pacing: Pacing, *, accepted: int = 0, during: float = 0.0) -> None:
        """`accepted`: messages that the provider took in the `during` seconds before its first refusal; 0: not known."""
        self.rate = 0.0
        """Messages/s; 0 while paused."""
        self.next_step_at = math.inf
        self.limit = Limit()
        self.limit.opened(accepted, during)
        self._pacing = pacing
        self._plan = Plan(pacing.first_pace, pacing.first_pace)
        self._chance = Chance()
        self._lag = 1.0
        """What an outcome takes to come back, seconds."""
        self._trail: Trail | None = None
        """Of the ramp that is or was the last; None: there was none yet in this opening."""
        self._over: Overrun | None = None
        self._others = Aftermath()
        """What other hosts of a fleet had of it; not stored."""
        self._shut = math.inf
        """When the pause began; infinite while mail leaves."""
        self._before = 0.0
        """Seconds from the last refusal to the ramp after it."""
        self._accepted = 0
        """In the ramps of this opening ..."""
        self._refused = 0
        """... as were refused in them."""
        self._guessing = False
        """In the first ramp, with nothing but what was accepted before it to tell where it begins; not stored."""
        self._paces: list[list[float]] = []
        """[time, messages/s] of the latest steps."""

    @property
    def planned(self) -> bool:
        """Whether a refusal now is the price of trying more; else the limit fell, or was believed too high."""
        return self._plan.exploring or not self.limit.rate

    @property
    def soft(self) -> bool:
        """The provider went on accepting some after it began to refuse, in a ramp: it has not shut the key out."""
        over = self._whole_overrun
        return self._trail is not None and over is not None and over.soft

    @property
    def lag(self) -> float:
        """What an outcome takes to come back, seconds."""
        return self._lag

    @property
    def exploring(self) -> bool:
        """Whether more is being tried than is known to be safe."""
        return self._plan.exploring

    @property
    def aftermath(self) -> Aftermath:
        """What became of what was under way here when the first refusal came."""
        return self._over.aftermath if self._over is not None else Aftermath()

    @property
    def _whole_overrun(self) -> Overrun | None:
        return self._over.with_others(self._others) if self._over is not None else None

    @property
    def by_chance(self) -> bool:
        """Refusals are taken for chance, and the pace is full."""
        return self._chance.ratio > 0 and self.rate >= self._pacing.full_pace

    # What the provider says.

    def accepted(self, *, began: float, now: float) -> None:
        self._measure(began, now)
        over = self._over
        if over is not None and over.since < began < self._shut:
            over.accepted += 1
            over.last = max(over.last, began)
        elif self._trail is not None and began >= self._trail.began:
            self._accepted += 1
            self._trail.add(began)
            self._chance.accept()

    def refused(self, *, began: float, now: float) -> bool:
        """Whether this refusal is evidence of a limit, and no chance."""
        self._measure(began, now)
        ramping = self._trail is not None and self._shut == math.inf and began >= self._trail.began
        if ramping and self._chance.refuse():
            return False
        self._refused += self._trail is not None and began >= self._trail.began
        over = self._over
        if over is None or (ramping and began < over.since):
            self._over = Overrun(began, began)
        elif over.since <= began < self._shut:
            over.refused += 1
            over.last = max(over.last, began)
        return True

    # What other hosts of a fleet say.

    def accepted_elsewhere(self, count: int, *, now: float) -> None:
        """The provider took `count` messages that other hosts sent, as we hear now."""
        if self._trail is None:
            return
        began = now - self._lag
        self._accepted += count
        for _ in range(count):
            self._trail.add(began)
            self._chance.accept()

    def accepted_before(self, count: int, during: float, *, leads: bool, now: float) -> None:
        """All hosts together had so many accepted in the `during` seconds before the first refusal, as we hear now.

        Others' part is heard once they want some of the budget: a ramp of ours, if we lead, has begun without it.
        """
        told = self.limit.opened_by_all(count, during)
        if told and leads and self._guessing and self.rate:
            self._plan.goal = max(self._plan.goal, self._guess)
            self._set(max(self.rate, self._guess), now)

    def refused_elsewhere(self, *, now: float) -> None:
        """Another host was refused: the limit was met a little ago."""
        began = now - self._lag
        ramping = self._trail is not None and self._shut == math.inf
        self._refused += ramping
        if self._over is None:
            self._over = Overrun(began, began)

    def had_aftermath(self, others: Aftermath) -> None:
        """What became of all that other hosts had under way when the first refusal came, as far as we know by now."""
        self._others = others

    def led(self, rate: float, *, exploring: bool, now: float) -> None:
        """Another host sets the pace; should that become ours to do, the next step is one step from now."""
        self._plan.exploring = exploring
        self._set(rate, now)
        self.next_step_at = now + self._pacing.step

    def _set(self, rate: float, now: float) -> None:
        if self._trail is not None and rate != self.rate:
            self._trail.mark(now)
            self._paces = [*self._paces[-7:], [now, rate]]
        self.rate = rate

    def _measure(self, began: float, now: float) -> None:
        self._lag += 0.05 * (max(0.0, now - began) - self._lag)

    # The caller's pauses.

    def stop(self, *, now: float) -> None:
        """A pause begins, or one more after a probe that failed."""
        self._shut = min(self._shut, now)
        self.rate = 0.0
        self.next_step_at = math.inf

    def resume(self, *, now: float, failed: float) -> None:
        """A probe went well. `failed`: seconds after the refusal at which the last probe failed; 0: none did."""
        over = self._whole_overrun
        after = now - over.since if over is not None else 0.0
        if self._trail is None:
            self._begin(over, after=after, failed=failed, now=now)
        elif over is not None:
            self._learn(self._trail, over, after=after, failed=failed, now=now)
        self._before = after or self._before
        self.rate = self._plan.start
        self._plan.exploring, self._plan.lent, self._plan.idle_since = False, False, None
        self._over, self._others = None, Aftermath()
        self._shut = math.inf
        self._trail = Trail(now)
        self._trail.add(now)
        self._chance.ramp()
        self._paces = [[now, self.rate]]
        self.next_step_at = now + self._pacing.step

    def close(self) -> None:
        """What was learned of the limit is kept for the next opening."""
        self.limit.rest()
        self._trail = self._over = None
        self._others = Aftermath()
        self._shut = math.inf
        self._chance = Chance()
        self._paces = []
        self._accepted = self._refused = 0

    def _begin(self, over: Overrun | None, *, after: float, failed: float, now: float) -> None:
        """Plan the first ramp of an opening."""
        pacing, limit = self._pacing, self.limit
        limit.shut_for = max(limit.shut_for, failed)
        quickest, explore_at = pacing.quick, now
        accepted = over.rate if over is not None else None
        self._guessing = accepted is None and not limit.rate and not failed
        if over is not None:
            self._chance.opened(over)
        if accepted is not None:
            goal = pacing.full_pace if accepted >= 0.8 * pacing.full_pace else 0.8 * accepted
        elif limit.rate:
            goal, quickest, explore_at = 0.8 * limit.rate, pacing.careful, now + after
        elif failed:
            goal, quickest = pacing.first_pace * pacing.pause / after, max(pacing.quick, after / _SLOWLY)
        else:
            goal = max(pacing.first_pace, self._guess)
        goal = max(FLOOR, goal, _CARRIED * limit.carried(after))
        self._plan = Plan(goal, goal, explore_at=explore_at, quickest=quickest)

    @property
    def _guess(self) -> float:
        """Where the first ramp may begin, messages/s, by what was accepted before the first refusal; 0: not known."""
        at_most = _AT_STAKE * _SPARE / (self._lag + _UNSEEN)
        return min(_BELIEVED * self.limit.carried(self._pacing.span), at_most)

    def _learn(self, trail: Trail, over: Overrun, *, after: float, failed: float, now: float) -> None:
        """Learn from the ramp that was refused, and plan the next."""
        pacing, limit = self._pacing, self.limit
        known, planned = limit.burst > 0, self.planned
        self._chance.ended(over, planned=planned)
        limit.learn(
            Episode(
                run=trail.run(over.since),
                pace=next((rate for at, rate in reversed(self._paces) if at <= over.since), self._paces[0][1]),
                over=over,
                before=self._before,
                after=after,
                failed=failed,
                planned=planned,
                span=pacing.span,
                dear=failed > 0 or after >= pacing.pause,
            )
        )
        goal = max(FLOOR, MARGIN * limit.rate)
        start = max(FLOOR, limit.fall * goal)
        hope = max(0.02, math.log(max(limit.ceiling, limit.best) / goal))
        creep, back = math.inf, 0.0
        if start < goal:
            back = min(pacing.creep_max, max(_BACK * after, 3 * limit.burst / start))
            creep = back / math.log(goal / start)
        # The second run tells rate from burst, and is had at once; but not if what went before the opening told it.
        known = known or (over.soft and limit.told)
        price = after * PATIENCE / hope * RARER**limit.misses * (1 + DEAR * (1 - limit.fall))
        hold = min(pacing.hold_max, price) if known else 0.0
        care = CARE * min(1.0, 0.5 / hope)
        self._plan = Plan(goal, start, creep, explore_at=now + back + hold, care=care, quickest=pacing.careful)

    # Time.

    def advance(self, *, now: float, held: int) -> None:
        """Take the steps that are due, but those for which nobody asked: what was not tried was not tested."""
        self.next_step_at = max(self.next_step_at, now - _ABSENT)
        self._watch(now, held)
        while self.next_step_at <= now:
            at, step = self.next_step_at, self._pacing.step
            if self._trail is not None:
                self._trail.mark(at)
            self.rate = min(self._pacing.full_pace, self.rate * math.exp(step / self._growth(at, held)))
            self._paces = [*self._paces[-7:], [at, self.rate]]
            self.next_step_at += step

    def _watch(self, now: float, held: int) -> None:
        """Give back what the pace grew untested when mail waits again."""
        plan = self._plan
        if held <= self.rate * self._pacing.slack:
            plan.idle_since = now if plan.idle_since is None else plan.idle_since
            return
        plan.idle_since = None
        if plan.lent:
            self.rate, plan.lent = min(self.rate, plan.goal), False

    def _growth(self, at: float, held: int) -> float:
        """Seconds in which the pace grows e-fold from here on."""
        pacing, plan, limit = self._pacing, self._plan, self.limit
        seen = _LAGS * self._lag
        if self._chance.ratio > 0:
            return max(pacing.quick, seen)
        idle = plan.idle_since is not None and at >= plan.idle_since + pacing.idle
        if idle and (limit.rate or plan.lent or not self._affordable(held)):
            if not limit.rate and not plan.lent:
                plan.goal = max(plan.goal, self.rate)  # was tested
            plan.lent = True
            return max(pacing.careful, seen)
        if self.rate < plan.goal and plan.creep < math.inf:  # infinite, and yet below: where another host led us lower
            return plan.creep
        plan.exploring = plan.exploring or (at >= plan.explore_at and self._worth_trying(held))
        if not plan.exploring or not self._affordable(held):
            return math.inf
        burst = limit.burst or min(UNKNOWN_BURST, limit.at_once)
        return max(plan.quickest, seen, plan.care * burst / self.rate)

    def _affordable(self, held: int) -> bool:
        """Whether what has been delivered pays for the refusals that a limit met at this pace would cost.

        What is under way when the first of them is seen is refused as well: with a slow provider, or a log that is
        read late, that is most of the cost. What was delivered pays for nothing when the little that is left would
        be out before a pause is over: the last messages of a backlog met the limit for no gain.
        """
        expected = self.rate * (self._lag + _UNSEEN)
        earned = _SHARE * self._accepted if self._pays_off(held) else 0.0
        return self._refused + expected <= _SPARE + earned

    def _worth_trying(self, held: int) -> bool:
        return not self.limit.rate or self._pays_off(held)

    def _pays_off(self, held: int) -> bool:
        """Whether so much is held that a faster pace may win back the pause that it may cost."""
        return held > _WORTH * self._before * self.rate

    # The store's side.

    def snapshot(self) -> dict[str, Any]:
        """All that `restore` needs, in JSON's types."""
        return {
            "rate": self.rate,
            "next_step_at": finite(self.next_step_at),
            "limit": self.limit.snapshot(),
            "plan": {**asdict(self._plan), "creep": finite(self._plan.creep)},
            "chance": asdict(self._chance),
            "lag": self._lag,
            "trail": self._trail.snapshot() if self._trail is not None else None,
            "over": asdict(self._over) if self._over is not None else None,
            "shut": finite(self._shut),
            "before": self._before,
            "accepted": self._accepted,
            "refused": self._refused,
            "paces": [list(pace) for pace in self._paces],
        }

    @classmethod
    def restore(cls, pacing: Pacing, snapshot: Mapping[str, Any]) -> Self:
        """Go on as if never stopped."""
        pace = cls(pacing)
        pace.rate, pace.next_step_at = snapshot["rate"], or_infinite(snapshot["next_step_at"])
        pace.limit = Limit.restore(snapshot["limit"])
        pace._plan = Plan(**{**snapshot["plan"], "creep": or_infinite(snapshot["plan"]["creep"])})
        pace._chance = Chance(**snapshot["chance"])
        pace._lag = snapshot["lag"]
        pace._trail = Trail.restore(snapshot["trail"]) if snapshot["trail"] is not None else None
        pace._over = Overrun(**snapshot["over"]) if snapshot["over"] is not None else None
        pace._shut = or_infinite(snapshot["shut"])
        pace._before = snapshot["before"]
        pace._accepted, pace._refused = snapshot["accepted"], snapshot["refused"]
        pace._paces = [list(at_rate) for at_rate in snapshot["paces"]]
        return pace

"""At what pace a throttled key's mail may leave, learned from what its provider accepted and refused.
Knows when an episode ended the last ramp and how long the provider stayed shut; pauses and probes are the caller's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from policies.trail import Run, Stretch, Trail, burst_agreed, pace_of_last, rate_needed


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
    quick: float = 20.0
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

        Rates stay. What a lab divides with its provider's windows, and so the rates that these allow, is learned
        as any other limit is; how fast outcomes come back is measured and bounds the steps, whatever the scale.
        """
        return self._replace(**{name: getattr(self, name) / by for name in self._fields if name not in _RATES})


_RATES = frozenset({"full_pace", "first_pace"})

FLOOR = 1 / 3600
"""Messages/s; no learned pace is lower."""
MARGIN = 0.97
"""A learned pace stays so far below what the limit seems to be."""
CARE = 6.0
"""Exploring, a pace grows e-fold in no less than the time in which so many bursts leave at it."""
TOLD = 1.7
"""A run of so many bursts tells the rate apart from the burst."""
BETWEEN = 0.4
"""How far between what was sustained and what was refused to go on, on a scale of logarithms, when a run tells no more."""
TRUST = 1.2
"""A rate that was told well is not expected to be wrong by more than this factor."""
PATIENCE = 2.0
"""Pauses' worth of time that a pace is held before more is tried, for an e-fold of hope."""
WORTH = 700.0
"""Messages that one deferral is worth when exploring is priced."""
RARER = 1.5
"""Each exploration that found nothing makes the next one so much rarer ..."""
RAREST = 6
"""... up to so many times over."""
DEAR = 10.0
"""How much rarer exploring gets where an episode lowered the limit."""
FORGIVE = 0.15
"""How much of the fear of that an exploration without it takes away."""
RELAX = 1.05
UNKNOWN_BURST = 100.0
LONG = 6.0
ACCEL = 6.0
HORIZON = 4.0
"""Exploring needs held mail for so many of the pauses that it may cost."""


@dataclass(slots=True)
class Overrun:
    """What became of the attempts from the first refused one to the pause: they were under way already."""

    since: float
    last: float
    accepted: int = 0
    refused: int = 1

    @property
    def soft(self) -> bool:
        """Refused and accepted by turns, as a bucket does; a window or a shut-out refuses all."""
        return self.accepted >= 2 or (self.accepted == 1 and self.refused <= 2)

    @property
    def rate(self) -> float | None:
        """Messages/s that were still accepted, where there were enough to tell."""
        return self.accepted / (self.last - self.since) if self.accepted >= 4 and self.last > self.since else None


@dataclass(slots=True)
class Chance:
    """Refusals that come at random, whatever the pace: receiver load, no limit."""

    ratio: float = 0.0
    """The share that is tolerated; 0: each refusal is taken for a limit."""
    attempts: int = 0
    refused: int = 0
    tried: bool = False

    @property
    def excused(self) -> bool:
        return self.ratio > 0 and self.refused <= 2 + 2 * self.ratio * self.attempts


class Pace:
    """The pace of one key: what is known of its limit, and the plan by which mail leaves until that is known better.

    A plan begins when a probe went well: from `rate` up to the goal where an episode lowered the limit (creep), at the
    goal for as long as exploring would cost more than it may find (hold), then on and on upward (explore).
    """

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self.rate = 0.0
        """Messages/s; 0 while paused."""
        self.next_step_at = math.inf
        self.limit = 0.0
        """What the provider is believed to let through in the long run, messages/s; 0: not known yet."""
        self.upsets = 0
        """Refusals in a row that came while nothing was being tried."""
        self._lag = 1.0
        self._chance = Chance()
        self._overrun: Overrun | None = None
        self._shut = math.inf
        # What is known.
        self._runs: list[tuple[Run, float]] = []
        self._shut_for = 0.0
        self._burst = 0.0
        self._floor = 0.0
        self._ceiling = math.inf
        self._refused_at = 0.0
        self._gap = 0.0
        self._fall = 1.0
        self._misses = 0
        self._best = 0.0
        self._cap = math.inf
        self._lone: list[list[int]] = []
        # The plan.
        self._trail: Trail | None = None
        self._goal = 0.0
        self._creep = math.inf
        self._explore_at = math.inf
        self._exploring = False
        self._care = 1.0
        self._quickest = pacing.quick
        self._sustained = 0.0
        self._idle_since: float | None = None
        self._lent = False
        self._steps: list[list[float]] = []

    @property
    def planned(self) -> bool:
        """Whether a refusal now is the price of trying more, not a sign that the limit fell."""
        return self._exploring or not self.limit

    @property
    def random(self) -> bool:
        """Refusals are taken for chance, and the full pace is reached."""
        return self._chance.ratio > 0 and self.rate >= self._pacing.full_pace

    @property
    def soft(self) -> bool:
        """The provider went on accepting some after it began to refuse: it has not shut the key out."""
        return self._overrun is not None and self._overrun.soft

    # What the provider says.

    def accepted(self, *, began: float, now: float) -> None:
        self._measure(began, now)
        over = self._overrun
        if over is not None and over.since < began < self._shut:
            over.accepted += 1
            over.last = max(over.last, began)
        elif self._trail is not None and began >= self._trail.began:
            self._trail.add(began)
            self._chance.attempts += 1
            if self._chance.refused == 0 and self._chance.attempts * self._chance.ratio > 3:
                self._chance.ratio = 0.0

    def refused(self, *, began: float, now: float) -> bool:
        """Whether the refusal says anything about a limit."""
        self._measure(began, now)
        ramp = self._trail is not None and self._shut == math.inf and began >= self._trail.began
        if ramp:
            self._chance.attempts += 1
            self._chance.refused += 1
            if self._chance.excused:
                return False
        over = self._overrun
        if over is None or (ramp and began < over.since):
            self._overrun = Overrun(began, began)
        elif over.since <= began < self._shut:
            over.refused += 1
            over.last = max(over.last, began)
        return True

    def _measure(self, began: float, now: float) -> None:
        self._lag += 0.05 * (max(0.0, now - began) - self._lag)

    # The caller's pauses.

    def stop(self, *, now: float) -> None:
        """A pause begins."""
        if self._overrun is not None and self._trail is not None:
            self._refused_at = next(
                (rate for at, rate in reversed(self._steps) if at <= self._overrun.since), self._steps[0][1]
            )
        self._shut = now
        self._chance.ratio = 0.0
        self.rate = 0.0
        self.next_step_at = math.inf

    def resume(self, *, now: float, failed: float = 0.0) -> None:
        """A probe went well. `failed`: the longest time after the refusal at which a probe failed; 0: none did."""
        over = self._overrun
        if over is None:
            self._go_on()
        elif self._trail is None:
            self._gap = now - over.since
            self._shut_for = max(self._shut_for, failed)
            self._begin(over, failed)
        else:
            self._learn(self._trail, over, now - over.since, failed, now)
        if self._explore_at < math.inf and over is not None:
            self._explore_at += now
        self._overrun = None
        self._shut = math.inf
        self._trail = Trail(now)
        self._trail.add(now)
        self._exploring = False
        self._sustained = 0.0
        self._chance.attempts, self._chance.refused = 1, 0
        self._idle_since, self._lent = None, False
        self._steps = [[now, self.rate]]
        self.next_step_at = now + self._pacing.step

    def forget_ramp(self) -> None:
        """The next resume begins a new episode; what was learned of the limit stays."""
        self._trail = None
        self._overrun = None

    def _go_on(self) -> None:
        """Nothing was refused since the last ramp: a pause by hand."""
        self.rate = max(FLOOR, self._goal * self._fall) if self._goal else self._pacing.first_pace
        self._goal = max(self._goal, self.rate)

    def _begin(self, over: Overrun, failed: float) -> None:
        pacing = self._pacing
        if over.accepted >= 8 and over.accepted >= 0.7 * (over.accepted + over.refused):
            self._chance.ratio = (over.refused + 1) / (over.accepted + over.refused)
        self._quickest, self._care, self._creep = pacing.quick, 1.0, math.inf
        self._explore_at = 0.0
        if over.rate is not None:
            full = over.rate >= 0.8 * pacing.full_pace
            self.rate = pacing.full_pace if full else 0.8 * over.rate
        elif self.limit:
            self.rate = 0.8 * self.limit
            self._explore_at = self._gap
        elif failed:
            self.rate = pacing.first_pace * pacing.pause / self._gap
            self._quickest = max(pacing.quick, self._gap / LONG)
        else:
            self.rate = pacing.first_pace
        self.rate = max(FLOOR, self.rate)
        self._goal = self.rate

    def _learn(self, trail: Trail, over: Overrun, gap: float, failed: float, now: float) -> None:
        """Narrow down the limit after a ramp that was refused, and plan the next."""
        run = trail.run(over.since)
        total, ramp = run[-1].accepted, max(1.0, run[-1].seconds)
        refused = max(FLOOR, self._refused_at)
        low = min(total / (ramp + self._gap), refused)
        self._shut_for = max(self._shut_for, failed)
        self._runs = [(r, pace) for r, pace in self._runs if pace > low][-2:] + [(run, refused)]
        told, guess = False, None
        if len(self._runs) > 1:
            highest = min(pace for _, pace in self._runs)
            self._burst = max(3.0, burst_agreed([r for r, _ in self._runs], max(FLOOR, 0.99 * low), 1.01 * highest))
            least = max(rate_needed(run, self._burst), low)
            told = (
                over.soft and low * self._gap <= self._burst
                if least == low
                else any(
                    s.accepted >= TOLD * self._burst and s.accepted - self._burst >= 0.98 * least * s.seconds
                    for s in run
                )
            )
        else:
            span = max(self._pacing.span, self._shut_for)
            least = low
            guess = min(refused, max(low, max(s.accepted / (s.seconds + span) for s in run)))
            self._burst = max(3.0, guess * span)
        most = max(FLOOR, min(refused, pace_of_last(run, self._burst)))
        if not self.planned:
            self._cap = refused
        elif low > self._cap or self._sustained > self._cap:
            self._cap = math.inf
        else:
            self._cap *= RELAX
            most = min(most, self._cap)
        floor = least
        for known in (self._floor, self._sustained):
            if known < refused / 1.05:
                floor = max(floor, known)
        self._floor = floor = max(FLOOR, min(floor, most))
        dear = failed > 0 or gap >= self._pacing.pause
        before = self.limit
        if over.rate is not None:
            limit = min(max(over.rate, low), refused)
        elif over.soft and told:
            limit = floor * min(1.04, most / floor)
        elif dear and told and least > 0.9 * floor:
            limit = floor
        elif guess is not None:
            limit = max(floor, guess)
        else:
            limit = floor ** (1 - BETWEEN) * most**BETWEEN
        planned = self.planned
        self._surprise(planned, limit / before if before else 1.0, over)
        if planned:
            self._misses = 0 if not before or limit > 1.1 * before else min(RAREST, self._misses + 1)
            self._best = max(limit, math.sqrt(limit * max(self._best, limit)))
        else:
            self._best = max(limit, self._best)
        self.limit = limit
        self._ceiling = max(most, 1.02 * limit)
        if told and (dear or over.soft):
            self._ceiling = min(self._ceiling, TRUST * limit)
        self._goal = max(FLOOR, MARGIN * limit)
        self.rate = max(FLOOR, self._goal * self._fall)
        self._plan(over, gap, known=len(self._runs) > 1)
        self._gap = gap
        self.why = f"a{over.accepted} f{over.refused} gap {gap:.0f} low {low:.2f} least {least:.2f} floor {floor:.2f} most {most:.2f} ref {refused:.2f} told {told} b {self._burst:.0f} limit {limit:.2f} fall {self._fall:.2f} miss {self._misses} ups {self.upsets} A {total} ramp {ramp:.0f} expl {self._explore_at:.0f} sust {self._sustained:.2f}"

    def _surprise(self, planned: bool, change: float, over: Overrun) -> None:
        if planned:
            self.upsets = 0
            self._fall += FORGIVE * (1 - self._fall)
        else:
            self.upsets += 1
            if change < 0.85:
                self._fall = max(0.5, min(self._fall, 0.95 * change))
        chance = self._chance
        lone = over.accepted >= 2 * over.refused or (over.refused == 1 and over.accepted <= 2)
        if planned or not lone or chance.attempts > 40 * chance.refused:
            self._lone = []
        else:
            self._lone.append([chance.refused, chance.attempts])
        if len(self._lone) >= 3:
            ratio = sum(r for r, _ in self._lone) / sum(a for _, a in self._lone)
            if 0.03 <= ratio <= 0.25 and not chance.tried:
                chance.ratio, chance.tried = ratio, True
            self._lone = []

    def _plan(self, over: Overrun, gap: float, *, known: bool) -> None:
        pacing = self._pacing
        hope = max(0.02, math.log(max(self._ceiling, self._best) / self._goal))
        waste = max(2.0, self.limit * 2 * self._lag * (0.3 if over.soft else 1.0))
        hold = max(gap * PATIENCE / hope, waste * WORTH / self._goal * min(1.0, 0.1 / hope))
        hold *= RARER**self._misses * (1 + DEAR * (1 - self._fall))
        hold = min(hold, pacing.hold_max) if known else 0.0
        self._creep, creep = math.inf, 0.0
        if self._fall < 1:
            creep = min(pacing.creep_max, max(5 * gap, 3 * self._burst / self.rate))
            self._creep = creep / -math.log(self._fall)
        self._explore_at = creep + hold
        self._care = CARE * min(1.0, 0.5 / hope)
        self._quickest = pacing.careful

    # Time.

    def advance(self, *, now: float, held: int) -> None:
        """Take the steps that are due."""
        if self.next_step_at > now:
            return
        self._watch(now, held)
        while self.next_step_at <= now:
            at = self.next_step_at
            if self._trail is not None:
                self._trail.mark(at)
            self.rate = min(self._pacing.full_pace, self.rate * math.exp(self._pacing.step / self._growth(at, held)))
            self._steps = [*self._steps[-7:], [at, self.rate]]
            self.next_step_at += self._pacing.step

    def _watch(self, now: float, held: int) -> None:
        """A pace that grew untested, while next to nothing waited, is given back when mail waits again."""
        if held <= self.rate * self._pacing.slack:
            if self._idle_since is None:
                self._idle_since = now
            return
        self._idle_since = None
        if self._lent:
            self.rate, self._lent = min(self.rate, self._goal), False

    def _growth(self, at: float, held: int) -> float:
        """Seconds in which the pace grows e-fold."""
        pacing = self._pacing
        least = max(self._quickest, 10 * self._lag)
        if self._chance.ratio:
            return max(pacing.quick, 10 * self._lag)
        if self.limit and self._idle_since is not None and at >= self._idle_since + pacing.idle:
            self._lent = True
            return max(pacing.careful, 10 * self._lag)
        if self.rate < self._goal:
            return self._creep
        if at < self._explore_at or not self._worth_exploring(held):
            return math.inf
        burst = self._burst or UNKNOWN_BURST
        if not self._exploring:
            self._exploring = True
            if self.limit and self._trail is not None:
                self._sustained = rate_needed(self._trail.run(at), burst)
        if self.rate > 1.03 * self._ceiling:
            self._care = max(1.0, self._care * math.exp(-self.rate * pacing.step / (ACCEL * burst)))
        return max(least, self._care * burst / self.rate)

    def _worth_exploring(self, held: int) -> bool:
        return self._exploring or not self.limit or held > HORIZON * self._gap * self.rate

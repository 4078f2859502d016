"""What is believed of a provider's hidden limit, and how an episode of refusals narrows it down.
Each way in which providers limit looks like a bucket in some respect; the belief is the rate that lasts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from policies.trail import Run, Stretch, burst_agreed, pace_of_last, rate_needed

FLOOR = 1 / 3600
"""Messages/s; nothing lower is believed or tried."""
_RUNS = 3
"""Episodes that the burst is read from."""
_SMALLEST_BURST = 3.0
_ABOVE = 1.04
"""Where the provider went on accepting some, the rate is read well: try so much more."""
_NEAR = 1.3
"""... and do not hope for more than by this factor."""
_LEAP = 2.0
"""Between what was let through and what was refused, go no further than so many times the former."""
_SLACKEN = 0.15
"""How much of the fear of falls goes with each exploration that caused none."""
_DEEPEST = 0.5
_FELL = 0.85
"""A limit that is found below so much of what was believed has fallen."""
_MOST_MISSES = 6
_SOFT = 2
"""So many that were accepted after the first refusal are no chance: the provider has not shut the key out."""
_APART = 0.5
"""Seconds. Attempts that began within so long of each other were let out together."""


def finite(value: float) -> float | None:
    """For a snapshot: JSON has no infinity."""
    return value if value < math.inf else None


def or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


class Aftermath(NamedTuple):
    """What other hosts of a fleet had of an `Overrun`: no two clocks are compared, so it says how long, and not when."""

    accepted: int = 0
    refused: int = 0
    """Without the first one."""
    seconds: float = 0.0

    def plus(self, other: "Aftermath") -> "Aftermath":
        """Of both: they were at it at the same time."""
        return Aftermath(self.accepted + other.accepted, self.refused + other.refused, max(self.seconds, other.seconds))

    @property
    def soft(self) -> bool:
        """As `Overrun.soft`, by what no refusal that is heard of later takes back."""
        return self.accepted >= _SOFT


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
        return self.accepted >= _SOFT or (self.accepted == 1 and self.refused <= 2)

    @property
    def together(self) -> bool:
        """All refused, and let out together: a bucket that is empty does that too, as if it were shut."""
        return not self.accepted and self.refused > 1 and self.last - self.since < _APART

    @property
    def aftermath(self) -> Aftermath:
        """The same, for other hosts."""
        return Aftermath(self.accepted, self.refused - 1, self.last - self.since)

    def with_others(self, others: Aftermath) -> "Overrun":
        """Give that of all hosts, of which this is ours."""
        last = max(self.last, self.since + others.seconds)
        return Overrun(self.since, last, self.accepted + others.accepted, self.refused + others.refused)

    @property
    def rate(self) -> float | None:
        """Messages/s that were still accepted, where there were enough to tell."""
        return self.accepted / max(_APART, self.last - self.since) if self.accepted >= 4 else None

    @property
    def share(self) -> float:
        """The part that was still accepted."""
        return (self.accepted + 0.5) / (self.accepted + self.refused + 1)


class Episode(NamedTuple):
    """One ramp, its refusal and the pause after it."""

    run: Run
    """What was accepted in the ramp, up to the refusal."""
    pace: float
    """Messages/s at the refusal."""
    over: Overrun
    before: float
    """Seconds from the refusal before this ramp to its beginning."""
    after: float
    """Seconds from this refusal to the probe that went well."""
    failed: float
    """Seconds from this refusal to the last probe that failed; 0: none did."""
    planned: bool
    """More was being tried when the refusal came."""
    span: float
    """Seconds' worth of rate that a limit lets through at once, for want of anything better."""
    dear: bool
    """A probe failed, or the first pause was needed in full: it costs to be refused."""


@dataclass(slots=True)
class Limit:
    rate: float = 0.0
    """What the provider is believed to let through in the long run, messages/s; 0: nothing is known."""
    ceiling: float = math.inf
    """Messages/s that were refused last."""
    best: float = 0.0
    """What was believed in better times; a limit that fell may recover. Fades with each exploration."""
    burst: float = 0.0
    """Messages that it lets through at once; 0: not known."""
    fall: float = 1.0
    """To what part of itself the limit fell after an episode."""
    misses: int = 0
    """Explorations in a row that found nothing."""
    upsets: int = 0
    """Refusals in a row that came while nothing was being tried."""
    at_once: float = math.inf
    """Messages that went through before the first refusal: what it lets through at once is no more."""
    shut_for: float = 0.0
    """The longest time after a refusal at which a probe still failed, seconds."""
    _floor: float = 0.0
    _held_refused: float = math.inf
    _runs: list[tuple[Run, float]] = field(default_factory=list)

    @property
    def told(self) -> bool:
        """The burst was read from more than one run."""
        return len(self._runs) > 1

    def opened(self, accepted: int, during: float) -> None:
        """What was accepted in the `during` seconds before the first refusal, if it is known, is a run like any other."""
        if accepted:
            self.at_once = float(accepted)
            self._runs = [((Stretch(max(1.0, during), accepted),), math.inf)]

    def opened_by_all(self, accepted: int, during: float) -> bool:
        """As `opened`, of all hosts of a fleet; nothing new (False) once a ramp has told more, or where we knew as much."""
        if not accepted or self.rate or accepted <= self.at_once < math.inf:
            return False
        self.opened(accepted, during)
        return True

    def carried(self, after: float) -> float:
        """Messages/s over the last burst and `after` seconds since without any, as of a pause; 0: not known."""
        if not self._runs:
            return 0.0
        longest = self._runs[-1][0][-1]
        return longest.accepted / (longest.seconds + after)

    def learn(self, episode: Episode) -> None:
        """Narrow the belief down by a ramp that was refused."""
        before = self.rate
        self.shut_for = max(self.shut_for, episode.failed)
        self.rate = max(FLOOR, self._read(episode))
        self.ceiling = max(self.ceiling, 1.02 * self.rate)
        if episode.over.soft:
            self.ceiling = min(self.ceiling, _NEAR * self.rate)
        if not episode.planned:
            self.upsets += 1
            self.best = max(self.rate, self.best)
            if self.rate < _FELL * before:
                self.fall = max(_DEEPEST, min(self.fall, 0.95 * self.rate / before))
            return
        self.upsets = 0
        self.best = math.sqrt(self.rate * max(self.best, self.rate))
        self.fall += _SLACKEN * (1 - self.fall)
        found = not before or self.rate > 1.1 * before
        self.misses = 0 if found else min(_MOST_MISSES, self.misses + 1)

    def _read(self, episode: Episode) -> float:
        """Read the rate from an episode and from what is remembered of those before it."""
        run, over, refused = episode.run, episode.over, max(FLOOR, episode.pace)
        total, ramp = run[-1].accepted, run[-1].seconds
        # From one refusal to the next a bucket lets through no more than its rate: it was empty at both.
        through = min(refused, total / (ramp + episode.before))
        agreeing = [(r, pace) for r, pace in self._runs if pace > through]
        self._runs = [*agreeing[1 - _RUNS :], (run, refused)]
        span = max(episode.span, self.shut_for)
        guess = min(refused, max(through, *(s.accepted / (s.seconds + span) for s in run)))
        window = not (over.soft or over.together or episode.dear)
        bucket = self._bucket(run, through, guess * span)
        self.ceiling = self._most(episode, through, refused)
        floor = through if window else max(through, bucket)
        if self._floor < refused / 1.05:
            floor = max(floor, self._floor)
        self._floor = floor = max(FLOOR, min(floor, self.ceiling))
        if over.rate is not None:
            return min(max(over.rate, through), refused)
        if not self.told:
            rate = max(floor, guess)
        elif over.soft:
            rate = _ABOVE * floor
        elif not window and bucket > max(through, 0.9 * floor):
            rate = floor
        else:
            low = max(floor, guess) if window else floor
            rate = min(_LEAP * low, math.sqrt(low * self.ceiling))
        if episode.failed and not over.soft:
            rate = max(rate, total / (ramp + episode.after))  # a window: burst and pause fill it once
        if over.soft and over.accepted + over.refused >= 4:
            rate = max(rate, refused * over.share * (0.5 if episode.planned else 1.0))
        return min(rate, self.ceiling)

    def _bucket(self, run: Run, through: float, burst: float) -> float:
        """Messages/s of the bucket that explains the remembered runs; `burst` is the guess from one."""
        if not self.told:
            self.burst = max(_SMALLEST_BURST, burst)
            return 0.0
        lowest = max(FLOOR, 0.99 * through)
        highest = max(lowest, 1.01 * min(pace for _, pace in self._runs))
        self.burst = max(_SMALLEST_BURST, burst_agreed([r for r, _ in self._runs], lowest, highest))
        return rate_needed(run, self.burst)

    def _most(self, episode: Episode, through: float, refused: float) -> float:
        """What the limit cannot be above, messages/s, unless it has moved."""
        most = max(FLOOR, min(refused, pace_of_last(episode.run, self.burst)))
        if not episode.planned:
            self._held_refused = refused
        elif through > self._held_refused:
            self._held_refused = math.inf
        else:
            most = min(most, self._held_refused)
        return most

    def rest(self) -> None:
        """The sub-queue closes: the rate and the burst are remembered, how they were found is not."""
        self._runs = []
        self.misses = self.upsets = 0
        self._floor, self._held_refused = 0.0, math.inf

    def snapshot(self) -> dict[str, Any]:
        return {
            "rate": self.rate,
            "ceiling": finite(self.ceiling),
            "best": self.best,
            "burst": self.burst,
            "at_once": finite(self.at_once),
            "fall": self.fall,
            "misses": self.misses,
            "upsets": self.upsets,
            "shut_for": self.shut_for,
            "floor": self._floor,
            "held_refused": finite(self._held_refused),
            "runs": [[finite(pace), [list(stretch) for stretch in run]] for run, pace in self._runs],
        }

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> Self:
        plain = {name: snapshot[name] for name in ("rate", "best", "burst", "fall", "misses", "upsets", "shut_for")}
        return cls(
            **plain,
            ceiling=or_infinite(snapshot["ceiling"]),
            at_once=or_infinite(snapshot["at_once"]),
            _floor=snapshot["floor"],
            _held_refused=or_infinite(snapshot["held_refused"]),
            _runs=[
                (tuple(Stretch(seconds, accepted) for seconds, accepted in run), or_infinite(pace))
                for pace, run in snapshot["runs"]
            ],
        )

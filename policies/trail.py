"""What a provider accepted and when, and which token bucket explains it: a rate, and a burst above that rate.
Knows nothing of pauses or paces; windows, buckets and connection limits all leave trails that a bucket comes close to."""

import bisect
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

BINS = 48
"""How finely a trail is kept; older bins are merged by twos, so a long trail is coarse where it is old."""
STRETCHES = 16
"""How finely a run is kept."""
_SHORTEST = 2.0
"""Seconds. Mail leaves in batches, about one a second: what is shorter holds a batch more or less than its share."""


class Stretch(NamedTuple):
    """`accepted` messages began within the last `seconds` before the moment that a run ends at."""

    seconds: float
    accepted: int


Run = tuple[Stretch, ...]
"""The stretches before one refusal, the shortest first; the last one reaches back to where the ramp began."""


class Trail:
    """Accepted attempts by the time they began, in bins; outcomes may come late and in any order."""

    __slots__ = ("_counts", "_starts")

    def __init__(self, began: float) -> None:
        self._starts = [began]
        self._counts = [0]

    @property
    def began(self) -> float:
        return self._starts[0]

    def mark(self, now: float) -> None:
        """What begins from `now` on is counted in a bin of its own."""
        if now <= self._starts[-1]:
            return
        self._starts.append(now)
        self._counts.append(0)
        if len(self._starts) > BINS:
            old = BINS // 2
            self._counts[:old] = [self._counts[i] + self._counts[i + 1] for i in range(0, old, 2)]
            del self._starts[1:old:2]

    def add(self, began: float) -> None:
        self._counts[max(0, bisect.bisect_right(self._starts, began) - 1)] += 1

    def run(self, end: float) -> Run:
        """The stretches before a refusal of an attempt that began at `end`; at least one."""
        stretches = []
        accepted = 0
        for start, count in zip(reversed(self._starts), reversed(self._counts), strict=True):
            accepted += count
            if end - start >= _SHORTEST or start == self.began:
                stretches.append(Stretch(max(1.0, end - start), accepted))
        return tuple(_thinned(stretches))

    def snapshot(self) -> list[list[float]]:
        return [[start, count] for start, count in zip(self._starts, self._counts, strict=True)]

    @classmethod
    def restore(cls, bins: Iterable[Sequence[float]]) -> Self:
        trail = cls(0.0)
        trail._starts, trail._counts = [], []
        for start, count in bins:
            trail._starts.append(start)
            trail._counts.append(int(count))
        return trail


def _thinned(stretches: Sequence[Stretch]) -> Iterable[Stretch]:
    """Each longer than the one before by the same factor, as nearly as they come; the shortest and the longest too."""
    if len(stretches) <= STRETCHES:
        return stretches
    seconds = [stretch.seconds for stretch in stretches]
    growth = seconds[-1] / seconds[0]
    wanted = (seconds[0] * growth ** (i / (STRETCHES - 1)) for i in range(STRETCHES))
    last = len(stretches) - 1
    kept = {min(last, bisect.bisect_left(seconds, length)) for length in wanted} | {last}
    return (stretches[i] for i in sorted(kept))


def burst_needed(run: Run, rate: float) -> float:
    """The smallest burst with which a bucket of `rate` messages/s lets the run through."""
    return max(0.0, *(s.accepted - rate * s.seconds for s in run))


def rate_needed(run: Run, burst: float) -> float:
    """The smallest rate, messages/s, with which a bucket of `burst` lets the run through."""
    return max(0.0, *((s.accepted - burst) / s.seconds for s in run))


def pace_of_last(run: Run, messages: float) -> float:
    """Messages/s over the shortest stretch that holds so many messages (over all, where none does)."""
    stretch = next((s for s in run if s.accepted >= messages), run[-1])
    return stretch.accepted / stretch.seconds


def burst_agreed(runs: Sequence[Run], low: float, high: float) -> float:
    """The burst of the one bucket that explains best why each of the runs ended, its rate between `low` and `high`.

    Each run ended where its bucket was empty, so at the true rate they all need the same burst.
    """
    steps = math.ceil(math.log(high / low) / math.log(1.05))
    rates = (low * (high / low) ** (i / max(1, steps)) for i in range(steps + 1))
    return min((_disagreement(runs, rate) for rate in rates), key=lambda found: round(found[0], 4))[1]


def _disagreement(runs: Sequence[Run], rate: float) -> tuple[float, float]:
    """How differently large the bursts are that the runs need at a rate (variance of logarithms), and their mean."""
    logs = [math.log(burst_needed(run, rate) + 2) for run in runs]
    mean = sum(logs) / len(logs)
    return sum((x - mean) ** 2 for x in logs) / len(logs), math.exp(mean) - 2

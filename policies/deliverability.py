"""Rates of delivery, the targets that they are held against, and what their differences can be trusted for.

Knows what each rate is a share of, and that a few messages prove little: a mark says whether a miss is more than chance.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

Z: Final = 1.959963984540054
"""Of a two-sided interval of 95 %."""


class Rate(NamedTuple):
    """`hits` of `of`."""

    hits: float
    of: float

    @property
    def share(self) -> float | None:
        return self.hits / self.of if self.of > 0 else None


class Interval(NamedTuple):
    low: float
    high: float


class Mark(StrEnum):
    """How a rate stands to its target."""

    MET = "met"
    PERHAPS = "perhaps"
    """Missed, by no more than chance may do (95 %)."""
    MISSED = "missed"


class Target(NamedTuple):
    share: float
    at_least: bool
    """Else: at most."""


TARGETS: Final[Mapping[str, Target]] = {
    "acceptance": Target(0.98, at_least=True),
    "hard_bounces": Target(0.002, at_least=False),
    "complaints": Target(0.001, at_least=False),
}


def rates(sums: Mapping[str, float]) -> dict[str, Rate]:
    """Give the rates of some sums (policies/rollup.py's MEASURES, and `complaints` where they are known).

    Acceptance and bounces are shares of the recipients with a final outcome: delivered, bounced or expired. Deferrals
    are a share of the attempts, complaints of what was delivered.
    """
    final = sums["sent"] + sums["bounced"] + sums["expired"]
    soft = sums["bounced"] - sums["hard"] - sums["block"]
    return {
        "acceptance": Rate(sums["sent"], final),
        "hard_bounces": Rate(sums["hard"], final),
        "soft_bounces": Rate(soft, final),
        "blocks": Rate(sums["block"], final),
        "expired": Rate(sums["expired"], final),
        "deferrals": Rate(sums["deferred"], sums["attempts"]),
        "complaints": Rate(sums.get("complaints", 0), sums["sent"]),
    }


def mark(name: str, rate: Rate) -> Mark | None:
    """Tell how a rate stands to its target; None where it has none, or there was no mail."""
    target, share = TARGETS.get(name), rate.share
    if target is None or share is None:
        return None
    if share >= target.share if target.at_least else share <= target.share:
        return Mark.MET
    low, high = wilson(rate)
    sure = high < target.share if target.at_least else low > target.share
    return Mark.MISSED if sure else Mark.PERHAPS


def wilson(rate: Rate, z: float = Z) -> Interval:
    """Give the score interval of a share (Wilson 1927); of nothing, all that is possible."""
    hits, of = min(rate.hits, rate.of), rate.of
    if of <= 0:
        return Interval(0.0, 1.0)
    share, square = hits / of, z * z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def newcombe(one: Rate, other: Rate, z: float = Z) -> Interval:
    """Give the interval of the difference `one` minus `other`, out of both score intervals (Newcombe 1998, method 10)."""
    if one.of <= 0 or other.of <= 0:
        return Interval(-1.0, 1.0)
    p, q = min(one.hits, one.of) / one.of, min(other.hits, other.of) / other.of
    a, b = wilson(one, z), wilson(other, z)
    low = p - q - math.sqrt((p - a.low) ** 2 + (b.high - q) ** 2)
    high = p - q + math.sqrt((a.high - p) ** 2 + (q - b.low) ** 2)
    return Interval(max(-1.0, low), min(1.0, high))


def differ(one: Rate, other: Rate) -> bool:
    """Whether two shares differ by more than chance may do (95 %)."""
    low, high = newcombe(one, other)
    return low > 0 or high < 0

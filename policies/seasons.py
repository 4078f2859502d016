"""What is usual at such an hour of the week, and how far from it something is now.

Knows that mail has its days and hours, that one bad week must not become what is usual (so median and MAD, not mean
and deviation), and that without some weeks, or at least days, of history nothing is usual yet.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from parsers.observation import Outcome
from policies.figures import Figure, Kind
from policies.windows import DAY, FEED, HOUR, SHARES, Counts, Object

WEEK: Final = 7 * DAY
WEEKS: Final = 4
DAYS: Final = 14
LEAST: Final = 5
"""Hours that must have had mail for anything to be usual."""
HOUR_MIN: Final = 50
"""Messages that such an hour must have had."""
SPREAD_MIN: Final = 0.01
"""A share that never moved may still move by a per cent."""
_SIGMA_OF_MAD: Final = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""
WATCHED: Final = ("hard-bounces", "deferrals", "authentication")


class Usual(NamedTuple):
    middle: float
    spread: float
    """As a standard deviation."""


def hours_like(now: float, *, first: float) -> tuple[int, ...]:
    """Begins of the hours that this one is compared with, of those since `first`; none while history is too short.

    With three weeks of history the same hour of the week and its neighbours; with five days the same hour of the day.
    """
    here = int(now - HOUR / 2) // HOUR * HOUR
    if first <= now - 3 * WEEK:
        found = [here - week * WEEK + beside * HOUR for week in range(1, WEEKS + 1) for beside in (-1, 0, 1)]
    elif first <= now - 5 * DAY:
        found = [here - day * DAY for day in range(1, DAYS + 1)]
    else:
        found = []
    return tuple(each for each in found if each >= first)


def steady_hours(now: float, *, first: float) -> tuple[tuple[float, float], ...]:
    """(begin, end) of the hours in each of which a stream must have sent to be called steady.

    With two weeks of history the same hour of the weeks before and its neighbours; else each hour of the last day.
    """
    if first <= now - 2 * WEEK - 2 * HOUR:
        here = int(now - HOUR / 2) // HOUR * HOUR
        weeks = [week for week in range(1, WEEKS + 1) if here - week * WEEK - HOUR >= first]
        begins = [here - week * WEEK + beside * HOUR for week in weeks for beside in (-1, 0, 1)]
    else:
        begins = [int(now) - back * HOUR for back in range(2, 26)]
    return tuple((float(begin), float(begin + HOUR)) for begin in begins)


def usual(shares: Sequence[float]) -> Usual | None:
    """Give the median of such hours and their spread; None of too few."""
    if len(shares) < LEAST:
        return None
    middle = median(shares)
    return Usual(middle, _SIGMA_OF_MAD * median(abs(share - middle) for share in shares))


def strangeness(share: float, volume: float, known: Usual) -> float:
    """How many spreads a share of so many messages is above what is usual, chance included; 0 below it."""
    chance = math.sqrt(known.middle * (1.0 - known.middle) / volume) if volume else 1.0
    return max(0.0, share - known.middle) / max(known.spread, chance, SPREAD_MIN)


def unusual(
    counted: Mapping[Object, Counts],
    before: Mapping[Object, Sequence[Counts]],
    also: Collection[Object],
    *,
    now: float,
) -> Iterator[Figure]:
    """Tell how strange the last hour is, of every object that has a history, and of those in `also`."""
    for object_ in {*counted, *also}:
        counts = counted.get(object_, Counts())
        hours = before.get(object_, ())
        for share in (each for each in SHARES if each.measure in WATCHED):
            past = [share.part(hour) / share.whole(hour) for hour in hours if share.whole(hour) >= HOUR_MIN]
            known, whole = usual(past), share.whole(counts)
            if known is None and object_ not in also:
                continue
            value = share.part(counts) / whole if whole else 0.0
            strange = strangeness(value, whole, known) if known else 0.0
            text = f"{value:.1%} {_SAID[share.measure]} where {known.middle:.1%} is usual" if known else ""
            kind, name = object_
            about = (FEED, name, Kind(kind), f"unusual.{share.measure}.1h", Outcome.OK)
            yield Figure(*about, round(strange, 1), text, now, now, float(whole))


_SAID: Final = {
    "hard-bounces": "bounced for good",
    "deferrals": "put off",
    "authentication": "refused for want of authentication",
}


def surge(
    last_hour: Mapping[Object, int], greatest: Mapping[Object, int], also: Collection[Object], *, now: float
) -> Iterator[Figure]:
    """Tell how many times the greatest hour that it ever had a domain sent in the last one."""
    for object_ in {*greatest, *(each for each in also if each[0] == Kind.DOMAIN)}:
        sent, most = last_hour.get(object_, 0), greatest.get(object_, 0)
        value = round(sent / most, 2) if most else 0.0
        yield Figure(FEED, object_[1], Kind.DOMAIN, "surge.1h", Outcome.OK, value, "", now, now, float(sent))


def peak(daily: Sequence[int]) -> float | None:
    """Give what is an ordinary peak, of the greatest values of days: the third greatest, so that two bad days are none.

    Of less than a week the greatest, of less than a day nothing.
    """
    found = sorted(daily, reverse=True)
    if len(found) < 2:
        return None
    return float(found[2] if len(found) >= 7 else found[0])

"""How fast incidents were noticed and over, week by week: whether detection gets better or worse.

Knows the goals. An incident counts in the week in which it was opened; one that goes on counts as not yet over.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final, NamedTuple

from policies.incidents import Incident

DETECT_GOAL: Final = 900.0
"""Seconds from the first sign within which an incident should be noticed."""
RECOVER_GOAL: Final = 3600.0
WEEK: Final = 7 * 86_400.0


class Span(NamedTuple):
    """Incidents that were opened between two times."""

    begin: float
    end: float
    incidents: int
    open: int
    """Of these, still going on."""
    detect_median: float | None
    """Seconds; None where there was no incident."""
    detect_worst: float | None
    detect_in_time: int
    recover_median: float | None
    """Of those that are over."""
    recover_worst: float | None
    recover_in_time: int
    categories: tuple[tuple[str, int], ...]
    """(category, incidents), the most frequent first."""


def span_of(incidents: Iterable[Incident], *, begin: float, end: float) -> Span:
    """Sum up those that were opened in [begin, end)."""
    found = [each for each in incidents if begin <= each.opened_at < end]
    detect = [each.detect_seconds for each in found]
    recover = [each.recover_seconds for each in found if each.recover_seconds is not None]
    kinds = Counter(each.category for each in found)
    return Span(
        begin,
        end,
        len(found),
        len(found) - len(recover),
        median(detect) if detect else None,
        max(detect, default=None),
        sum(each <= DETECT_GOAL for each in detect),
        median(recover) if recover else None,
        max(recover, default=None),
        sum(each <= RECOVER_GOAL for each in recover),
        tuple(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))),
    )


def weeks(incidents: Sequence[Incident], *, now: float, number: int) -> list[Span]:
    """The last `number` weeks, the newest first; the newest ends now."""
    return [
        span_of(incidents, begin=now - (back + 1) * WEEK, end=now - back * WEEK + (back == 0)) for back in range(number)
    ]

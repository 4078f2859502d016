"""Time to delivery in fixed buckets, the same in every store, metric and report, and percentiles out of them.

Knows that sums of buckets are exact over any span and any group of mail, which percentiles themselves are not.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

BOUNDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0, 43200.0, 86400.0)
"""Upper bounds in seconds, each inclusive; behind the last one is one more bucket without a bound."""
BUCKETS: Final = len(BOUNDS) + 1


def bucket_of(seconds: float) -> int:
    """Give the number of the bucket that a time belongs to."""
    return bisect_left(BOUNDS, seconds)


def percentile(counts: Sequence[float], share: float) -> float | None:
    """Give the time within which `share` (0 to 1) of the mail was delivered; None where there was none.

    Within a bucket times are taken to be spread evenly, as histogram_quantile of Prometheus does. Of the last bucket
    its lower bound is given: it was at least that.
    """
    total = sum(counts)
    if total <= 0:
        return None
    wanted = share * total
    below = 0.0
    for number, count in enumerate(counts):
        if count and below + count >= wanted:
            low = BOUNDS[number - 1] if number else 0.0
            if number == len(BOUNDS):
                return low
            return low + (BOUNDS[number] - low) * max(0.0, wanted - below) / count
        below += count
    return BOUNDS[-1]

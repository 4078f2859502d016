"""How fast incidents were noticed and over, by week."""

from parsers.feeds.dnsbl import Severity
from policies.incidents import Incident, Phase
from policies.timeliness import WEEK, span_of, weeks

NOW = 1_800_000_000.0


def incident(number: int, opened: float, *, detect: float, recover: float | None, category: str = "queue") -> Incident:
    phase = Phase.OPEN if recover is None else Phase.RESOLVED
    made = Incident(number, f"k{number}", phase, "t", category, Severity.ERROR, "", "", opened - detect, opened)
    return made if recover is None else made._replace(calm_since=opened - detect + recover, ended_at=opened + 9e5)


def test_weeks() -> None:
    known = [
        incident(1, NOW - 3600, detect=60, recover=None),
        incident(2, NOW - 7200, detect=1200, recover=1800, category="throttling"),
        incident(3, NOW - 9000, detect=300, recover=9000, category="throttling"),
        incident(4, NOW - WEEK - 5, detect=30, recover=40),
    ]
    newest, before, empty = weeks(known, now=NOW, number=3)
    assert (newest.incidents, newest.open) == (3, 1)
    assert (newest.detect_median, newest.detect_worst, newest.detect_in_time) == (300, 1200, 2)
    assert (newest.recover_median, newest.recover_worst, newest.recover_in_time) == (5400, 9000, 1)
    assert newest.categories == (("throttling", 2), ("queue", 1))
    assert (before.incidents, before.recover_in_time) == (1, 1)
    assert (empty.incidents, empty.detect_median, empty.recover_worst, empty.categories) == (0, None, None, ())


def test_one_that_opens_just_now_counts() -> None:
    assert weeks([incident(1, NOW, detect=0, recover=None)], now=NOW, number=1)[0].incidents == 1
    assert span_of([], begin=0.0, end=1.0).recover_median is None

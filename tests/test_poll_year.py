"""A year of polls, in its short form (the long one: benchmarks/polls.py): how often each list is asked, flat memory."""

import pytest

from benchmarks import polls
from sidecar import blocklists
from sidecar.config import Config


@pytest.fixture(name="weeks", scope="module")
def _weeks() -> polls.Year:
    return polls.year(20, 2, 3, month=4)


def test_every_feed_of_lists_is_asked_at_its_cadence(weeks: polls.Year) -> None:
    a_day = {name: 24 * 60 / every for name, every in blocklists.CADENCES.items()}
    wanted = 20 * (sum(a_day.values()) + 2)  # and once a day the two others
    listings = 4  # one address comes and goes, on lists of three cadences
    assert weeks.polls == pytest.approx(wanted + listings, rel=0.02)
    operators = {".".join(each.zone.rsplit(".", 2)[-2:]) for each in blocklists.in_force(Config())}
    assert set(weeks.a_day) == operators | {"senderscore.com", "api.spamhaus.org"}
    assert all(min(weeks.a_day[operator]) > 0 for operator in operators)


def test_questions_grow_with_objects_and_not_with_time(weeks: polls.Year) -> None:
    """ZEN every quarter of an hour about two addresses, DBL every hour about three domains; test points, and reasons."""
    found = next(row for row in polls.rows(weeks) if row["operator"] == "spamhaus.org")
    zen, dbl = 96 * (2 + 2), 24 * (2 + 3)
    reasons = 96 / 2  # one address is listed on half of the days
    assert found["mean"] == pytest.approx(zen + dbl + reasons, rel=0.05)
    assert found["most"] < 1.2 * (zen + dbl + 96)
    assert found["limit"] == 300_000


def test_memory_is_flat(weeks: polls.Year) -> None:
    assert len(weeks.resident_mb) == 5
    assert weeks.resident_mb[-1] - weeks.resident_mb[0] < 5

"""A simulated month of warm-up, small: no throttle by our schedule, and a listing in the middle that costs no message."""

import pytest

from benchmarks.warm_up import DAYS, DELISTED, LISTED, Calendar, Month, Nothing, Result
from policies.warm_up import WarmUps


@pytest.fixture(scope="module")
def ours() -> Result:
    return Month(WarmUps, a_day=700, factor=2.0, seed=3).run()


def test_our_schedule_is_never_throttled_and_gets_there(ours: Result) -> None:
    assert ours.throttled == 0
    assert 0 < ours.warm_on < DAYS
    assert max(ours.figures) > 40 * ours.figures[0]


def test_a_listing_in_the_middle_loses_nothing(ours: Result) -> None:
    assert ours.refused_listed > 0  # what went before it was found
    assert ours.sent_while_out == 0
    assert ours.figures[int(LISTED) + 1] == 0
    assert (ours.lost, ours.delivered + ours.queued) == (0, ours.injected)


def test_the_address_comes_back_by_a_ramp(ours: Result) -> None:
    first, second = ours.figures[int(DELISTED)], ours.figures[int(DELISTED) + 1]
    assert 0 < first < second
    assert 4 < ours.back_after_h < 30


@pytest.mark.parametrize("other", [Calendar, Nothing])
def test_the_providers_of_this_month_do_punish(other: type[WarmUps]) -> None:
    found = Month(other, a_day=700, factor=2.0, seed=3).run()
    assert found.throttled > 100

"""When a feed is asked again: stories with a clock and dice of our own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.feeds.asking import Reading, Trouble
from policies.cadence import BLIND_AFTER, Cadence, Standing

HOURLY = Cadence(3600.0)
WELL = Reading()


def failed(trouble: Trouble = Trouble.NETWORK, retry_after: float = 0.0) -> Reading:
    return Reading((), trouble, "why", retry_after)


def test_a_good_poll_plans_the_next_one_a_cadence_later() -> None:
    standing = Standing().after(WELL, HOURLY, now=1000.0, dice=0.5)
    assert (standing.told_at, standing.next_at, standing.failures) == (1000.0, 4600.0, 0)


def test_a_failure_is_repeated_sooner_and_then_ever_later() -> None:
    standing, waits = Standing(), []
    for _ in range(9):
        standing = standing.after(failed(), HOURLY, now=0.0, dice=0.5)
        waits.append(standing.next_at)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


@pytest.mark.parametrize("trouble", [Trouble.AUTHENTICATION, Trouble.REFUSED, Trouble.CONFIGURATION])
def test_who_was_refused_does_not_knock_again_at_once(trouble: Trouble) -> None:
    assert Standing().after(failed(trouble), HOURLY, now=0.0, dice=0.5).next_at == 3600


def test_what_the_source_asks_for_is_kept() -> None:
    assert Standing().after(failed(retry_after=9000.0), HOURLY, now=0.0, dice=0.5).next_at == 9000


def test_blind_after_some_missed_polls_and_not_before() -> None:
    standing = Standing().after(WELL, HOURLY, now=1000.0, dice=0.5)
    late = 1000.0 + BLIND_AFTER * 3600.0
    for _ in range(5):
        standing = standing.after(failed(), HOURLY, now=1500.0, dice=0.5)
    assert not standing.blind(HOURLY, now=late)
    assert standing.blind(HOURLY, now=late + 1)
    assert not standing.after(WELL, HOURLY, now=late + 1, dice=0.5).blind(HOURLY, now=late + 2)


def test_a_feed_that_never_told_anything_is_blind_too() -> None:
    standing = Standing().after(failed(), HOURLY, now=1000.0, dice=0.5)
    assert standing.blind(HOURLY, now=1000.0 + 3 * 3600)
    assert not Standing().blind(HOURLY, now=1e9)


@given(st.floats(0, 1), st.floats(0, 1e9), st.floats(1, 1e6), st.floats(0, 2e9))
def test_after_a_start_nothing_is_asked_at_once_and_nothing_is_put_off_too_long(
    dice: float, now: float, every: float, planned: float
) -> None:
    first = Standing(next_at=planned).first_poll(Cadence(every), now=now, dice=dice)
    assert now <= first <= now + every

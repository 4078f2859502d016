"""How old the queue is: the sample, and the figures that conditions look at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.messages import Message, Place
from policies.queue_age import OLD, SAMPLE, QueueAge, queue_age, queue_figures

NOW = 1_800_000_000.0


def message(age: float, *, held: bool = False) -> Message:
    made = Message("postfix", "Q", now=NOW - age)
    if held:
        made.place = Place.HELD
    return made


def test_what_we_hold_does_not_count() -> None:
    mail = [message(10), message(OLD + 1), message(OLD + 9, held=True), message(5)]
    assert queue_age(mail, live=4, held=1, now=NOW) == QueueAge(3, 1)
    assert queue_age([message(OLD + 9, held=True)], live=1, held=1, now=NOW) == QueueAge(0, 0)
    assert queue_age([], live=0, held=0, now=NOW) == QueueAge(0, 0)


@given(st.integers(0, 3 * SAMPLE), st.integers(0, 3 * SAMPLE))
def test_a_sample_tells_the_share_of_any_queue(old: int, new: int) -> None:
    live = old + new
    told = queue_age([message(OLD + 1)] * old + [message(1)] * new, live=live, held=0, now=NOW)
    assert told.live == live
    assert told.old == pytest.approx(old, abs=max(2, live / SAMPLE * 2))


def test_figures() -> None:
    daily = [QueueAge(5_000, 100)] * 6 + [QueueAge(90_000, 80_000)] * 2
    growth, old = queue_figures("mx7", QueueAge(8_000, 6_000), QueueAge(2_000, 90), daily, now=NOW)
    assert (growth.value, growth.volume, growth.baseline) == (4.0, 8_000.0, 2.5)
    assert (old.value, old.baseline) == (0.75, 100 / 8_000)
    (alone,) = queue_figures("mx7", QueueAge(0, 0), None, [], now=NOW)
    assert (alone.measure, alone.value, alone.baseline) == ("queue-old", 0.0, None)

"""How fast a host takes in what nobody waits for."""

import pytest

from policies.fleet.pace import LATE, SLICE, SLOW, Pace


def test_a_slice_comes_to_hold_the_loop_for_as_long_as_it_may() -> None:
    pace, a_row = Pace(), SLICE / 250.5
    slices = [pace := pace.held(pace.at_once, pace.at_once * a_row) for _ in range(6)]
    assert [each.at_once for each in slices] == [40, 80, 160, 250, 250, 250]
    assert all(each.at_once * a_row <= SLICE for each in slices)


@pytest.mark.parametrize(
    ("entries", "seconds", "then"),
    [
        (100, 10 * SLICE, 10),  # in proportion at once where it was too long
        (100, 0.0, 200),
        (3, 1.0, 1),  # never none
        (1, SLICE, 1),
        (7, SLICE, 7),  # the rest of a part says no less
    ],
)
def test_the_next_slice_is_as_large_as_the_last_one_was_quick(entries: int, seconds: float, then: int) -> None:
    assert Pace(at_once=100).held(entries, seconds).at_once == then


def test_a_list_goes_quickly_while_both_hosts_are_idle_and_as_slowly_as_ever_while_one_is_not() -> None:
    idle, busy, slow = (0.1 * LATE, 0.2 * SLOW), (2 * LATE, 0.2 * SLOW), (0.1 * LATE, 2 * SLOW)
    pace = Pace()
    pauses = [pace.pause]
    for late, answered in [idle] * 8:
        pace = pace.went(late=late, answered=answered)
        pauses.append(pace.pause)
    assert pauses == [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.01, 0.01, 0.01]
    for found in (busy, slow):
        pace = Pace(pause=0.01)
        pauses = []
        for late, answered in [found] * 7:
            pace = pace.went(late=late, answered=answered)
            pauses.append(pace.pause)
        assert pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]


def test_two_hundred_parts_pause_for_a_few_seconds_on_idle_hosts() -> None:
    pace, paused = Pace(), 0.0
    for _ in range(200):
        paused += pace.pause
        pace = pace.went(late=0.0, answered=0.06)
    assert paused < 4.0

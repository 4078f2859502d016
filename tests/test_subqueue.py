"""One sub-queue's states, with the clock in our hand."""

import json

from hypothesis import given
from hypothesis import strategies as st

from policies.subqueue import Pacing, State, SubQueue

PACING = Pacing()


def probing(now: float = 300.0) -> SubQueue:
    machine = SubQueue(PACING, now=0.0)
    assert machine.allowance(now=now, held=10) == 1
    assert machine.state is State.PROBING
    return machine


def ramping() -> SubQueue:
    machine = probing()
    machine.spent(1, now=300.0)
    machine.accepted(began=300.0, now=301.0)
    assert machine.state is State.RAMPING
    return machine


def test_nothing_leaves_during_the_first_pause() -> None:
    machine = SubQueue(PACING, now=0.0)
    assert [machine.allowance(now=float(t), held=10) for t in range(0, 300, 7)] == [0] * 43
    assert machine.next_at(now=1.0, held=10) == 300.0
    assert machine.budget_per_s == 0.0


def test_one_probe_is_out_at_a_time() -> None:
    machine = probing()
    machine.spent(1, now=300.0)
    assert machine.allowance(now=301.0, held=9) == 0
    assert machine.allowance(now=300.0 + PACING.probe_timeout, held=9) == 1


def test_a_failed_probe_doubles_the_pause_up_to_the_longest() -> None:
    machine, now, pauses = SubQueue(PACING, now=0.0), 0.0, []
    for _ in range(6):
        until = machine.next_at(now=now, held=5)
        pauses.append(until - now)
        assert machine.allowance(now=until, held=5) == 1
        machine.spent(1, now=until)
        now = until + 1.0
        machine.refused(began=until, now=now)
        assert machine.state is State.PAUSED
    assert pauses == [300, 600, 1200, 2400, 3600, 3600]


def test_a_refusal_from_before_the_pause_changes_nothing() -> None:
    machine = probing()
    machine.spent(1, now=300.0)
    machine.refused(began=-5.0, now=300.5)
    assert machine.state is State.PROBING


def test_a_full_mailbox_is_as_good_a_probe_as_a_delivery() -> None:
    machine = probing()
    machine.spent(1, now=300.0)
    machine.talked(began=300.0, now=301.0)
    assert machine.state is State.RAMPING


def test_a_void_probe_is_replaced_a_little_later() -> None:
    machine = probing()
    machine.spent(1, now=300.0)
    machine.void(now=302.0)
    assert machine.allowance(now=302.0, held=5) == 0
    assert machine.allowance(now=302.0 + PACING.void_delay, held=5) == 1


def test_a_refusal_while_ramping_pauses_again() -> None:
    machine = ramping()
    machine.refused(began=310.0, now=311.0)
    assert machine.state is State.PAUSED
    assert machine.allowance(now=312.0, held=5) == 0


def test_arrivals_do_not_overtake_what_waits() -> None:
    machine = ramping()
    machine.allowance(now=400.0, held=5)
    assert not machine.passes(now=400.0, held=5)
    assert machine.passes(now=400.0, held=0)


def test_it_closes_after_a_while_at_full_pace_with_nothing_held() -> None:
    machine, now = ramping(), 301.0
    while machine.state is State.RAMPING and now < 100_000:
        now += 10.0
        machine.spent(min(5, machine.allowance(now=now, held=0)), now=now)
        machine.accepted(began=now, now=now)
    assert machine.state is State.CLOSED
    assert machine.passes(now=now, held=0)
    machine.reopen(now=now + 1)
    assert machine.allowance(now=now + 2, held=5) == 0


def test_by_hand() -> None:
    machine = ramping()
    machine.pause(now=400.0, seconds=50.0)
    assert machine.allowance(now=449.0, held=5) == 0
    assert machine.allowance(now=450.0, held=5) == 1
    machine.close(now=460.0)
    assert machine.state is State.CLOSED


def test_a_lab_divides_every_duration() -> None:
    scaled = PACING.scaled(10)
    assert (scaled.pause, scaled.pause_min, scaled.probe_timeout) == (30.0, 3.0, 60.0)
    assert scaled.full_pace == PACING.full_pace


def refused_again(machine: SubQueue, *, began: float, probe_ok: bool = True) -> float:
    """Refuse an attempt of the ramp, probe when the pause ends; tell how long that took."""
    machine.refused(began=began, now=began + 1.0)
    until = machine.next_at(now=began + 1.0, held=5)
    assert machine.allowance(now=until, held=5) == 1
    machine.spent(1, now=until)
    if probe_ok:
        machine.accepted(began=until, now=until + 1.0)
        assert machine.state is State.RAMPING
    else:
        machine.refused(began=until, now=until + 1.0)
        assert machine.state is State.PAUSED
    return until - began - 1.0


def test_a_pause_that_was_long_enough_may_shrink() -> None:
    machine = ramping()
    assert refused_again(machine, began=320.0) == 150.0


def test_no_pause_is_as_short_again_as_one_whose_probe_failed() -> None:
    machine = ramping()
    refused_again(machine, began=320.0, probe_ok=False)
    until = machine.next_at(now=500.0, held=5)
    assert until == 320.0 + 1 + 150 + 1 + 300
    machine.allowance(now=until, held=5)
    machine.spent(1, now=until)
    machine.accepted(began=until, now=until + 1)
    assert refused_again(machine, began=until + 30) == 300.0


def test_a_provider_that_goes_on_accepting_needs_no_long_pause() -> None:
    machine = ramping()
    machine.refused(began=320.0, now=321.0)
    for began in (320.3, 320.6):
        machine.accepted(began=began, now=321.2)
    assert machine.next_at(now=321.2, held=5) == 321.0 + PACING.pause_min


def test_an_attempt_that_leaked_into_a_pause_delays_its_end_once() -> None:
    machine = ramping()
    machine.refused(began=320.0, now=321.0)
    machine.refused(began=350.0, now=351.0)
    assert machine.next_at(now=351.0, held=5) == 500.0
    for began in range(360, 480):
        machine.refused(began=float(began), now=began + 1.0)
    assert machine.next_at(now=481.0, held=5) == 321.0 + 2 * 150.0


def test_reopened_it_begins_at_what_it_learned() -> None:
    machine = ramping()
    for second in range(301, 400):
        machine.spent(machine.allowance(now=float(second), held=500), now=float(second))
        machine.accepted(began=float(second), now=second + 0.5)
    refused_again(machine, began=400.0)
    learned = machine.budget_per_s
    machine.close(now=700.0)
    machine.reopen(now=5000.0)
    assert machine.allowance(now=5299.0, held=5) == 0
    machine.refused(began=4999.0, now=5001.0)
    machine.allowance(now=5300.0, held=5)
    machine.spent(1, now=5300.0)
    machine.accepted(began=5300.0, now=5301.0)
    assert learned / 2 < machine.budget_per_s < learned


def test_budget_that_nobody_fetched_is_not_saved_up() -> None:
    machine = ramping()
    machine.allowance(now=302.0, held=500)
    pace = machine.budget_per_s
    assert machine.allowance(now=4000.0, held=500) <= 3 * max(1.0, 2 * pace) + 1


def test_without_mail_to_probe_with_it_closes_after_a_day() -> None:
    machine = probing()
    assert machine.next_at(now=301.0, held=0) == 300.0 + PACING.forget_after
    assert machine.allowance(now=300.0 + PACING.forget_after, held=0) == 1
    assert machine.state is State.CLOSED


def test_an_arrival_is_the_probe_where_nothing_waits() -> None:
    machine = probing()
    assert machine.passes(now=301.0, held=0)
    machine.spent(1, now=301.0)
    assert not machine.passes(now=302.0, held=0)


def test_time_that_runs_back_stands_still() -> None:
    machine = ramping()
    machine.allowance(now=400.0, held=500)
    before = machine.snapshot()
    machine.allowance(now=350.0, held=500)
    assert machine.snapshot() == before


events = st.lists(
    st.tuples(
        st.sampled_from(("allow", "accepted", "refused", "talked", "void", "pass")),
        st.floats(0, 400),
        st.floats(0, 30),
        st.integers(0, 50),
    ),
    max_size=80,
)


def played(machine: SubQueue, event: tuple[str, float, float, int], now: float) -> None:
    name, _, ago, held = event
    match name:
        case "allow":
            machine.spent(min(held, machine.allowance(now=now, held=held)), now=now)
        case "pass":
            if machine.passes(now=now, held=held):
                machine.spent(1, now=now)
        case "void":
            machine.void(now=now)
        case _:
            getattr(machine, name)(began=now - ago, now=now)


@given(events, st.integers(0, 80))
def test_restored_it_goes_on_as_if_never_stopped(story: list[tuple[str, float, float, int]], stop: int) -> None:
    kept, other, now = SubQueue(PACING, now=0.0), SubQueue(PACING, now=0.0), 0.0
    for i, event in enumerate(story):
        now += event[1]
        if i == stop:
            other = SubQueue.restore(PACING, json.loads(json.dumps(other.snapshot())))
        played(kept, event, now)
        played(other, event, now)
        assert kept.snapshot() == other.snapshot()


@given(events)
def test_never_two_probes_never_anything_in_a_pause(story: list[tuple[str, float, float, int]]) -> None:
    machine, now, out = SubQueue(PACING, now=0.0), 0.0, -1.0
    for event in story:
        now += event[1]
        allowed = machine.allowance(now=now, held=5)
        if machine.state is State.PAUSED:
            assert allowed == 0
            out = -1.0
        if machine.state is State.PROBING:
            assert allowed <= 1
            if out >= machine.since and now < out + PACING.probe_timeout:
                assert allowed == 0
            if allowed:
                machine.spent(1, now=now)
                out = now
        if event[0] in {"accepted", "refused", "talked"}:
            getattr(machine, event[0])(began=now - event[2], now=now)


@given(events)
def test_an_attempt_from_before_a_pause_never_extends_it(story: list[tuple[str, float, float, int]]) -> None:
    machine, now, paused_at = SubQueue(PACING, now=0.0), 0.0, 0.0
    for event in story:
        now += event[1]
        was = machine.state
        played(machine, event, now)
        if machine.state is State.PAUSED and was is not State.PAUSED:
            paused_at = now
        if machine.state is State.PAUSED:
            until = machine.next_step_at
            machine.refused(began=paused_at - event[2] - 0.001, now=now)
            assert machine.state is State.PAUSED
            assert machine.next_step_at == until


@given(events)
def test_asked_when_it_says_it_has_something_to_say(story: list[tuple[str, float, float, int]]) -> None:
    machine, now = SubQueue(PACING, now=0.0), 0.0
    for event in story:
        now += event[1]
        played(machine, event, now)
        due = machine.next_at(now=now, held=500)
        assert due >= now
        if machine.state is State.PAUSED:
            assert machine.allowance(now=due, held=500) == 1
            now = due
        elif machine.state is State.RAMPING:
            assert due <= now + 2 * PACING.step + 1e-6

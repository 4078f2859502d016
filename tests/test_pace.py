"""The learned pace: what is read from a trail, what is believed of a limit, and how a ramp follows from that."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.chance import Chance
from policies.limit import FLOOR, Aftermath, Episode, Limit, Overrun
from policies.pace import MARGIN, Pace, Pacing
from policies.trail import BINS, STRETCHES, Stretch, Trail, burst_agreed, burst_needed, pace_of_last, rate_needed

PACING = Pacing()


# The trail.


def test_a_run_counts_what_began_before_the_refusal() -> None:
    trail = Trail(0.0)
    for began in (0.0, 1.0, 2.0, 11.0, 12.0):
        if began >= 10:
            trail.mark(10.0)
        trail.add(began)
    assert trail.run(20.0) == (Stretch(10.0, 2), Stretch(20.0, 5))


def test_outcomes_in_any_order_leave_the_same_trail() -> None:
    orderly, late = Trail(0.0), Trail(0.0)
    for trail, times in ((orderly, (1, 4, 6, 11)), (late, (11, 6, 4, 1))):
        for at in (5.0, 10.0):
            trail.mark(at)
        for began in times:
            trail.add(float(began))
    assert orderly.run(20.0) == late.run(20.0)


@given(st.lists(st.floats(0.1, 50.0), min_size=1, max_size=300))
def test_a_trail_stays_small_and_loses_no_message(steps: list[float]) -> None:
    trail, now = Trail(0.0), 0.0
    for step in steps:
        now += step
        trail.add(now)
        trail.mark(now)
    run = trail.run(now + 1.0)
    assert len(trail.snapshot()) <= BINS
    assert len(run) <= STRETCHES + 1
    assert run[-1] == Stretch(now + 1.0, len(steps))
    assert [s.seconds for s in run] == sorted(s.seconds for s in run)


def test_a_long_run_is_kept_in_stretches_that_grow_evenly() -> None:
    trail = Trail(0.0)
    for step in range(1, 400):
        trail.add(5.0 * step)
        trail.mark(5.0 * step)
    seconds = [stretch.seconds for stretch in trail.run(2000.0)]
    assert seconds[0] == 5.0
    assert seconds[-1] == 2000.0
    assert max(later / earlier for earlier, later in pairwise(seconds[:-1])) < 3


def bucket_run(rate: float, burst: float, pace: float) -> tuple[Stretch, ...]:
    """What a full bucket lets through at a constant pace above its rate, in ten stretches."""
    seconds = burst / (pace - rate)
    return tuple(Stretch(seconds * i / 10, round(pace * seconds * i / 10)) for i in range(1, 11))


@pytest.mark.parametrize(("rate", "burst"), [(1.67, 100), (10, 50), (0.2, 300), (3, 1000)])
def test_two_runs_tell_the_bucket(rate: float, burst: float) -> None:
    slow, quick = bucket_run(rate, burst, 1.5 * rate), bucket_run(rate, burst, 4 * rate)
    agreed = burst_agreed([slow, quick], 0.1 * rate, 1.5 * rate)
    assert agreed == pytest.approx(burst, rel=0.1)
    assert rate_needed(slow, agreed) == pytest.approx(rate, rel=0.1)
    assert burst_needed(quick, rate) == pytest.approx(burst, rel=0.05)


def test_the_pace_of_the_last_messages() -> None:
    run = (Stretch(5.0, 20), Stretch(10.0, 30), Stretch(100.0, 120))
    assert pace_of_last(run, 10) == 4.0
    assert pace_of_last(run, 25) == 3.0
    assert pace_of_last(run, 999) == 1.2


# The limit.


def episode(**changed: object) -> Episode:
    usual = Episode(
        run=bucket_run(2.0, 100, 4.0),
        pace=4.0,
        over=Overrun(0.0, 1.0, accepted=2, refused=2),
        before=30.0,
        after=30.0,
        failed=0.0,
        planned=True,
        span=60.0,
        dear=False,
    )
    return usual._replace(**changed)  # type: ignore[arg-type]  # names are checked at run time


def test_a_bucket_is_read_from_two_ramps() -> None:
    limit = Limit()
    limit.learn(episode(run=bucket_run(2.0, 100, 8.0), pace=8.0, before=300.0))
    limit.learn(episode(before=300.0))
    assert limit.rate == pytest.approx(2.0, rel=0.1)
    assert limit.burst == pytest.approx(100, rel=0.15)


def test_what_the_provider_still_accepts_while_it_refuses_is_its_rate() -> None:
    limit = Limit()
    limit.learn(episode(over=Overrun(0.0, 2.0, accepted=6, refused=10), pace=8.0))
    assert limit.rate == pytest.approx(3.0)


def test_a_window_is_filled_once_by_burst_and_pause() -> None:
    limit = Limit()
    shut = Overrun(0.0, 2.0, accepted=0, refused=5)
    run = (Stretch(100.0, 500),)
    limit.learn(episode(run=run, pace=9.0, over=shut, before=4000.0, after=3500.0, failed=2900.0, dear=True))
    assert 500 / (100 + 3500) <= limit.rate <= 500 / 2900


def test_a_batch_that_was_refused_all_together_tells_no_window_from_a_bucket() -> None:
    batch, one_by_one = Overrun(0.0, 0.1, refused=6), Overrun(0.0, 3.0, refused=6)
    assert batch.together
    assert not one_by_one.together
    rates = []
    for over in (batch, one_by_one):
        limit = Limit()
        limit.opened(100, 2.0)
        limit.learn(episode(run=bucket_run(2.0, 100, 6.0), pace=6.0, before=300.0, over=over))
        rates.append(limit.rate)
    assert rates[0] == pytest.approx(2.0, rel=0.3)
    assert rates[0] < rates[1]


def test_an_upset_lowers_the_belief_and_makes_it_fear_the_next() -> None:
    limit = Limit()
    limit.learn(episode(before=300.0))
    before = limit.rate
    limit.learn(episode(run=(Stretch(10.0, 10),), pace=1.0, planned=False))
    assert limit.rate < 0.7 * before
    assert limit.fall < 1
    assert limit.upsets == 1
    assert limit.best == pytest.approx(before)


def test_each_exploration_in_vain_is_counted_and_one_that_finds_more_is_not() -> None:
    limit = Limit()
    for _ in range(3):
        limit.learn(episode(before=300.0))
    assert limit.misses == 2
    limit.learn(episode(run=bucket_run(6.0, 100, 9.0), pace=9.0, before=300.0))
    assert limit.misses == 0


runs = st.lists(st.tuples(st.floats(1.0, 1e4), st.integers(0, 5000)), min_size=1, max_size=10).map(
    lambda steps: tuple(
        Stretch(sum(s for s, _ in steps[: i + 1]), sum(n for _, n in steps[: i + 1])) for i in range(len(steps))
    )
)
episodes = st.builds(
    Episode,
    run=runs,
    pace=st.floats(1e-4, 60.0),
    over=st.builds(
        Overrun,
        since=st.just(0.0),
        last=st.floats(0.0, 10.0),
        accepted=st.integers(0, 100),
        refused=st.integers(1, 100),
    ),
    before=st.floats(0.0, 1e5),
    after=st.floats(1.0, 1e5),
    failed=st.sampled_from((0.0, 150.0, 4000.0)),
    planned=st.booleans(),
    span=st.just(60.0),
    dear=st.booleans(),
)


@given(st.lists(episodes, max_size=8))
def test_whatever_happens_the_belief_stays_sane_and_survives_the_store(happened: list[Episode]) -> None:
    limit = Limit()
    for each in happened:
        limit.learn(each)
        assert FLOOR <= limit.rate < math.inf
        assert limit.rate <= limit.ceiling
        assert 0.5 <= limit.fall <= 1.0
        assert Limit.restore(json.loads(json.dumps(limit.snapshot()))) == limit


# Chance.


def test_a_few_refusals_among_many_under_way_are_chance() -> None:
    chance = Chance()
    chance.opened(Overrun(0.0, 1.0, accepted=54, refused=6))
    assert chance.ratio == pytest.approx(0.117, abs=0.01)


def test_a_limit_is_no_chance() -> None:
    chance = Chance()
    chance.opened(Overrun(0.0, 1.0, accepted=10, refused=50))
    assert chance.ratio == 0.0


def test_refusals_that_do_not_care_for_the_pace_are_chance() -> None:
    chance = Chance()
    for _ in range(3):
        chance.ramp()
        for _ in range(9):
            chance.accept()
        assert not chance.refuse()
        chance.ended(Overrun(0.0, 1.0, accepted=3, refused=1), planned=False)
    assert chance.ratio == pytest.approx(0.1, abs=0.02)
    chance.ramp()
    assert chance.refuse()


def test_chance_that_stays_away_was_none() -> None:
    chance = Chance(ratio=0.1)
    chance.ramp()
    for _ in range(40):
        chance.accept()
    assert not chance.refuse()


# The pace.


def ramping(pace: Pace, *, refused_at: float = 0.0, now: float = 300.0) -> Pace:
    pace.stop(now=refused_at + 1.0)
    pace.refused(began=refused_at, now=refused_at + 1.0)
    pace.resume(now=now, failed=0.0)
    return pace


def test_a_first_ramp_begins_low_and_grows() -> None:
    pace = ramping(Pace(PACING))
    assert pace.rate == PACING.first_pace
    pace.advance(now=400.0, held=1000)
    assert 1.0 < pace.rate < 20.0


def test_a_first_ramp_begins_at_what_is_still_accepted() -> None:
    pace = Pace(PACING)
    pace.stop(now=1.0)
    pace.refused(began=0.0, now=1.0)
    for i in range(10):
        pace.accepted(began=0.1 * (i + 1) - 0.05, now=1.5)
    pace.resume(now=300.0, failed=0.0)
    assert pace.rate == pytest.approx(0.8 * 10 / 0.95, rel=0.01)


def test_what_was_accepted_before_the_opening_sets_the_first_pace() -> None:
    assert ramping(Pace(PACING, accepted=3000, during=100.0)).rate == pytest.approx(0.7 * 3000 / 400, rel=0.02)


def test_where_little_was_carried_what_went_through_at_once_tells_where_the_first_ramp_begins() -> None:
    lab = PACING.scaled(20)
    assert ramping(Pace(lab, accepted=20, during=1.0), now=30.0).rate == pytest.approx(
        0.5 * 20 / (1 + 60 / 20), rel=0.01
    )
    most = 0.5 * 15 / (1 + 1)  # half of the refusals that it may cost, with outcomes a second late
    assert ramping(Pace(lab, accepted=2_000, during=1.0), now=3_000.0).rate == pytest.approx(most, rel=0.01)
    assert ramping(Pace(PACING, accepted=20, during=1.0)).rate == PACING.first_pace


def test_where_a_probe_failed_what_went_through_at_once_may_be_an_hour_s() -> None:
    pace = Pace(PACING, accepted=1_000, during=1.0)
    pace.stop(now=1.0)
    pace.refused(began=0.0, now=1.0)
    pace.resume(now=3_600.0, failed=1_800.0)
    assert pace.rate == pytest.approx(0.7 * 1_000 / 3_601, rel=0.01)
    assert pace.rate < PACING.first_pace


@pytest.mark.parametrize(("leads", "begins"), [(True, 2.5), (False, 1.0)])
def test_who_leads_a_first_ramp_goes_on_faster_by_what_others_had_accepted_before_it(
    *, leads: bool, begins: float
) -> None:
    pace = ramping(Pace(PACING.scaled(20)), now=30.0)
    assert pace.rate == PACING.first_pace
    pace.accepted_before(20, 1.0, leads=leads, now=30.5)
    assert pace.rate == pytest.approx(begins, rel=0.01)
    pace.led(0.4, exploring=True, now=31.0)
    pace.accepted_before(20, 1.0, leads=leads, now=31.5)  # as is known
    assert pace.rate == 0.4


def test_what_is_heard_in_a_pause_lets_nothing_out() -> None:
    pace = ramping(Pace(PACING.scaled(20)), now=30.0)
    pace.stop(now=31.0)
    pace.accepted_before(20, 1.0, leads=True, now=32.0)
    assert pace.rate == 0.0


def test_after_an_episode_the_pace_stays_below_the_limit_for_a_while() -> None:
    pace = ramping(Pace(PACING))
    for second in range(300, 400):
        pace.advance(now=float(second), held=1000)
        pace.accepted(began=float(second), now=second + 1.0)
    pace.refused(began=400.0, now=401.0)
    assert pace.planned
    pace.stop(now=401.0)
    assert pace.rate == 0.0
    pace.resume(now=550.0, failed=0.0)
    assert pace.rate <= MARGIN * pace.limit.rate + 1e-9
    assert pace.limit.rate <= pace.limit.ceiling


def explored(*, lag: float, seconds: int = 1200) -> Pace:
    """A first ramp without a refusal, outcomes coming back after `lag` seconds, each of them accepted."""
    pace = ramping(Pace(PACING))
    for second in range(300, 300 + seconds):
        pace.advance(now=float(second), held=100_000)
        for _ in range(round(pace.rate)):
            pace.accepted(began=second - lag, now=float(second))
    return pace


def test_no_more_is_tried_than_what_was_delivered_pays_for() -> None:
    soon, late = explored(lag=0.2), explored(lag=30.0)
    assert soon.rate == PACING.full_pace
    assert late.rate < 2.0


def test_with_nothing_waiting_it_grows_without_being_paid_for_and_what_was_tested_is_kept() -> None:
    pace = explored(lag=30.0, seconds=400)
    tested = pace.rate
    for second in range(700, 3000):
        pace.advance(now=float(second), held=0)
    assert pace.rate == PACING.full_pace
    pace.advance(now=3000.0, held=100_000)
    assert pace.rate == pytest.approx(tested, rel=0.1)


def test_refusals_are_paid_for_by_what_is_delivered_after_them() -> None:
    pace = explored(lag=0.2, seconds=200)
    for _ in range(40):
        pace.refused(began=499.0, now=500.0)
    pace.stop(now=500.0)
    pace.resume(now=560.0, failed=0.0)
    begun = pace.rate
    pace.advance(now=1000.0, held=100_000)
    assert pace.rate <= max(begun, MARGIN * pace.limit.rate)


def test_a_pace_that_was_not_asked_for_did_not_grow() -> None:
    pace = ramping(Pace(PACING))
    pace.advance(now=305.0, held=1000)
    pace.advance(now=305.0 + 7200.0, held=1000)
    assert pace.rate < 3.0


def test_with_nothing_waiting_the_pace_grows_and_is_given_back() -> None:
    pace = ramping(Pace(PACING))
    for second in range(300, 330):
        pace.advance(now=float(second), held=1000)
        pace.accepted(began=float(second), now=second + 1.0)
    pace.refused(began=330.0, now=331.0)
    pace.stop(now=331.0)
    pace.resume(now=500.0, failed=0.0)
    learned = pace.rate
    for second in range(500, 1500):
        pace.advance(now=float(second), held=0)
    assert pace.rate == PACING.full_pace
    pace.advance(now=1501.0, held=100_000)
    assert pace.rate <= learned / MARGIN


def test_a_pause_by_hand_teaches_nothing() -> None:
    pace = ramping(Pace(PACING))
    pace.stop(now=310.0)
    pace.resume(now=400.0, failed=0.0)
    assert pace.rate == PACING.first_pace
    assert pace.limit.rate == 0.0


def test_a_lab_divides_durations_and_leaves_rates() -> None:
    scaled = PACING.scaled(60)
    for name in Pacing._fields:
        divided = name not in {"full_pace", "first_pace"}
        assert getattr(scaled, name) == getattr(PACING, name) / (60 if divided else 1)


def test_who_takes_the_lead_below_a_goal_of_its_own_goes_on_from_there() -> None:
    pace = Pace(Pacing(), accepted=400, during=60.0)
    pace.refused(began=0.0, now=1.0)
    pace.stop(now=1.0)
    pace.resume(now=301.0, failed=0.0)
    goal = pace.rate
    pace.led(goal / 2, exploring=False, now=310.0)
    for now in range(315, 1_500, 5):
        pace.advance(now=float(now), held=10_000)
    assert pace.rate > goal / 2


def test_what_other_hosts_had_accepted_after_the_refusal_tells_where_the_first_ramp_begins() -> None:
    def begins(*others: Aftermath) -> float:
        pace = Pace(Pacing())
        pace.refused(began=0.0, now=1.0)
        for each in others:
            pace.had_aftermath(each)
        pace.stop(now=1.0)
        pace.resume(now=301.0, failed=0.0)
        return pace.rate

    assert begins() == begins(Aftermath(accepted=3, seconds=1.0)) == Pacing().first_pace
    assert begins(Aftermath(accepted=8, refused=30, seconds=2.0)) == pytest.approx(0.8 * 8 / 2)
    assert begins(Aftermath(accepted=8, seconds=0.01)) == pytest.approx(0.8 * 8 / 0.5)  # no shorter is told apart


def test_who_is_led_knows_whether_more_is_tried_than_is_known_to_be_safe() -> None:
    pace = Pace(Pacing(), accepted=400, during=60.0)
    pace.limit.rate = 5.0
    pace.refused(began=0.0, now=1.0)
    pace.stop(now=1.0)
    pace.resume(now=301.0, failed=0.0)
    planned = [pace.planned]
    for rate, exploring in ((8.0, True), (5.0, False)):
        pace.led(rate, exploring=exploring, now=302.0)
        planned.append(pace.planned)
    assert planned == [False, True, False]

"""Warm-up: what a day allows, what it grows from, what stops it, and that a restart neither forgets nor doubles."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import warm_up
from policies.warm_up import DAY, IDLE, KEPT, REFUSALS, Level, Outcome, Plan, Spent, WarmUps

FIRST = 20_000
PLAN = Plan("ip-2", FIRST, 100, 1.5, 10_000)
SENT = Outcome(accepted=True, final=True)
DEFERRED = Outcome(deferred=True)
AGAINST_US = Outcome(deferred=True, against_us=True)


def at(day: int, hour: float = 12.0) -> float:
    return (FIRST + day) * DAY + hour * 3600


def send(made: WarmUps, number: int, day: int, provider: str = "google") -> int:
    """Try to send so many single messages; how many went."""
    went = 0
    for _ in range(number):
        spent = made.refuses("ip-2", {provider: 1}, now=at(day))
        if spent is None:
            made.promise("ip-2", {provider: 1}, now=at(day))
            went += 1
        else:
            made.turned_away("ip-2", spent, 1)
    return went


def level(made: WarmUps, provider: str = "*") -> Level:
    return next(each for each in made.levels("ip-2") if each.provider == provider)


def test_each_day_allows_more_by_the_factor_than_was_sent_on_the_last() -> None:
    made = WarmUps([PLAN])
    assert [send(made, 20_000, day) for day in range(5)] == [100, 150, 225, 337, 505]


def test_a_figure_grows_from_what_was_sent_and_not_from_what_might_have_been() -> None:
    made = WarmUps([PLAN])
    assert [send(made, number, day) for day, number in enumerate([100, 150, 10, 10, 400])] == [100, 150, 10, 10, 225]


def test_a_provider_that_is_new_begins_from_the_first_figure_however_warm_the_rest_is() -> None:
    made = WarmUps([PLAN])
    for day in range(6):
        send(made, 20_000, day)
    assert send(made, 500, 6, "yahoo") == 100
    assert made.refuses("ip-2", {"yahoo": 1}, now=at(6)) is not None
    assert made.refuses("ip-2", {"google": 1}, now=at(6)) is None


def test_why_is_said() -> None:
    made = WarmUps([PLAN])
    assert made.refuses("ip-2", {"google": 1}, now=at(-3)) == Spent("*", "its warm-up begins on 2024-10-04")
    send(made, 101, 0)
    spent = made.refuses("ip-2", {"google": 1}, now=at(0))
    assert spent is not None
    assert spent == ("google", "its 100 of today at google are spent")
    assert made.refuses("ip-2", {"gmx": 1}, now=at(0)) == Spent("*", "its 100 of today are spent")
    send(made, 101, 1, "yahoo")
    spent = made.refuses("ip-2", {"yahoo": 1}, now=at(1))
    assert spent is not None
    assert spent == ("yahoo", "its 100 of today at yahoo are spent")


def test_a_message_to_many_needs_room_for_all_of_them() -> None:
    made = WarmUps([PLAN])
    assert made.refuses("ip-2", {"google": 60, "yahoo": 60}, now=at(0)) is not None
    assert made.refuses("ip-2", {"google": 60, "yahoo": 40}, now=at(0)) is None
    made.promise("ip-2", {"google": 60, "yahoo": 40}, now=at(0))
    assert (level(made).promised, level(made, "google").promised, level(made, "yahoo").promised) == (100, 60, 40)


def test_a_transport_without_a_plan_takes_everything() -> None:
    made = WarmUps([PLAN])
    assert made.refuses("ip-1", {"google": 10**6}, now=at(0)) is None
    made.promise("ip-1", {"google": 10**6}, now=at(0))
    assert made.attempted("ip-1", "google", AGAINST_US, now=at(0)) == ""
    assert made.levels("ip-1") == []


def test_caps_hold_until_it_is_warm() -> None:
    made = WarmUps([PLAN._replace(caps={"google": 120, "qq": 20})])
    assert [send(made, 500, day) for day in range(3)] == [100, 120, 120]
    assert send(made, 500, 3, "qq") == 20


@pytest.mark.parametrize(
    ("outcomes", "grows"),
    [
        ([SENT] * 100, True),
        ([SENT] * 95 + [DEFERRED] * 5, True),
        ([SENT] * 60 + [DEFERRED] * 40, False),
        ([DEFERRED] * 2, True),  # two say little
        ([SENT] * 97 + [Outcome(final=True)] * 3, True),  # chance may do that
        ([SENT] * 80 + [Outcome(final=True)] * 20, False),
    ],
)
def test_a_poor_day_is_repeated(outcomes: list[Outcome], grows: bool) -> None:  # noqa: FBT001  # a column of the table
    made = WarmUps([PLAN])
    send(made, 100, 0)
    for outcome in outcomes:
        made.attempted("ip-2", "google", outcome, now=at(0))
    assert send(made, 500, 1) == (150 if grows else 100)


def test_others_signals_repeat_the_day_for_one_provider_or_for_all() -> None:
    made = WarmUps([PLAN])
    send(made, 40, 0), send(made, 40, 0, "yahoo")
    made.signal("ip-2", "yahoo", "complaints: 0.4 %", now=at(0))
    send(made, 60, 1), send(made, 60, 1, "yahoo")
    assert (level(made, "google").figure, level(made, "yahoo").figure) == (100, 100)
    assert level(made).figure == 120
    made.signal("ip-2", "*", "listed on a list", now=at(1))
    assert {each.held for each in made.levels("ip-2")} == {"listed on a list"}
    send(made, 1, 2)
    assert level(made).figure == 120


def test_refusals_of_the_address_take_a_step_back_at_once_and_once_a_day() -> None:
    made = WarmUps([PLAN])
    for day in range(4):
        send(made, 20_000, day)
    assert send(made, 100, 4) == 100
    said = [made.attempted("ip-2", "google", AGAINST_US, now=at(4)) for _ in range(9)]
    assert list(filter(None, said)) == ["ip-2 at google steps back from 506 to 337 a day"]
    assert said.index("ip-2 at google steps back from 506 to 337 a day") == REFUSALS - 1
    assert send(made, 1_000, 4) == 237
    assert send(made, 1_000, 5) == 337  # and nothing grew out of that day


def test_it_never_falls_below_the_first_figure() -> None:
    made = WarmUps([PLAN])
    for day in range(8):
        send(made, 10, day)
        for _ in range(REFUSALS):
            made.attempted("ip-2", "google", AGAINST_US, now=at(day))
    assert level(made, "google").figure == 100


def test_a_week_without_mail_is_nothing_and_a_longer_one_costs_a_step_a_day() -> None:
    def after(days: int) -> int:
        made = WarmUps([PLAN])
        for day in range(6):
            send(made, 20_000, day)
        return send(made, 20_000, 5 + days)

    assert after(1) == after(IDLE) == after(IDLE + 1)
    assert after(IDLE + 2) == pytest.approx(after(IDLE) / 1.5, abs=1)
    assert after(IDLE + 3) == pytest.approx(after(IDLE) / 1.5**2, abs=1)
    assert after(200) == 100


def test_a_little_mail_each_day_keeps_nothing_warm() -> None:
    made = WarmUps([PLAN])
    for day in range(6):
        send(made, 20_000, day)
    before = level(made).figure
    for day in range(6, 20):
        send(made, 5, day)
    assert level(made).figure < before / 3


def test_it_is_warm_when_a_good_day_reached_the_last_figure() -> None:
    made = WarmUps([PLAN._replace(until_per_day=200)])
    assert [send(made, 900, day) for day in range(4)] == [100, 150, 200, 900]
    assert level(made).warm


def test_a_provider_that_is_new_to_a_warm_address_is_limited_until_its_limit_keeps_nothing_back() -> None:
    made = WarmUps([PLAN._replace(until_per_day=200)])
    for day in range(4):
        send(made, 900, day)
    assert [send(made, number, 4 + day, "yahoo") for day, number in enumerate([500, 120, 500])] == [100, 120, 500]


def test_a_pause_takes_it_out_until_it_is_resumed() -> None:
    made = WarmUps([PLAN])
    send(made, 10, 0)
    made.pause("ip-2", by_whom="jo")
    spent = made.refuses("ip-2", {"google": 1}, now=at(0))
    assert spent is not None
    assert spent.why == "its warm-up is paused by jo"
    assert made.resume("ip-2")
    assert not made.resume("ip-2")
    assert made.refuses("ip-2", {"google": 1}, now=at(0)) is None
    with pytest.raises(KeyError):
        made.pause("ip-3", by_whom="jo")


def test_a_clock_set_back_does_not_give_the_figure_twice() -> None:
    made = WarmUps([PLAN])
    assert send(made, 1_000, 1) == 100
    assert send(made, 1_000, 0) == 0


def test_a_restart_neither_forgets_nor_doubles() -> None:
    made = WarmUps([PLAN])
    send(made, 100, 0), send(made, 70, 1)
    again = WarmUps([PLAN])
    for row in made.levels("ip-2"):
        again.restore(replace(row))
    assert send(again, 1_000, 1) == 80
    assert send(again, 1_000, 2) == 225


def test_only_what_changed_is_stored_again() -> None:
    made = WarmUps([PLAN])
    send(made, 1, 0), send(made, 1, 0, "yahoo")
    assert set(made.changed) == {("ip-2", "*"), ("ip-2", "google"), ("ip-2", "yahoo")}
    made.changed.clear()
    send(made, 1, 0, "yahoo")
    assert set(made.changed) == {("ip-2", "*"), ("ip-2", "yahoo")}


def test_a_provider_without_mail_for_long_is_forgotten() -> None:
    made = WarmUps([PLAN])
    send(made, 1, 0, "small.example")
    made.look(now=at(KEPT))
    assert len(made.levels("ip-2")) == 2
    made.changed.clear()
    made.look(now=at(KEPT + 1))
    assert [each.provider for each in made.levels("ip-2")] == ["*"]
    assert made.changed["ip-2", "small.example"] is None


@settings(deadline=None, max_examples=50)  # thousands of messages; a busy machine is no finding
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 700), st.booleans()), max_size=12))
def test_no_day_is_more_than_the_factor_over_the_best_day_before(days: list[tuple[int, int, bool]]) -> None:
    made = WarmUps([PLAN._replace(until_per_day=10**9)])
    sent: dict[int, int] = {}
    day = 0
    for gap, wanted, bad in days:
        day += gap
        sent[day] = sent.get(day, 0) + send(made, wanted, day)
        if bad:
            made.attempted("ip-2", "google", AGAINST_US, now=at(day))
        best = max((number for of, number in sent.items() if of < day), default=0)
        assert sent[day] <= max(100, 1.5 * best)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"start_per_day": 0}, "warm_up ip-2: start_per_day 0, wanted 1 or more"),
    ({"growth": 1.0}, "warm_up ip-2: growth 1, wanted above 1, at most 4 (1.3 is usual)"),
    ({"growth": float("nan")}, "warm_up ip-2: growth nan, wanted above 1, at most 4 (1.3 is usual)"),
    ({"until_per_day": 99}, "warm_up ip-2: until_per_day 99, wanted start_per_day or more"),
    ({"caps": {"google": 0}}, "warm_up ip-2: caps.google: 0, wanted 1 or more"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # its words are what is looked at
        WarmUps([PLAN._replace(**change)])
    assert str(refused.value) == said


def test_two_plans_for_a_transport_are_refused_and_the_old_ones_stay() -> None:
    made = WarmUps([PLAN])
    with pytest.raises(ValueError, match="there are two of it"):
        made.configure([PLAN, PLAN])
    assert made.plans == (PLAN,)


def test_who_is_not_known_has_the_limit_of_the_whole_alone() -> None:
    made = WarmUps([PLAN])
    assert send(made, 60, 0, "") == 60
    assert send(made, 60, 0) == 40
    assert {each.provider for each in made.levels("ip-2")} == {"*", "google"}


def test_there_are_not_more_figures_than_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "MOST", 10)
    made = WarmUps([PLAN])
    assert sum(send(made, 1, 0, f"mx{number}.example") for number in range(50)) == 50
    assert len(made.levels("ip-2")) == 10
    assert level(made).promised == 50

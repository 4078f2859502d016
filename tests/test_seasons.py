"""What is usual at such an hour: which hours are compared, how strange something is, what a peak and a surge are."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.observation import Outcome
from policies.figures import Figure
from policies.seasons import (
    WEEK,
    Usual,
    hours_like,
    peak,
    steady_hours,
    strangeness,
    surge,
    unusual,
    usual,
)
from policies.windows import ALL, DAY, HOUR, Counts, expected
from tests.lookout_world import World, sound_world

NOW = 1_800_000_000.0
HERE = ("domain", "a.example")


@pytest.mark.parametrize(
    ("history", "hours", "step"),
    [(2 * DAY, 0, 0), (6 * DAY, 5, DAY), (20 * DAY, 14, DAY), (22 * DAY, 9, WEEK), (31 * DAY, 12, WEEK)],
)
def test_hours_that_are_compared(history: float, hours: int, step: int) -> None:
    found = hours_like(NOW, first=NOW - history)
    assert len(found) == hours
    here = int(NOW - 1800) // HOUR * HOUR
    assert all(min((here - each) % step, (each - here) % step) <= HOUR for each in found)
    assert all(each % HOUR == 0 and NOW - history <= each < NOW - DAY + HOUR for each in found)


@pytest.mark.parametrize(("history", "hours"), [(DAY, 24), (13 * DAY, 24), (16 * DAY, 6), (31 * DAY, 12), (-1e18, 24)])
def test_hours_that_make_a_stream_steady(history: float, hours: int) -> None:
    found = steady_hours(NOW, first=NOW - history)
    assert len(found) == hours
    assert all(end - begin == HOUR and end <= NOW - HOUR for begin, end in found)


def test_one_bad_week_does_not_become_usual() -> None:
    assert usual([0.01] * 4) is None
    assert usual([0.01, 0.02, 0.01, 0.9, 0.01]) == Usual(0.01, 0.0)
    known = usual([0.10, 0.14, 0.10, 0.12, 0.9, 0.12])
    assert known is not None
    assert known.middle == pytest.approx(0.12)


def test_strangeness_counts_what_chance_does() -> None:
    known = Usual(0.01, 0.0)
    assert strangeness(0.11, 100_000, known) == pytest.approx(10.0)  # a hundredth at least
    assert strangeness(0.11, 20, known) == pytest.approx(0.1 / (0.01 * 0.99 / 20) ** 0.5)
    assert strangeness(0.11, 100_000, Usual(0.01, 0.05)) == pytest.approx(2.0)
    assert strangeness(0.0, 100_000, known) == 0.0
    assert strangeness(0.5, 0, known) < 1.0


shares = st.floats(0.0, 1.0)


@given(shares, st.integers(0, 10**7), shares, shares)
def test_strangeness_is_never_below_nothing_and_grows_with_the_share(
    share: float, volume: int, middle: float, spread: float
) -> None:
    known = Usual(middle, spread)
    assert 0.0 <= strangeness(share, volume, known) <= strangeness(min(1.0, share + 0.01), volume, known)


def told(figures: Iterator[Figure]) -> Mapping[str, Figure]:
    return {each.measure: each for each in figures}


def test_an_hour_that_is_not_like_the_others() -> None:
    quiet = Counts(attempts=1000, sent=980, deferred=10, bounced=10, hard=10)
    bad = quiet._replace(deferred=300, sent=690)
    found = told(unusual({HERE: bad}, {HERE: [quiet] * 12}, (), now=NOW))
    deferrals = found["unusual.deferrals.1h"]
    assert deferrals.value is not None
    assert deferrals.value > 20
    assert (deferrals.text, deferrals.volume) == ("30.0% put off where 1.0% is usual", 1000.0)
    assert found["unusual.authentication.1h"].value == 0.0


def test_without_history_nothing_is_unusual() -> None:
    bad = Counts(attempts=1000, deferred=900)
    few = Counts(attempts=49, sent=49)
    assert told(unusual({HERE: bad}, {}, (), now=NOW)) == {}
    assert told(unusual({HERE: bad}, {HERE: [few] * 12}, (), now=NOW)) == {}
    assert told(unusual({}, {}, [HERE], now=NOW))["unusual.deferrals.1h"].value == 0.0


@pytest.mark.parametrize(
    ("daily", "wanted"),
    [([], None), ([900], None), ([5, 9], 9.0), ([5, 9, 1, 2, 3, 4, 6], 5.0), ([10_000, 9_000, *[50] * 20], 50.0)],
)
def test_an_ordinary_peak(daily: list[int], wanted: float | None) -> None:
    assert peak(daily) == wanted


def test_a_surge_is_measured_by_the_greatest_hour() -> None:
    other = ("domain", "b.example")
    found = {each.object: each for each in surge({HERE: 9000}, {HERE: 1000, other: 500}, [], now=NOW)}
    assert (found["a.example"].value, found["a.example"].volume) == (9.0, 9000.0)
    assert found["b.example"].value == 0.0
    assert next(surge({HERE: 9000}, {}, [HERE], now=NOW)).value == 0.0


def test_when_many_stop_together_it_is_told_once() -> None:
    domains = [("domain", f"d{number}.example") for number in range(20)]
    hours = [dict.fromkeys(domains, 100)] * 3
    one = list(expected(dict.fromkeys(domains[1:], 100), hours, [], now=NOW))
    assert [(each.object, each.value) for each in one if each.value == 0.0] == [("d0.example", 0.0), (ALL, 0.0)]
    assert {each.outcome for each in one} == {Outcome.OK}
    many = list(expected(dict.fromkeys(domains[8:], 100), hours, [], now=NOW))
    assert {each.object for each in many if each.outcome is Outcome.UNKNOWN} == {name for _, name in domains[:8]}
    assert [(each.value, each.volume) for each in many if each.object == ALL] == [(0.4, 20.0)]


# From the log to the incident.


@pytest.fixture(name="world")
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from sound_world(tmp_path, monkeypatch)


def weeks_of(world: World, number: int, **more: Any) -> None:
    """The same at this hour of the last four weeks, and something at their beginning."""
    for week in range(1, 5):
        world.attempts(number, ago=week * WEEK + 1800, **more)
    world.attempts(1, ago=30 * DAY, domain="other.example")


def test_a_share_that_is_unusual_at_this_hour(world: World) -> None:
    """Below every fixed level, and yet twenty times what it is at such an hour."""
    world.config = dataclasses.replace(world.config)
    for beside in (-3600, 0, 3600):
        world.now += beside
        weeks_of(world, 600)
        weeks_of(world, 6, status="deferred")
        world.now -= beside
    world.attempts(800, ago=60)
    world.attempts(200, "deferred", ago=60)
    for _ in range(8):
        world.now += 45
        world.look()
    said = {member.said for each in world.incidents for member in each.members if member.condition == "unusual"}
    assert "a.example: 20.0% put off where 1.0% is usual (of 1000, at this hour of the week)" in said


def test_a_stolen_account_sends_more_than_its_domain_ever_did(world: World) -> None:
    weeks_of(world, 700)
    world.attempts(6_000, ago=60)
    for _ in range(2):
        world.now += 45
        world.look()
    titles = [each.title for each in world.incidents]
    assert titles == ["a.example sent 6000 messages in an hour, 8.57 times the most that it ever did"]


def test_a_sender_that_is_new_finds_its_pace(world: World) -> None:
    world.attempts(100, ago=3 * DAY)
    world.attempts(1, ago=30 * DAY, domain="other.example")
    world.attempts(9_000, ago=60)
    for _ in range(4):
        world.now += 45
        world.look()
    assert world.incidents == []


def test_a_tenant_and_a_campaign_that_stop(world: World) -> None:
    """Core keeps them in columns of their own; a store without these says nothing of them."""
    here = {name for _, name, *_ in world.core.rows("PRAGMA table_info(attempt)")}
    with world.core.transaction():
        for column in ("tenant", "campaign"):
            if column not in here:
                world.core.connection.execute(f"ALTER TABLE attempt ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")
    for hours in range(26):
        world.attempts(100, ago=hours * 3600.0 + 1800.0)
    with world.core.transaction():
        world.core.connection.execute("UPDATE attempt SET tenant = 'shop', campaign = 'receipts'")
    world.look()
    assert world.incidents == []
    world.now += 3600
    world.attempts(100)  # the domain goes on, for others
    for _ in range(8):
        world.now += 60
        world.look()
    firing = {(str(member.kind), member.object) for each in world.incidents for member in each.members}
    assert firing == {("tenant", "shop"), ("campaign", "receipts")}
    assert len(world.incidents) == 1

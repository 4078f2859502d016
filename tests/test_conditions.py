"""Conditions: what fires after how many looks, what ends it, and that no silence ever does either."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.expression import ExpressionError
from parsers.feeds.dnsbl import Severity
from parsers.observation import Observation, Outcome
from policies import conditions, grades, windows
from policies.conditions import CONDITIONS, DEDUP_MAX, Alert, Condition, Turn, begin, follow, own
from policies.figures import Figure, Kind, told
from policies.grades import State
from policies.windows import Counts

BY_NAME = {condition.name: condition for condition in CONDITIONS}
CRITICAL, ERROR, WARNING, INFO = Severity


def figure(condition: Condition, value: float | None, *, at: float = 1.0, outcome: Outcome = Outcome.OK,
           volume: float = 1e6, baseline: float | None = None, text: str = "", about: str = "x.example") -> Figure:  # fmt: skip
    measure = condition.measure.replace("*", "spf")
    feed = condition.feed.replace("*", "")
    kind = condition.kind or Kind.DOMAIN
    return Figure(feed, about, kind, measure, outcome, value, text, at, at, volume, baseline)


GRADES = [
    # condition, value, severity or state
    ("hard-bounces", 0.04, State.BETWEEN),
    ("hard-bounces", 0.05, WARNING),
    ("hard-bounces", 0.10, ERROR),
    ("hard-bounces", 0.31, CRITICAL),
    ("hard-bounces", 0.03, State.WELL),
    ("deferrals", 0.25, WARNING),
    ("deferrals", 0.60, ERROR),
    ("deferrals", 0.10, State.WELL),
    ("acceptance", 0.98, WARNING),
    ("acceptance", 0.981, State.BETWEEN),
    ("acceptance", 0.985, State.WELL),
    ("acceptance", 0.5, ERROR),
    ("spam-rate", 0.003, CRITICAL),
    ("spam-rate-raised", 0.001, WARNING),
    ("spam-rate-raised", 0.0009, State.BETWEEN),
    ("auth-success", 0.97, WARNING),
    ("auth-success", 0.90, ERROR),
    ("gmail-low-ip-reputation", 0.011, ERROR),
    ("compliance-dkim", 0.0, ERROR),
    ("compliance-dkim", 1.0, State.WELL),
    ("compliance-spam-rate", 0.0, CRITICAL),
    ("snds-complaints", 0.001, WARNING),
    ("snds-complaints", 0.003, ERROR),
    ("snds-traps", 1.0, WARNING),
    ("snds-traps", 5.0, ERROR),
    ("snds-blocked", 1.0, CRITICAL),
    ("snds-red", 2.0, ERROR),
    ("snds-red", 1.0, State.WELL),
    ("snds-yellow", 1.0, WARNING),
    ("snds-link-age", 26 * 86_400.0, WARNING),
    ("snds-attestation-age", 300 * 86_400.0, ERROR),
    ("gmail-reputation", 1.0, WARNING),
    ("gmail-unverified", 0.0, WARNING),
    ("senderscore", 69.0, ERROR),
    ("senderscore", 79.0, WARNING),
    ("senderscore", 90.0, State.WELL),
    ("log-lag", 901.0, CRITICAL),
    ("log-lag", 59.0, State.WELL),
    ("subqueue-stuck", 7200.0, WARNING),
    ("subqueue-stuck", 21600.0, ERROR),
    ("stream-stopped", 0.0, WARNING),
    ("list-sick", 0.0, WARNING),
    ("list-sick", 1.0, State.WELL),
]


@pytest.mark.parametrize(("name", "value", "wanted"), GRADES)
def test_grades(name: str, value: float, wanted: Severity | State) -> None:
    condition = BY_NAME[name]
    grade = condition.grade(figure(condition, value))
    assert (grade.severity or grade.state) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("critical: CSS: see there", CRITICAL), ("info: L1", INFO), ("gibberish", WARNING)],
)
def test_a_listing_is_as_severe_as_its_list(text: str, wanted: Severity) -> None:
    assert BY_NAME["listed"].grade(figure(BY_NAME["listed"], 1.0, text=text)).severity is wanted


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.NO_DATA])
def test_no_condition_takes_silence_for_an_answer(condition: Condition, outcome: Outcome) -> None:
    for value in (None, 0.0, 1.0, 1e9):
        assert condition.grade(figure(condition, value, outcome=outcome)).state is State.SILENT


def test_few_messages_are_no_spike_and_no_end_of_one() -> None:
    condition = BY_NAME["hard-bounces"]
    assert condition.grade(figure(condition, 0.9, volume=199)).state is State.BETWEEN
    assert condition.grade(figure(condition, 0.0, volume=0)).state is State.WELL


def test_what_is_usual_is_no_spike() -> None:
    condition = BY_NAME["deferrals"]
    assert condition.grade(figure(condition, 0.3, baseline=0.2)).state is State.BETWEEN
    assert condition.grade(figure(condition, 0.3, baseline=0.1)).severity is WARNING


def test_a_queue_grows_beyond_twice_its_ordinary_peak() -> None:
    condition = BY_NAME["queue-growth"]
    assert condition.grade(figure(condition, 2.0, baseline=0.5)).severity is WARNING
    assert condition.grade(figure(condition, 90.0, baseline=60.0)).state is State.BETWEEN
    assert condition.grade(figure(condition, 90.0)).state is State.BETWEEN  # nobody knows yet what is ordinary


def test_a_share_must_be_more_than_chance() -> None:
    condition = BY_NAME["complaints"]
    states = [condition.grade(figure(condition, share, volume=volume)).state for share, volume in (
        (0.004, 500), (0.003, 900), (0.0016, 5_000), (0.0009, 1e6), (0.001, 60_000), (0.01, 600))]  # fmt: skip
    assert states == [State.BETWEEN] * 4 + [State.BAD] * 2


@given(st.floats(0.0, 1.0), st.integers(1, 10**7))
def test_bounds_hold_the_share(share: float, volume: int) -> None:
    low, high = grades.bounds(share, volume)
    assert 0.0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1.0
    assert high - low >= grades.bounds(share, 4 * volume)[1] - grades.bounds(share, 4 * volume)[0] - 1e-12


def test_names_are_there_once_and_say_what_they_look_at() -> None:
    assert len(BY_NAME) == len(CONDITIONS)
    for condition in CONDITIONS:
        said = condition.say(figure(condition, 0.5, text="words", about="192.0.2.1"))
        assert "{" not in said
        assert condition.confirm >= 1
        assert condition.clear >= 1


def test_our_access_to_a_feed_is_nobodys_domain() -> None:
    seen = told(Observation("snds", "attestation", "credential-age", Outcome.OK, 1e9), stamp=1.0)
    assert seen.kind is Kind.FEED
    assert [each.name for each in CONDITIONS if each.looks_at(seen)] == ["snds-attestation-age"]


def test_dedup_keys() -> None:
    seen = Observation("dnsbl-15", "192.0.2.10", "listed.spamhaus_zen", Outcome.OK, 1.0, "critical: CSS")
    listed = BY_NAME["listed"]
    assert listed.dedup_key(told(seen, stamp=1.0)) == "pf-rep:dnsbl:192.0.2.10:spamhaus_zen"
    auth = BY_NAME["auth-success"]
    assert auth.dedup_key(figure(auth, 0.5)) == "pf-rep:google-postmaster:x.example:auth-success.spf"


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_dedup_keys_are_ascii_short_and_distinct(one: str, other: str) -> None:
    condition = BY_NAME["deferrals"]
    keys = [condition.dedup_key(figure(condition, 1.0, about=about)) for about in (one, other)]
    assert all(key.isascii() and len(key) <= DEDUP_MAX for key in keys)
    assert (keys[0] == keys[1]) == (one == other)


# Looks in a row.


def run(condition: Condition, *looks: tuple[float | None, str] | float | None) -> list[str]:
    """Turns of a row of looks: a value, None for silence, or (value, text)."""
    alert, turns = None, []
    for number, look in enumerate(looks, start=1):
        value, text = look if isinstance(look, tuple) else (look, "")
        outcome = Outcome.UNKNOWN if value is None else Outcome.OK
        seen = figure(condition, value, at=float(number), outcome=outcome, text=text)
        alert, turn = follow(alert or begin(condition, seen), condition, seen, now=float(number))
        turns.append(str(turn or "-"))
    return turns


LISTED = (1.0, "critical: CSS")
MILDER = (1.0, "error: listed")
ROWS = [
    ("listed", (LISTED, LISTED), "- fired"),
    ("listed", (LISTED, 0.0, LISTED), "- - -"),
    ("listed", (LISTED, None, None, LISTED), "- - - fired"),
    ("listed", (LISTED, LISTED, 0.0, None, None, 0.0), "- fired - - - resolved"),
    ("listed", (LISTED, LISTED, 0.0, LISTED, 0.0, 0.0), "- fired - - - resolved"),
    ("listed", (MILDER, MILDER, LISTED, MILDER), "- fired - -"),
    ("listed", (MILDER, MILDER, LISTED, LISTED), "- fired - worse"),
    ("listed", (LISTED, MILDER, LISTED, LISTED), "- fired - worse"),
    ("snds-blocked", (1.0, 0.0, 0.0), "fired - resolved"),
    ("acceptance", (0.97, 0.983, 0.983, 0.99), "fired - - resolved"),
    ("acceptance", (0.97, 0.85, 0.97, 0.85), "fired worse - -"),
    ("deferrals", (0.3, 0.3, 0.0, 0.0, 0.15, 0.0, 0.0, 0.0, 0.0), "- fired - - - - - - resolved"),
]


@pytest.mark.parametrize(("name", "looks", "turns"), ROWS)
def test_rows_of_looks(name: str, looks: tuple[float | None, ...], turns: str) -> None:
    assert run(BY_NAME[name], *looks) == turns.split()


def test_one_poll_looked_at_twice_is_one_look() -> None:
    condition = BY_NAME["listed"]
    seen = figure(condition, 1.0, at=5.0, text="critical: CSS")
    alert, first = follow(begin(condition, seen), condition, seen, now=5.0)
    again, second = follow(alert, condition, seen, now=20.0)
    assert (first, second, again) == (None, None, alert)


def test_a_day_looked_at_at_two_polls_is_one_look() -> None:
    condition = BY_NAME["spam-rate-raised"]
    day = figure(condition, 0.002)._replace(stamp=10.0, at=1.0)
    alert, _ = follow(begin(condition, day), condition, day, now=10.0)
    assert follow(alert, condition, day._replace(stamp=20.0), now=20.0) == (alert, None)
    assert follow(alert, condition, day._replace(stamp=20.0, at=2.0), now=20.0)[1] is Turn.FIRED


looks = st.lists(st.sampled_from([None, 0.0, 0.04, 0.05, 0.2, 0.5]), max_size=60)


@given(looks)
def test_it_fires_after_as_many_bad_looks_and_ends_after_as_many_good_ones(values: list[float | None]) -> None:
    condition = BY_NAME["hard-bounces"]
    alert: Alert | None = None
    told_last: Turn | None = None
    heard: list[State] = []
    for number, value in enumerate(values, start=1):
        outcome = Outcome.UNKNOWN if value is None else Outcome.OK
        seen = figure(condition, value, at=float(number), outcome=outcome)
        before = alert or begin(condition, seen)
        alert, turn = follow(before, condition, seen, now=float(number))
        if value is None:
            assert (alert, turn) == (before, None)
            continue
        heard.append(condition.grade(seen).state)
        if turn is Turn.FIRED:
            assert heard[-2:] == [State.BAD] * 2
            assert told_last in {None, Turn.RESOLVED}
        if turn is Turn.RESOLVED:
            assert heard[-4:] == [State.WELL] * 4
            assert told_last in {Turn.FIRED, Turn.WORSE}
        if turn is not None:
            told_last = turn
        assert alert.firing == (told_last in {Turn.FIRED, Turn.WORSE})


# Conditions of the site's own.


def test_an_own_condition_with_its_own_end() -> None:
    condition = own(
        "much", "feed = log and measure = hard-bounces.1h and share > 2%", until="share < 1%", severity=CRITICAL
    )
    base = figure(BY_NAME["hard-bounces"], 0.0)
    states = [condition.grade(base._replace(value=value)) for value in (0.03, 0.015, 0.005)]
    assert [(state.state, state.severity) for state in states] == [
        (State.BAD, CRITICAL), (State.BETWEEN, None), (State.WELL, None),
    ]  # fmt: skip
    assert condition.dedup_key(base) == "pf-rep:log:x.example:much.hard-bounces.1h"
    assert condition.grade(base._replace(outcome=Outcome.UNKNOWN, value=None)).state is State.SILENT


def test_an_own_condition_with_a_typo_points_at_it() -> None:
    with pytest.raises(ExpressionError, match="did you mean share"):
        own("x", "shore > 2%")


# Figures of the log.


def test_shares_of_a_window() -> None:
    counted = {("provider", "google"): Counts(attempts=1000, sent=600, deferred=300, bounced=100, hard=80)}
    usual = {("provider", "google"): Counts(attempts=10_000, sent=9_900, bounced=100, hard=50)}
    found = {
        (each.object, each.measure): each
        for each in windows.shares(windows.WINDOWS[1], counted, usual, [("domain", "gone.example")], now=7.0)
    }
    bounces = found["google", "hard-bounces.1h"]
    assert (bounces.value, bounces.volume, bounces.baseline) == (80 / 700, 700.0, 50 / 10_000)
    assert found["google", "deferrals.1h"].value == 0.3
    assert found["google", "acceptance.1h"].value == 600 / 700
    gone = found["gone.example", "acceptance.1h"]
    assert (gone.value, gone.volume, gone.outcome) == (1.0, 0.0, Outcome.OK)


def test_a_stream_is_compared_with_the_least_of_such_hours() -> None:
    here, other, idle = ("domain", "a.example"), ("domain", "b.example"), ("provider", "google")
    before = ({here: 600, other: 600, idle: 9}, {here: 400})
    found = {each.object: each for each in windows.expected({here: 4}, before, [], now=1.0)}
    assert (found["a.example"].value, found["a.example"].volume) == (0.01, 400.0)
    assert (found["b.example"].value, found["b.example"].volume) == (1.0, 0.0)
    assert "google" not in found


def test_windows_grow() -> None:
    assert all(one.seconds < other.seconds for one, other in pairwise(windows.WINDOWS))
    assert all(window.seconds % window.width == 0 for window in windows.WINDOWS)
    assert math.isinf(told(Observation("f", "o", "m", Outcome.OK, 1.0), stamp=1.0).volume)


def test_severities_have_an_order() -> None:
    assert conditions.worst([INFO, ERROR, WARNING]) is ERROR
    assert conditions.worst([]) is INFO
    assert conditions.worse(CRITICAL, ERROR)

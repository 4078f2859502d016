"""Rates and their marks; intervals against published figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.deliverability import TARGETS, Mark, Rate, differ, mark, newcombe, rates, wilson

SUMS = {"attempts": 200.0, "sent": 90.0, "deferred": 50.0, "bounced": 8.0, "hard": 3.0, "block": 4.0, "expired": 2.0}


def test_each_rate_is_a_share_of_what_it_says() -> None:
    found = rates({**SUMS, "complaints": 9.0})
    assert {name: (rate.hits, rate.of) for name, rate in found.items()} == {
        "acceptance": (90, 100),
        "hard_bounces": (3, 100),
        "soft_bounces": (1, 100),
        "blocks": (4, 100),
        "expired": (2, 100),
        "deferrals": (50, 200),
        "complaints": (9, 90),
    }
    assert Rate(0, 0).share is None


@pytest.mark.parametrize(
    ("name", "hits", "of", "wanted"),
    [
        ("acceptance", 98, 100, Mark.MET),
        ("acceptance", 97, 100, Mark.PERHAPS),
        ("acceptance", 9_700, 10_000, Mark.MISSED),
        ("hard_bounces", 2, 1000, Mark.MET),
        ("hard_bounces", 3, 1000, Mark.PERHAPS),
        ("hard_bounces", 300, 100_000, Mark.MISSED),
        ("complaints", 1, 1000, Mark.MET),
        ("complaints", 2, 1000, Mark.PERHAPS),
        ("acceptance", 0, 0, None),
        ("deferrals", 1, 2, None),
    ],
)
def test_a_mark_tells_a_miss_from_chance(name: str, hits: int, of: int, wanted: Mark | None) -> None:
    assert mark(name, Rate(hits, of)) == wanted
    assert (TARGETS["acceptance"].share, TARGETS["hard_bounces"].share, TARGETS["complaints"].share) == (
        0.98,
        0.002,
        0.001,
    )


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [
        (Rate(81, 263), 0.2553, 0.3662),
        (Rate(15, 148), 0.0624, 0.1605),
        (Rate(0, 20), 0.0, 0.1611),
        (Rate(1, 29), 0.0061, 0.1718),
    ],
)
def test_score_intervals_are_those_that_newcombe_printed(rate: Rate, low: float, high: float) -> None:
    assert wilson(rate) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        (Rate(56, 70), Rate(48, 80), 0.0524, 0.3339),
        (Rate(9, 10), Rate(3, 10), 0.1705, 0.8090),
        (Rate(10, 10), Rate(0, 20), 0.6791, 1.0),
        (Rate(5, 56), Rate(0, 29), -0.0381, 0.1926),
    ],
)
def test_differences_are_those_that_newcombe_printed(one: Rate, other: Rate, low: float, high: float) -> None:
    assert newcombe(one, other) == pytest.approx((low, high), abs=5e-5)


_RATES = st.integers(0, 500).flatmap(lambda of: st.integers(0, of).map(lambda hits: Rate(hits, of)))


@given(_RATES, _RATES)
def test_an_interval_holds_what_was_seen(one: Rate, other: Rate) -> None:
    low, high = newcombe(one, other)
    assert -1 <= low <= high <= 1
    back = newcombe(other, one)
    assert (back.low, back.high) == pytest.approx((-high, -low))
    if one.share is not None and other.share is not None:
        assert low - 1e-9 <= one.share - other.share <= high + 1e-9
    assert differ(one, other) is differ(other, one)

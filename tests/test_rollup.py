"""What is counted, under which names, and that names stay few while totals stay exact."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.commands import Attempt
from policies.naming import OTHER, Naming
from policies.rollup import ALL, FLOWS, MEASURES, PLACES, Flow, Names, Refusal, Rolled, join, roll
from policies.time_to_delivery import BOUNDS, BUCKETS, bucket_of, percentile

BEGIN = 1_700_006_400.0
"""The begin of an hour."""


def attempt(status: str = "sent", *, at: float = 0.0, delay: float = 0.7, bounce: str = "", **more: object) -> Attempt:
    row = Attempt(
        BEGIN + at, "mx1", "postfix", "4TX", "shop.example", "gmail.com", "google", "mx.google.com", "2.0.0", status,
        "" if status == "sent" else "google/no-such-user", "" if status == "sent" else "recipient.unknown", bounce, "",
        delay, "", service="lane-01", tenant="shop", campaign="spring", segment="vip",
    )  # fmt: skip
    return row._replace(**more)  # type: ignore[arg-type]  # by name


FLOW = Flow("google", "shop.example", "lane-01", "mx1", "shop", "spring", "vip")


def rolled(*attempts: Attempt) -> Rolled:
    return roll(attempts, defaultdict(Names))


def measures(found: Rolled, flow: Flow = FLOW, begin: float = BEGIN) -> dict[str, int]:
    return {name: number for name, number in zip(MEASURES, found.flows[int(begin), flow], strict=True) if number}


def test_each_outcome_is_counted_as_what_it_is() -> None:
    found = rolled(
        attempt(first=1),
        attempt("deferred"),
        attempt("SOFTBOUNCE"),
        attempt("bounced", bounce="hard", first=1),
        attempt("bounced", bounce="block"),
        attempt("bounced", bounce="soft"),
        attempt("expired"),
    )
    assert measures(found) == {
        "messages": 2, "attempts": 6, "sent": 1, "deferred": 2, "bounced": 3, "hard": 1, "block": 1, "expired": 1,
        "within_1": 1,
    }  # fmt: skip
    assert found.values == {
        (int(BEGIN), dimension, value): found.flows[int(BEGIN), FLOW]
        for dimension, value in ((ALL, ""), *zip(Flow._fields, FLOW, strict=True))
    }


def test_what_refused_is_counted_by_rule() -> None:
    found = rolled(attempt(), attempt("bounced", bounce="hard"), attempt("bounced", bounce="hard"))
    refusal = Refusal("google/no-such-user", "recipient.unknown", "hard", "bounced")
    assert found.refusals == {(int(BEGIN), FLOW, refusal): 2}


def test_hours_are_told_apart() -> None:
    found = rolled(attempt(at=0.0), attempt(at=3599.9), attempt(at=3600.0))
    assert measures(found)["sent"] == 2
    assert measures(found, begin=BEGIN + 3600)["sent"] == 1


def test_a_hand_over_within_the_host_is_no_outcome() -> None:
    assert rolled(attempt(passed_on="4TY", first=1)) == Rolled.empty()


def test_the_first_values_have_names_and_a_heavy_one_gets_one_later() -> None:
    naming = Naming[str](2)
    assert [naming.has(value) for value in ("a", "b", "c")] == [True, True, False]
    assert [naming.has("c") for _ in range(4)] == [False, True, True, True]


@given(st.lists(st.integers(0, 400), max_size=600))
def test_names_are_bounded_and_a_heavy_value_has_one(values: list[int]) -> None:
    naming = Naming[int](5)
    named = {value for value in values if naming.has(value)}
    assert len(named) <= 10


def test_a_value_that_brings_more_than_its_share_has_a_name_whenever_it_comes() -> None:
    naming = Naming[str](10)
    for number in range(1_000):
        naming.has(f"small-{number}")
    given_ = [naming.has("late") for _ in range(200)]
    assert given_[-1]
    assert given_.count(False) < 120


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=200))
def test_totals_are_exact_whatever_has_a_name(drawn: list[tuple[int, int]]) -> None:
    names: defaultdict[int, Names] = defaultdict(Names)
    for each in Flow._fields:
        names[int(BEGIN) // 86_400 * 86_400].values[Flow._fields.index(each)] = Naming(3)
    some = [attempt(campaign=f"c{campaign}", tenant=f"t{tenant}") for campaign, tenant in drawn]
    found = roll(some, names)
    per_flow = Counter[str]()
    for (_, flow), sums in found.flows.items():
        per_flow[flow.campaign] += sums[MEASURES.index("sent")]
    assert per_flow.total() == len(drawn)
    assert len(per_flow) <= 7
    for dimension in (ALL, *Flow._fields):
        of_one = [sums[2] for (_, each, _), sums in found.values.items() if each == dimension]
        assert sum(of_one) == len(drawn)
        assert len(of_one) <= 7
    again = join([found, found], names)
    assert [sum(sums[2] for sums in each.values()) for each in (again.flows, again.values)] == [
        2 * len(drawn),
        16 * len(drawn),
    ]


def test_flows_beyond_their_number_are_joined_first_by_what_tells_least() -> None:
    names = Names()
    names.flows = Naming(1)
    assert names.row(FLOW) == FLOW
    names.flows.has(FLOW)
    assert names.row(FLOW._replace(campaign="autumn")) == Flow("google", OTHER, OTHER, OTHER, OTHER, OTHER, OTHER)
    assert max(PLACES.values()) < FLOWS


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.5, 0), (0.51, 1), (86_400.0, BUCKETS - 2), (86_400.1, BUCKETS - 1)]
)
def test_a_time_is_in_the_bucket_that_its_bound_closes(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket


@pytest.mark.parametrize(
    ("times", "share", "wanted"),
    [
        ([], 0.5, None),
        ([0.1] * 10, 0.5, 0.25),
        ([3.0] * 50 + [100.0] * 50, 0.5, 5.0),
        ([3.0] * 50 + [100.0] * 50, 0.95, 114.0),
        ([999_999.0], 0.5, BOUNDS[-1]),
    ],
)
def test_percentiles_out_of_buckets(times: list[float], share: float, wanted: float | None) -> None:
    counts = [0] * BUCKETS
    for time in times:
        counts[bucket_of(time)] += 1
    assert percentile(counts, share) == wanted


@given(st.lists(st.floats(0.0, 200_000.0), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_percentile_is_in_the_bucket_of_the_true_one(times: list[float], share: float) -> None:
    counts = [0] * BUCKETS
    for time in times:
        counts[bucket_of(time)] += 1
    found = percentile(counts, share)
    below = sorted(times)[max(0, min(len(times) - 1, -int(-share * len(times) // 1) - 1))]
    assert found is not None
    assert abs(bucket_of(found) - bucket_of(below)) <= 1

"""What is counted for Prometheus: as what, under how few names, and that it agrees with the sums of the store."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.commands import Attempt
from policies.outcome_counts import NONE, OTHER, OutcomeCounts
from policies.rollup import ALL, MEASURES, Names, roll
from policies.telling import Telling
from policies.time_to_delivery import BOUNDS

NOW = 1_700_006_400.0


def attempt(status: str = "sent", *, provider: str = "google", service: str = "lane-01", **more: object) -> Attempt:
    row = Attempt(
        NOW, "mx1", "postfix", "4TX", "shop.example", "gmail.com", provider, "mx.google.com", "2.0.0", status,
        "", "" if status == "sent" else "recipient.unknown", "" if status == "sent" else "hard", "", 0.7, "",
        service=service,
    )  # fmt: skip
    return row._replace(**more)  # type: ignore[arg-type]  # by name


def counted(*attempts: Attempt, providers: int = 40, transports: int = 50) -> OutcomeCounts:
    counts = OutcomeCounts(providers=providers, transports=transports)
    for each in attempts:
        counts.attempted(each)
    return counts


def test_an_attempt_is_counted_by_provider_transport_and_category() -> None:
    counts = counted(
        attempt(),
        attempt("bounced"),
        attempt("deferred", detail="throttling.domain", bounce="transient", service="smtp"),
        attempt("deferred", provider="", service="", detail="", bounce=""),
    )
    assert counts.attempts == {
        ("google", "sent"): 1,
        ("google", "bounced"): 1,
        ("google", "deferred"): 1,
        (NONE, "deferred"): 1,
    }
    assert counts.by_transport == {
        ("lane-01", "sent"): 1,
        ("lane-01", "bounced"): 1,
        ("smtp", "deferred"): 1,
        (NONE, "deferred"): 1,
    }
    assert counts.refused == {
        ("google", "recipient", "hard"): 1,
        ("google", "throttling", "transient"): 1,
        (NONE, "unknown", NONE): 1,
    }


def test_what_expired_is_no_attempt() -> None:
    counts = counted(attempt("expired", service=""))
    assert (counts.attempts, counts.by_transport, counts.refused) == ({}, {}, {})
    assert counts.expired == {"google": 1}


def test_what_was_handed_on_within_the_host_is_not_counted() -> None:
    assert counted(attempt(passed_on="4TY")).attempts == {}


def test_an_unheard_of_status_has_no_name() -> None:
    assert counted(attempt("crafted")).attempts == {("google", OTHER): 1}


def test_times_to_delivery() -> None:
    times = counted(attempt(delay=0.5), attempt(delay=0.6), attempt(delay=BOUNDS[-1] + 1), attempt("bounced")).times
    assert times["google"].within == [1, 1, *[0] * (len(BOUNDS) - 2), 1]
    assert times["google"].seconds == pytest.approx(0.5 + 0.6 + BOUNDS[-1] + 1)


def test_names_are_few_and_go_to_those_with_a_share() -> None:
    small = [attempt(provider=f"p{number}.example", service=f"t{number}") for number in range(1_000)]
    counts = counted(*small, *[attempt(provider="late.example")] * 1_000, providers=5, transports=5)

    assert len({provider for provider, _ in counts.attempts}) <= 11
    assert len({transport for transport, _ in counts.by_transport}) <= 11
    assert len(counts.times) <= 11
    assert counts.attempts["late.example", "sent"] > 500
    assert sum(counts.attempts.values()) == 2_000


statuses = st.sampled_from(["sent", "deferred", "bounced", "SOFTBOUNCE", "expired"])
attempts_made = st.lists(
    st.builds(
        attempt, statuses, provider=st.sampled_from(["", "google", "yahoo"]), passed_on=st.sampled_from(["", "X"])
    )
)


@given(attempts_made)
def test_the_store_sums_up_the_same(made: list[Attempt]) -> None:
    counts, rolled = counted(*made), roll(made, defaultdict(Names))
    sums = dict(zip(MEASURES, rolled.values.get((int(NOW), ALL, ""), [0] * len(MEASURES)), strict=True))
    for status in ("sent", "deferred", "bounced"):
        assert sum(number for (_, named), number in counts.attempts.items() if named == status) == sums[status]
    assert sum(counts.expired.values()) == sums["expired"]
    assert sum(n for (_, _, bounce), n in counts.refused.items() if bounce == "hard") == sums["hard"] + sums["deferred"]


def test_steps_of_subqueues_are_counted_unless_by_hand() -> None:
    telling = Telling()
    for kind, who in (("opened", "engine"), ("paused", "engine"), ("held", "engine"), ("opened", "admin")):
        telling.tell(kind, "", now=NOW, key="dkim-domain:a.example@google", by_whom=who)
    telling.tell("gap", "", now=NOW)
    assert telling.outcomes.steps == {("google", "opened"): 1, ("google", "paused"): 1}


def test_what_must_never_happen_is_counted_from_nought() -> None:
    assert Telling().change_counts["unaccounted"] == 0
    assert "unaccounted" in Telling().change_counts

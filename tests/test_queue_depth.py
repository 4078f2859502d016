"""In which of Postfix's queues a message is, and how deep and old they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.messages import ENTERED, Message, Messages, Place, Recipient
from policies.outcome_counts import NONE, OTHER
from policies.queue_depth import DESTINATIONS, SAMPLE, Queue, depths, queue_of

NOW = 1_800_000_000.0


def message(*domains: str, age: float = 10.0, place: Place = Place.QUEUED, active: bool = False) -> Message:
    """One that was tried and waits; or is being tried."""
    made = Message("postfix", "Q", now=NOW - age)
    made.recipients = tuple(Recipient(f"u@{domain}") for domain in domains)
    made.place = place
    made.activated(nrcpt=len(domains) or 1)
    if not active:
        made.left_core()
    return made


def test_each_queue() -> None:
    assert queue_of(message("a.example", active=True)) is Queue.ACTIVE
    assert queue_of(message("a.example")) is Queue.DEFERRED
    assert queue_of(message("a.example", place=Place.HELD)) is Queue.HOLD
    assert queue_of(message("a.example", place=Place.FOREIGN)) is Queue.HOLD
    assert queue_of(message("a.example", place=Place.TAKING)) is Queue.DEFERRED


def test_what_is_being_received_is_in_no_queue_yet() -> None:
    made = Message("postfix", "Q", now=NOW)
    made.entry = ENTERED
    assert queue_of(made) is None
    made.entry = ("client.example[192.0.2.1]", "<1@a.example>")
    assert queue_of(made) is Queue.INCOMING
    found = depths([message("a.example"), Message("postfix", "Q", now=NOW)], str, live=2, now=NOW)
    assert sum(depth.messages for depth in found.queues.values()) == 1


def test_one_that_is_through_is_still_active_until_it_is_removed() -> None:
    made = message("a.example")
    made.recipients[0].done = True
    assert queue_of(made) is Queue.ACTIVE


def test_ages() -> None:
    mail = [message("a.example", age=float(age)) for age in range(1, 101)]
    depth = depths(mail, str, live=100, now=NOW).queues[Queue.DEFERRED]
    assert depth == (100.0, 50.0, 95.0, 100.0)
    assert depths(mail, str, live=100, now=NOW - 1e6).queues[Queue.DEFERRED].oldest_age == 0.0
    assert depths([], str, live=0, now=NOW).queues[Queue.ACTIVE] == (0.0, 0.0, 0.0, 0.0)


def test_destinations() -> None:
    providers = {"gmail.com": "google", "yahoo.com": "yahoo"}
    mail = [message("gmail.com", "yahoo.com"), message("gmail.com", "hosted.example"), message()]
    mail[1].recipients[0].done = True
    found = depths(mail, providers.get, live=3, now=NOW).destinations
    assert {place: depth.messages for place, depth in found.items()} == {
        ("google", Queue.DEFERRED): 1,
        ("yahoo", Queue.DEFERRED): 1,
        (NONE, Queue.DEFERRED): 2,
    }


def test_only_the_greatest_destinations_have_names() -> None:
    mail = [message(f"d{number}.example") for number in range(DESTINATIONS + 30)] + [message("big.example")] * 5
    found = depths(mail, str, live=len(mail), now=NOW).destinations
    assert len(found) == DESTINATIONS + 1
    assert found["big.example", Queue.DEFERRED].messages == 5
    assert found[OTHER, Queue.DEFERRED].messages == 31


@given(st.integers(0, 3 * SAMPLE))
def test_a_sample_of_any_queue_is_bounded_and_tells_its_size(live: int) -> None:
    messages = Messages()
    for number in range(live):
        messages.obtain("postfix" if number % 3 else "postfix-out", f"Q{number}", now=NOW).attempts = 1
    sample = messages.sample(SAMPLE)
    assert len(sample) <= SAMPLE + 1
    assert len(sample) == live or live > SAMPLE
    assert depths(sample, str, live=live, now=NOW).queues[Queue.DEFERRED].messages == pytest.approx(live, abs=1)

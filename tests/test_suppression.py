"""From answers to entries: at once but on probation, by repetition, and never for what is not the recipient's fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.suppression import (
    DAY,
    Add,
    Confirm,
    Counted,
    Delivered,
    End,
    Listed,
    Outcome,
    Reason,
    Rules,
    Suppressing,
    Windows,
    read_list,
)
from tests.labelled import ROWS, Labelled
from tests.suppression_world import BLOCKED, FULL, NO_DOMAIN, NO_SUCH_USER, RULES, START, THROTTLED, Lists, Post

HARD = Listed("global", Reason.HARD_BOUNCE)


def test_a_hard_bounce_suppresses_at_once_and_for_good_after_its_probation() -> None:
    post = Post()
    post.answer("gone@gmail.com", NO_SUCH_USER)
    assert post.suppressed == ["gone@gmail.com"]
    (add,) = post.moves
    assert isinstance(add, Add)
    assert (add.listed, add.provisional_until, add.until) == (HARD, START + 1_800, 0.0)
    assert "User unknown" in add.evidence
    assert add.by_whom  # the rule that read the reply
    post.wait(1_799)
    assert post.moves == [add]
    post.wait(1)
    assert post.moves == [add, Confirm(add.who, HARD)]
    assert post.suppressed == ["gone@gmail.com"]


def outage(post: Post, *, recipients: int, seconds: float = 600.0, provider: str = "google") -> None:
    """The provider refuses everybody."""
    for number in range(recipients):
        post.answer(f"user{number}@gmail.com", NO_SUCH_USER, provider=provider)
        post.wait(seconds / recipients)


def test_an_outage_of_ten_minutes_suppresses_nobody() -> None:
    post = Post()
    for number in range(500):  # before, all was well
        post.answer(f"reader{number}@gmail.com")
        post.wait(1)
    outage(post, recipients=600)
    assert post.suppressed == []
    assert "google" in post.suppressing.outages
    for number in range(2_000):  # and after it again
        post.answer(f"reader{number}@gmail.com")
        post.wait(1)
    assert post.suppressed == []
    assert post.suppressing.outages == {}
    ended = [move for move in post.moves if isinstance(move, End)]
    assert ended
    assert all("outage, not a list" in move.why for move in ended)
    assert not any(isinstance(move, Confirm) for move in post.moves)
    post.answer("gone@gmail.com", NO_SUCH_USER)  # hard bounces count again
    assert post.suppressed == ["gone@gmail.com"]


@pytest.mark.parametrize(
    ("recipients", "hard", "kept"), [(49, 49, 49), (50, 10, 10), (50, 11, 0), (1_000, 200, 200), (1_000, 201, 0)]
)
def test_more_than_a_fifth_of_at_least_fifty(recipients: int, hard: int, kept: int) -> None:
    post = Post()
    for number in range(recipients - hard):
        post.answer(f"reader{number}@gmail.com")
    for number in range(hard):
        post.answer(f"gone{number}@gmail.com", NO_SUCH_USER)
    assert len(post.suppressed) == kept


def test_retries_of_few_recipients_are_no_fifty_recipients() -> None:
    post = Post()
    for _ in range(30):
        for number in range(20):
            post.answer(f"gone{number}@gmail.com", NO_SUCH_USER)
    assert len(post.suppressed) == 20


def test_an_outage_of_one_provider_is_none_of_another() -> None:
    post = Post()
    post.answer("gone@yahoo.com", NO_SUCH_USER, provider="yahoo")
    outage(post, recipients=100)
    assert post.suppressed == ["gone@yahoo.com"]


def test_a_provider_that_nothing_is_sent_to_any_more_is_forgotten() -> None:
    windows = Windows(600.0)
    for number in range(1_000):
        windows.attempted(f"provider{number}", b"a", hard=True, now=START + number)
    windows.forget_old(now=START + 1_000)
    assert windows.lately("provider999", now=START + 1_000) == (1, 1)
    assert len(windows._windows) <= 500
    windows.forget_old(now=START + 5_000)
    assert not windows._windows


def test_who_was_suppressed_before_their_probation_ended_stays_so_only_where_no_outage_came() -> None:
    post = Post()
    post.answer("before@gmail.com", NO_SUCH_USER)
    post.wait(1_801)
    post.answer("during@gmail.com", NO_SUCH_USER)
    outage(post, recipients=100)
    assert post.suppressed == ["before@gmail.com"]


def test_a_delivery_ends_what_was_said_of_the_mailbox() -> None:
    post = Post()
    post.answer("back@gmail.com", NO_SUCH_USER)
    post.wait(DAY)
    post.answer("back@gmail.com")
    assert post.suppressed == []
    last = post.moves[-1]
    assert isinstance(last, End)
    assert last.why.startswith("delivered since: ")


def test_a_delivery_does_not_end_a_wish() -> None:
    post = Post()
    unsubscribed = Listed("domain:shop.example", Reason.UNSUBSCRIBE)
    post.suppressing.add(Add(b"a@gmail.com", "a@gmail.com", unsubscribed, "", START, "ingest"))
    post.answer("a@gmail.com")
    assert post.lists.find("a@gmail.com") == (unsubscribed,)


@pytest.mark.parametrize("reply", [BLOCKED, THROTTLED, "550 5.7.26 Unauthenticated email is not accepted"])
def test_what_is_our_fault_suppresses_nobody_however_often(reply: str) -> None:
    post = Post()
    for _ in range(100):
        post.answer("a@gmail.com", reply)
        post.wait(DAY)
    assert post.suppressed == []
    assert post.moves == []


def test_a_mailbox_that_is_full_for_weeks() -> None:
    post = Post()
    for _ in range(14):
        for _ in range(50):  # retries of a day
            post.answer("full@gmail.com", FULL)
        assert post.suppressed == []
        post.wait(DAY)
    post.answer("full@gmail.com", FULL)
    assert post.lists.find("full@gmail.com") == (Listed("global", Reason.MAILBOX_FULL),)
    add = next(move for move in post.moves if isinstance(move, Add))
    assert add.until == post.now + 90 * DAY


def test_a_delivery_in_between_begins_the_count_anew() -> None:
    post = Post()
    for day in range(60):
        post.answer("full@gmail.com", FULL)
        post.wait(DAY)
        if day % 10 == 9:
            post.answer("full@gmail.com")
    assert post.suppressed == []


def test_a_domain_without_dns_is_dead_after_two_days_and_no_sooner() -> None:
    post = Post()
    for _ in range(2):
        post.answer("a@gone.example", NO_DOMAIN, provider="", remote=False)
        post.wait(DAY)
        assert post.suppressed == []
    post.answer("a@gone.example", NO_DOMAIN, provider="", remote=False)
    assert post.lists.find("a@gone.example") == (Listed("global", Reason.DEAD_DOMAIN),)


def test_what_our_own_postfix_finds_is_no_hard_bounce() -> None:
    post = Post()
    post.answer("a@gmail.com", NO_SUCH_USER, remote=False)
    assert post.suppressed == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.place)
def test_wrong_suppressions(row: Labelled) -> None:
    """Of all labelled replies only those suppress at once that a person labelled so, and are about one recipient."""
    post = Post()
    verdict = RULES.classify(row.said())
    outcome = Outcome(b"a", "a@x.example", "somebody", remote=bool(row.command), verdict=verdict, line="")
    post.suppressing.heard(outcome, now=START)
    _, scope, bounce, reaction = row.label
    if post.suppressed:
        assert (scope, bounce, reaction) == ("recipient", "hard", "suppress")


def test_right_suppressions() -> None:
    """The set above is not kept by suppressing nobody."""
    post = Post(Rules(outage_recipients=10_000))
    wanted = [row for row in ROWS if row.command and row.label[1:] == ("recipient", "hard", "suppress")]
    for number, row in enumerate(wanted):
        verdict = RULES.classify(row.said())
        outcome = Outcome(str(number).encode(), "a@x.example", "somebody", remote=True, verdict=verdict, line="")
        post.suppressing.heard(outcome, now=START)
    assert len(post.suppressed) > 0.9 * len(wanted) > 50


def test_stored_as_a_digest_nothing_names_the_person() -> None:
    post = Post(hashed=True)
    post.answer("Gone@Gmail.com", NO_SUCH_USER)
    (add,) = post.moves
    assert isinstance(add, Add)
    assert "gone@gmail.com" not in str(add._replace(who=b"")).lower()
    assert "[address]" in add.evidence


def test_after_a_restart_an_outage_withdraws_what_was_on_probation_before_it() -> None:
    before = Post()
    before.answer("user@gmail.com", NO_SUCH_USER)
    (add,) = before.moves
    assert isinstance(add, Add)
    after = Post()
    after.lists.apply(add)
    after.suppressing.restore_probation(add.who, add.provider, add.provisional_until)
    outage(after, recipients=60)
    assert after.suppressed == []


def test_a_count_goes_on_after_a_restart() -> None:
    before = Post()
    for _ in range(10):
        before.answer("full@gmail.com", FULL)
        before.wait(1.5 * DAY)
    counted = [move for move in before.moves if isinstance(move, Counted)][-1]
    after = Post()
    after.now = before.now
    after.suppressing.restore_count(counted)
    after.answer("full@gmail.com", FULL)
    assert after.suppressed == ["full@gmail.com"]


def test_by_hand_an_entry_stands_whatever_comes() -> None:
    post = Post()
    post.answer("user@gmail.com", NO_SUCH_USER)
    assert not post.suppressing.add(Add(b"user@gmail.com", "user@gmail.com", HARD, "", START, "root"))
    outage(post, recipients=60)
    assert post.suppressed == ["user@gmail.com"]


def test_deliveries_are_counted_by_person_only_where_that_is_wanted() -> None:
    for engagement in (False, True):
        suppressing = Suppressing(Rules(), Lists(), engagement=engagement)
        suppressing.heard(Outcome(b"a", "a@x.example", "x", True, None, "", "shop.example"), now=START)
        assert suppressing.moves == ([Delivered(b"a", "shop.example", START)] if engagement else [])


@pytest.mark.parametrize(
    "text", ["global", "tenant:news letter@x", "domain:Shop.Example.", "domain:", "lokal", "tenant:a b", ""]
)
def test_names_of_lists(text: str) -> None:
    names = {"global": "global", "domain:Shop.Example.": "domain:shop.example"}
    if text in names:
        assert read_list(text) == names[text]
    else:
        with pytest.raises(ValueError, match="wanted global, tenant:LOGIN or domain:"):
            read_list(text)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from(["", NO_SUCH_USER, FULL, BLOCKED, NO_DOMAIN]),
            st.floats(0, 3 * DAY),
        ),
        max_size=40,
    )
)
def test_moves_tell_exactly_what_the_lists_became(attempts: list[tuple[str, str, float]]) -> None:
    """Who replays the moves has the same lists: nothing is added twice nor ended that was not there."""
    post = Post()
    for who, reply, pause in attempts:
        post.answer(f"{who}@gmail.com", reply)
        post.wait(pause)
    again: set[tuple[bytes, Listed]] = set()
    for move in post.moves:
        if isinstance(move, Add):
            assert (move.who, move.listed) not in again
            again.add((move.who, move.listed))
        elif isinstance(move, End):
            again.remove((move.who, move.listed))
    assert again == {(who, each) for who, entries in post.lists.entries.items() for each in entries}

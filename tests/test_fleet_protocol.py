"""What the hosts of a fleet agree on, case by case; tests/test_fleet_model.py searches for what no case foresees."""

import json
from dataclasses import replace
from random import Random

import pytest

from policies.fleet.book import Book, Had, Lead, Share, Wish, Word, attend
from policies.fleet.replica import Contact, Replica
from policies.fleet.roll import Asking, Member, Roll, Standing, concerns_one, enrol
from policies.fleet.row import Row
from policies.fleet.terms import ALONE_AFTER, FORGOTTEN_AFTER, GRACE, LEASE, LONGEST_PAUSE, NEVER, REDUCED
from policies.key import Key
from policies.limit import Aftermath
from policies.subqueue import State

ROW = Row(
    Key("dkim-domain", "example.com", "google"), State.RAMPING, 10.0, 1, 5, 0.0, 0.0, "google/rate", "a line", "one"
)
ALL_HERE = Standing(quorate=True, reserved=0.0)
BOOK = Book("store", 0.0, ROW, token=7)


def come(book: Book | None, host: str, at: float, standing: Standing = ALL_HERE, **wish: object) -> Book:
    known = ROW if book is None else book.row
    return attend(book, Wish(host, known)._replace(**wish), standing, server="store", at=at)  # type: ignore[arg-type]


def test_a_row_is_read_as_it_was_written() -> None:
    assert Row.read(ROW.text()) == ROW


def test_fields_of_a_newer_version_are_ignored() -> None:
    newer = json.dumps({**ROW.values(), "version": 2, "colour": "green"})
    assert Row.read(newer) == ROW._replace(version=2)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ceiling": "fast"}, "ceiling 'fast'; wanted a number"),
        ({"ceiling": 0}, "wanted messages/s above 0"),
        ({"until": float("nan")}, "until nan; wanted a number"),
        ({"serial": -1}, "serial -1; wanted a whole number from 0 up"),
        ({"era": True}, "era True; wanted a whole number"),
        ({"host": 3}, "host 3; wanted a text"),
        ({"short": "soon"}, "short 'soon'; wanted a number"),
        ({"exploring": 1}, "exploring 1; wanted true or false"),
        ({"key": "nobody"}, "'nobody' is no sub-queue key"),
        ({"state": "resting"}, "'resting' is not a valid State"),
    ],
)
def test_a_row_that_is_no_good_says_what_is_wrong(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Row.of({**ROW.values(), **change})


@pytest.mark.parametrize("text", ["[]", "{}", "not json"])
def test_what_is_no_row_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no row|has no key|Expecting value"):
        Row.read(text)


def test_a_book_and_a_roll_are_read_as_they_were_written() -> None:
    had = {"two": Had(1, Aftermath(2, 1, 0.5))}
    book = Book("s", 3.0, ROW, 9, Lead("one", 9, 4.0), {"two": Share(1.5, 3, 8.0)}, had)
    assert Book.read(book.text()) == book
    roll = Roll("s", 1.0, {"one": Member(NEVER, 2.0, 0.5)})
    assert Roll.read(roll.text()) == roll
    assert Book.read(json.dumps({**json.loads(book.text()), "newer": 1})) == book


@pytest.mark.parametrize("text", ["{}", "[]", '{"server": 1, "settled": 2, "row": 3, "members": 4}'])
def test_what_is_no_book_or_roll_is_refused(text: str) -> None:
    for reader in (Book.read, Roll.read):
        with pytest.raises(ValueError, match=r"of the fleet"):
            reader(text)


def test_of_two_rows_as_late_the_careful_one_holds() -> None:
    paused = ROW._replace(state=State.PAUSED, host="two")
    assert paused.supersedes(ROW)
    assert not ROW.supersedes(paused)
    assert ROW._replace(serial=6).supersedes(paused)


def test_a_refusal_pauses_for_all_and_ends_the_lead() -> None:
    book = come(replace(BOOK, lead=Lead("one", 7, 50.0)), "two", 40.0, refused_in=1, pause=30.0, rule="r", line="l")
    assert (book.row.state, book.row.until, book.row.host, book.row.line) == (State.PAUSED, 70.0, "two", "l")
    assert (book.row.era, book.lead) == (2, None)
    late = come(book, "one", 41.0, refused_in=1, pause=30.0)
    assert late.row == book.row  # began before the pause


def test_what_an_older_version_wrote_lacks_what_is_new() -> None:
    values = {name: value for name, value in ROW.values().items() if name not in {"exploring", "short"}}
    assert Row.read(json.dumps({**values, "version": 1})) == ROW._replace(version=1)
    book = {name: value for name, value in json.loads(BOOK.text()).items() if name != "had"}
    assert Book.read(json.dumps(book)) == replace(BOOK, shares={})


def test_a_pause_that_may_be_short_is_where_hosts_together_saw_that_the_provider_goes_on() -> None:
    book = come(BOOK, "one", 40.0, refused_in=1, pause=300.0, short=30.0)
    book = come(book, "one", 41.0, had=Had(2, Aftermath(accepted=1, refused=0, seconds=0.4)))
    book = come(book, "two", 41.0, had=Had(2, Aftermath(refused=3, seconds=0.2)))
    assert (book.row.until, book.row.short) == (340.0, 30.0)
    book = come(book, "three", 42.0, had=Had(2, Aftermath(accepted=1)))
    assert (book.row.state, book.row.until, book.row.short) == (State.PAUSED, 70.0, 0.0)
    assert book.aftermath() == Aftermath(2, 3, 0.4)
    assert book.aftermath(but="two") == Aftermath(2, 0, 0.4)


def test_a_pause_that_may_not_be_short_is_not_whatever_is_accepted() -> None:
    book = come(BOOK, "one", 40.0, refused_in=1, pause=300.0)
    book = come(book, "two", 41.0, had=Had(2, Aftermath(accepted=9)))
    assert book.row.until == 340.0


def test_a_short_pause_that_is_over_when_that_becomes_known_ends_then() -> None:
    book = come(BOOK, "one", 40.0, refused_in=1, pause=300.0, short=30.0)
    assert come(book, "two", 95.0, had=Had(2, Aftermath(accepted=2))).row.until == 95.0


def test_what_was_accepted_in_an_earlier_era_shortens_nothing() -> None:
    book = come(BOOK, "two", 39.0, had=Had(1, Aftermath(accepted=9)))
    book = come(book, "one", 40.0, refused_in=1, pause=300.0, short=30.0)
    book = come(book, "two", 41.0, had=Had(1, Aftermath(accepted=9)))
    assert (book.row.until, book.had) == (340.0, {})


def test_all_know_whether_more_is_tried_than_is_known_to_be_safe() -> None:
    book = replace(BOOK, lead=Lead("one", 7, 50.0))
    tried = come(book, "one", 40.0, word=Word(7, State.RAMPING, 10.0, exploring=True))
    assert (tried.row.exploring, tried.row.serial) == (True, ROW.serial + 1)
    assert not come(tried, "two", 41.0, refused_in=1, pause=30.0).row.exploring


def test_one_leads_and_each_lead_has_a_higher_token() -> None:
    probing = come(replace(BOOK, row=ROW._replace(state=State.PAUSED, until=10.0)), "one", 10.0, need=1)
    assert probing.row.state is State.PROBING
    assert probing.lead == Lead("one", 8, 10.0 + LEASE)
    assert come(probing, "two", 11.0, need=1).lead == probing.lead
    assert come(probing, "one", 12.0, need=1).lead == Lead("one", 8, 12.0 + LEASE)
    assert come(probing, "two", 16.0, need=1).lead == Lead("two", 9, 16.0 + LEASE)


def test_no_lead_before_the_pause_is_over() -> None:
    assert come(replace(BOOK, row=ROW._replace(state=State.PAUSED, until=10.0)), "one", 9.9, need=1).lead is None


def test_only_the_last_lead_has_a_say() -> None:
    book = replace(BOOK, lead=Lead("one", 7, 50.0))
    assert come(book, "one", 40.0, word=Word(7, State.RAMPING, 20.0)).row.ceiling == 20.0
    assert come(book, "one", 40.0, word=Word(6, State.RAMPING, 20.0)).row == ROW
    assert come(book, "two", 40.0, word=Word(7, State.RAMPING, 20.0)).row == ROW
    assert come(book, "one", 50.0, word=Word(7, State.RAMPING, 20.0)).row == ROW


def test_the_lead_goes_to_who_has_mail_to_probe_with() -> None:
    book = come(come(BOOK, "one", 1.0), "two", 2.0, need=5)
    assert book.lead is not None
    assert book.lead.host == "one"  # nobody had any
    assert come(book, "one", 3.0).lead is None
    assert come(replace(book, lead=None), "three", 3.0).lead is None


def test_the_budget_is_lent_by_need_and_never_more_than_there_is() -> None:
    first = come(BOOK, "one", 1.0, need=30)
    assert first.lent()["one"].rate == pytest.approx(10.0)
    second = come(first, "two", 2.0, need=10)
    assert second.lent()["two"].rate == pytest.approx(0.0)  # all is lent until `one` comes again
    third = come(come(second, "one", 3.0, need=30), "two", 4.0, need=10)
    assert third.lent()["one"].rate == pytest.approx(7.5)
    assert third.lent()["two"].rate == pytest.approx(2.5)
    fourth = come(come(third, "one", 5.0), "two", 6.0, need=10)  # gives back what it does not need
    assert fourth.lent()["two"].rate == pytest.approx(10.0)


def test_what_hosts_on_their_own_may_take_is_not_lent() -> None:
    book = come(BOOK, "one", 1.0, standing=Standing(quorate=True, reserved=0.2), need=1)
    assert book.lent()["one"].rate == pytest.approx(8.0)


def test_a_minority_lends_nothing() -> None:
    book = come(BOOK, "one", 1.0, standing=Standing(quorate=False, reserved=0.5), need=1)
    assert (book.lead, book.lent()) == (None, {})


def test_an_empty_store_learns_from_who_comes_and_lends_when_all_is_run_out() -> None:
    book = come(None, "one", 100.0, need=1)
    assert (book.row.serial, book.lead, book.lent()) == (ROW.serial, None, {})
    newer = attend(book, Wish("two", ROW._replace(serial=6, ceiling=3.0), need=1), ALL_HERE, server="store", at=101.0)
    assert newer.row.ceiling == 3.0
    settled = come(newer, "one", 100.0 + ALONE_AFTER, need=1)
    assert settled.lead is not None
    assert settled.lead.token > ROW.serial


def test_another_store_keeps_the_rest_of_a_pause_by_its_own_clock() -> None:
    paused = replace(BOOK, row=ROW._replace(state=State.PAUSED, since=9_000.0, until=9_060.0))
    assert attend(paused, Wish("one", paused.row), ALL_HERE, server="new", at=50.0).row.until == 110.0


def asking(host: str, met: float = NEVER, alone: float = 0.0, server: str = "store") -> Asking:
    return Asking(host, server, met, met, alone, {})


def test_the_parts_of_hosts_on_their_own_are_one_budget_at_most() -> None:
    roll = None
    for host in ("one", "two", "three", "four", "five"):
        roll = enrol(roll, asking(host), server="store", at=1.0)
    assert roll is not None
    assert sum(member.alone for member in roll.members.values()) <= 1.0
    for host in ("one", "two", "three", "four", "five"):
        roll = enrol(roll, asking(host), server="store", at=2.0)
    assert sum(member.alone for member in roll.members.values()) == pytest.approx(REDUCED)


def test_a_part_that_a_host_may_still_take_stays_on_the_roll() -> None:
    roll = enrol(enrol(None, asking("one"), server="store", at=1.0), asking("two"), server="store", at=1.0)
    assert enrol(roll, asking("one", alone=REDUCED), server="store", at=2.0).members["one"].alone == REDUCED


def test_who_does_not_prove_an_answer_is_counted_as_cut_off() -> None:
    roll = Roll("store", 0.0, {"one": Member(100.0, 100.0, 0.25), "two": Member(100.0, 94.0, 0.25)})
    assert roll.standing(at=100.0) == Standing(quorate=True, reserved=0.25)
    assert roll.standing(at=106.0) == Standing(quorate=False, reserved=0.5)
    assert roll.without("two").standing(at=100.0) == Standing(quorate=True, reserved=0.0)


def on_its_own(state: State) -> tuple[Replica, Contact]:
    contact = Contact("one", alone=0.25, alone_at=100.0)
    return Replica(ROW._replace(state=state), pause_ends=90.0), contact


def test_a_host_that_hears_nothing_goes_on_at_its_part_but_not_before_the_rest_is_run_out() -> None:
    replica, contact = on_its_own(State.RAMPING)
    assert replica.rate(contact, now=99.9) == 0.0
    assert replica.rate(contact, now=100.0) == pytest.approx(2.5)


def test_a_host_on_its_own_probes_before_it_ramps_and_pauses_when_refused() -> None:
    replica, contact = on_its_own(State.PAUSED)
    assert not replica.may_probe(contact, now=99.9)
    assert replica.may_probe(contact, now=100.0)
    assert replica.rate(contact, now=100.0) == 0.0
    replica.probed_alone()
    assert replica.rate(contact, now=100.0) == pytest.approx(2.5)
    replica.refused(1, 60.0, rule="r", line="l", now=110.0)
    assert replica.rate(contact, now=110.0) == 0.0
    assert not replica.may_probe(contact, now=169.9)
    assert replica.may_probe(contact, now=170.0)


def test_a_pause_that_is_heard_of_ends_what_was_lent() -> None:
    replica = Replica(ROW, pause_ends=0.0)
    contact = Contact("one")
    book = come(BOOK, "one", 1_000.0, need=1)
    replica.came_from(book, "one", at=1_000.0, sent=5.0, now=6.0)
    assert replica.rate(contact, now=6.0) == pytest.approx(10.0)
    assert replica.token(now=6.0) == 8
    paused = book.row.changed(State.PAUSED, host="two", at=1_001.0, pause=30.0)
    assert replica.heard(paused, at=1_002.0, now=9.0)
    assert replica.rate(contact, now=9.0) == 0.0
    assert replica.token(now=9.0) is None
    assert replica.pause_ends == 9.0 + 29.0


def test_a_lease_runs_from_when_it_was_asked_for() -> None:
    replica = Replica(ROW, pause_ends=0.0)
    replica.came_from(come(BOOK, "one", 1_000.0, need=1), "one", at=1_000.0, sent=5.0, now=10.0)
    assert replica.token(now=5.0 + LEASE - 0.1) == 8
    assert replica.token(now=5.0 + LEASE) is None
    assert replica.rate(Contact("one"), now=5.0 + LEASE) == 0.0


def test_a_roll_that_is_old_writes_no_book() -> None:
    contact = Contact("one")
    contact.answered(enrol(None, asking("one"), server="store", at=1.0), at=1.0, sent=50.0, now=50.4)
    assert contact.is_fresh(now=51.0)
    assert not contact.is_fresh(now=51.1)


def test_who_was_never_told_of_a_majority_may_be_going_on_alone() -> None:
    roll = Roll("store", 0.0, {"one": Member(NEVER, NEVER, 0.5)})
    met = enrol(roll, Asking("one", "store", 99.0, NEVER, 0.5, {}), server="store", at=100.0)
    assert met.standing(at=100.0) == Standing(quorate=True, reserved=0.5)


def test_who_was_not_heard_of_for_a_day_is_no_member() -> None:
    roll = Roll("store", 0.0, {"gone": Member(NEVER, NEVER, 0.2), "late": Member(50_000.0, 50_000.0, 0.2)})
    assert set(enrol(roll, asking("one"), server="store", at=86_399.0).members) == {"gone", "late", "one"}
    assert set(enrol(roll, asking("one"), server="store", at=86_400.0).members) == {"late", "one"}


def test_who_comes_to_a_roll_or_is_forgotten_can_be_told_without_writing_it() -> None:
    random, at, found = Random(1), 1e9, []
    for _ in range(500):
        ages = [random.choice([0.0, 5.0, FORGOTTEN_AFTER, 2 * FORGOTTEN_AFTER]) for _ in range(3)]
        met = {name: random.choice([at - age, NEVER]) for name, age in zip(("one", "two", "three"), ages, strict=True)}
        members = {name: Member(met[name], NEVER, 0.1) for name in random.sample(list(met), random.randrange(4))}
        settled = random.choice([5.0, -5.0, -FORGOTTEN_AFTER, -2 * FORGOTTEN_AFTER])
        roll = Roll(random.choice(["store", "store", "another"]), at + settled, members)
        known = {name: Member(NEVER, NEVER, 0.1) for name in random.sample(list(met), random.randrange(4))}
        asks = Asking(random.choice(["one", "four"]), "store", at, at, 0.1, known)
        names = enrol(roll, asks, server="store", at=at).members.keys()
        found.append(concerns_one(roll, asks, server="store", at=at))
        assert found[-1] == (roll.server == "store" and names == roll.members.keys() | {asks.host})
    assert 100 < sum(found) < 400


def test_who_knows_nothing_of_a_key_speaks_of_now() -> None:
    opened = ROW._replace(state=State.CLOSED, era=0, serial=0, rule="google/new", line="new")
    book = come(
        replace(BOOK, row=ROW._replace(state=State.CLOSED)), "two", 40.0, known=opened, refused_in=0, pause=30.0
    )
    assert (book.row.state, book.row.era, book.row.until) == (State.PAUSED, 2, 70.0)


def test_what_no_store_ever_had_begins_with_the_store_s_clock() -> None:
    kept = ROW._replace(state=State.PAUSED, serial=0, since=0.0, until=30.0)
    row = attend(None, Wish("one", kept), ALL_HERE, server="store", at=9_000.0).row
    assert (row.serial, row.since, row.until) == (1, 9_000.0, 9_030.0)


def test_what_an_admin_orders_is_done_whoever_leads() -> None:
    led = replace(BOOK, lead=Lead("one", 7, 50.0))
    assert come(led, "two", 40.0, order=State.CLOSED).row.state is State.CLOSED
    paused = come(led, "two", 40.0, order=State.PAUSED, pause=60.0)
    assert (paused.row.state, paused.row.until, paused.row.era, paused.lead) == (State.PAUSED, 100.0, 2, None)
    assert come(paused, "two", 41.0, order=State.PAUSED, pause=600.0).row.until == 641.0
    late = attend(paused, Wish("one", ROW, order=State.CLOSED), ALL_HERE, server="store", at=42.0)
    assert late.row.state is State.PAUSED  # was refused since they looked


def test_counts_of_what_was_accepted_are_passed_on() -> None:
    book = come(BOOK, "one", 1.0, need=1, accepted=41)
    assert Book.read(book.text()).lent()["one"].accepted == 41
    older = json.loads(book.text())
    older["shares"]["one"] = older["shares"]["one"][:3]
    assert Book.read(json.dumps(older)).lent()["one"].accepted == 0


def test_a_host_that_never_had_a_majority_goes_on_alone_too() -> None:
    contact = Contact("one")
    roll = Roll("store", 0.0, {"two": Member(NEVER, NEVER, 0.2), "three": Member(NEVER, NEVER, 0.2)})
    contact.answered(enrol(roll, asking("one"), server="store", at=100.0), at=100.0, sent=5.0, now=5.0)
    assert not contact.standing.quorate
    assert not contact.is_alone(now=5.0 + ALONE_AFTER - 0.1)
    assert contact.is_alone(now=5.0 + ALONE_AFTER)


FAR = 10 * 86_400.0
"""Seconds: the clock of the store was so far ahead, or somebody wrote so."""


@pytest.mark.parametrize(
    "ahead",
    [
        replace(BOOK, lead=Lead("gone", 7, FAR)),
        replace(BOOK, shares={"gone": Share(10.0, 5, FAR)}),
        replace(BOOK, settled=FAR),
        replace(BOOK, row=ROW._replace(state=State.PAUSED, since=FAR, until=FAR + 60.0)),
        replace(BOOK, row=ROW._replace(state=State.PROBING, since=FAR), lead=Lead("gone", 7, FAR)),
    ],
    ids=["lead", "share", "settled", "pause", "probe"],
)
def test_what_a_clock_wrote_that_was_set_back_since_keeps_nobody_waiting(ahead: Book) -> None:
    book, at = ahead, 0.0
    while at < 60.0 + GRACE + 2 * LEASE:
        book, at = come(book, "one", at, need=5), at + 2.0
    assert book.lead is not None
    assert book.lead.host == "one"
    assert book.row.state is (ahead.row.state if ahead.row.state is not State.PAUSED else State.PROBING)
    if book.row.state is State.RAMPING:
        assert book.lent()["one"].rate == ROW.ceiling
    began = come(ahead, "one", 0.0, need=5)
    assert began.lead is None  # whoever leads by that book goes on until that runs out
    assert not began.lent()


def test_no_pause_is_longer_than_a_week_nor_than_it_was() -> None:
    told = ROW._replace(state=State.PAUSED, since=1_000.0, until=FAR + FAR)
    paused = Row.of(told.values())
    assert paused.left(at=1_000.0) == LONGEST_PAUSE
    replica = Replica(ROW, pause_ends=0.0)
    replica.heard(paused._replace(serial=9, until=1_060.0), at=-FAR, now=5.0)
    assert replica.pause_ends == 65.0
    ordered = come(BOOK, "one", 0.0, order=State.PAUSED, pause=FAR)
    assert ordered.row.until == LONGEST_PAUSE


def test_who_was_there_by_a_clock_that_was_set_back_since_has_to_come_again() -> None:
    roll = Roll(
        "store", FAR, {"gone": Member(FAR, FAR, 0.1), "one": Member(FAR, FAR, 0.1), "two": Member(FAR, FAR, 0.1)}
    )
    assert not roll.standing(at=0.0).quorate
    assert roll.standing(at=0.0).reserved == pytest.approx(0.3)
    for at in (0.0, 1.0):
        for host in ("one", "two"):
            met = FAR if not at else 0.5
            roll = enrol(roll, Asking(host, "store", met, met, 0.1, {}), server="store", at=at)
    assert roll.standing(at=1.0).quorate
    assert roll.standing(at=1.0).reserved == pytest.approx(0.1)
    assert set(roll.forgetting("gone", at=1.0).members) == {"one", "two"}


def test_a_pause_that_is_ordered_again_is_a_new_one() -> None:
    days = 86_400.0
    first = ROW.changed(State.PAUSED, host="mx1", at=0.0, pause=5 * days)
    again = first.changed(State.PAUSED, host="mx1", at=4 * days, pause=5 * days)
    assert Row.read(again.text()).until == 9 * days
    assert Row.read(again.text()).left(at=7 * days) == 2 * days

"""One page for one trouble, whichever alert showed it first on which host."""

from collections.abc import Sequence

import pytest

from policies.figures import Kind
from policies.fleet.terms import GRACE
from policies.fleet.trouble import ENTERED, PAGES_MAX, Entry, Troubles
from policies.note import NoteKind
from sidecar.fleet import pages
from sidecar.fleet.page_names import TROUBLES
from sidecar.fleet.redis_store import Read, Swap
from tests.fleet_memory import Way
from tests.fleet_pages_world import (
    CHAIN,
    KEY,
    OTHER,
    REFUSED,
    SENDER,
    SHARE,
    YAHOO,
    Fleet,
    here,
)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "in_thread", here)


@pytest.fixture(name="fleet")
def _fleet() -> Fleet:
    fleet = Fleet()
    fleet.passes(GRACE + 2.0)
    return fleet


def test_the_same_trouble_is_one_page_whichever_alert_showed_it_first(fleet: Fleet) -> None:
    one, two, three = fleet.hosts
    one.alerts, two.alerts, three.alerts = (SHARE,), (SENDER,), (OTHER,)
    one.sees()
    fleet.passes(4.0)
    two.sees()
    fleet.passes(4.0)
    assert fleet.people.messages == [NoteKind.OPENED]
    assert two.page == KEY
    assert any(KEY in each for each in two.heard)
    three.sees()
    fleet.passes(4.0)
    assert fleet.people.messages == [NoteKind.OPENED] * 2  # another trouble
    assert {note.dedup_key for *_, note in fleet.people.told} == {KEY, OTHER[0]}
    one.severity = None
    fleet.passes(60.0)
    assert fleet.people.messages == [NoteKind.OPENED] * 2
    two.severity = None
    fleet.passes(6.0)
    (over,) = (note for *_, kind, note in fleet.people.told if kind is NoteKind.RESOLVED)
    assert over.dedup_key == KEY  # for a pager, who has opened it


def test_what_an_incident_is_about_later_is_known_as_well(fleet: Fleet) -> None:
    one, two, three = fleet.hosts
    one.alerts, two.alerts, three.alerts = (SHARE,), (SENDER,), (CHAIN,)
    one.sees()
    fleet.passes(4.0)
    one.alerts = (SHARE, SENDER)
    fleet.passes(4.0)
    three.sees()  # of the sender, not of the provider
    fleet.passes(4.0)
    assert fleet.people.messages == [NoteKind.OPENED]


def test_two_that_see_it_in_one_moment_have_one_page(fleet: Fleet) -> None:
    fleet.hosts[0].alerts, fleet.hosts[1].alerts = (SENDER,), (SHARE,)
    for host in fleet.hosts[:2]:
        host.sees()
    fleet.passes(30.0)
    assert fleet.people.messages == [NoteKind.OPENED]


def test_an_incident_stays_at_its_page_over_a_restart_and_a_store_that_forgot(fleet: Fleet) -> None:
    one, two, three = fleet.hosts
    one.alerts, two.alerts, three.alerts = (SHARE,), (SENDER,), (SENDER,)
    one.sees()
    fleet.passes(4.0)
    two.sees()
    fleet.passes(4.0)
    two.restart()
    fleet.memory.texts, fleet.memory.life = {}, 2
    one.running = False
    fleet.passes(30.0)
    assert two.page == KEY
    three.sees()
    one.running = True
    fleet.passes(30.0)
    assert three.page == KEY
    assert fleet.people.messages == [NoteKind.OPENED]


def test_what_merely_comes_at_one_time_is_one_trouble_only_where_it_is_of_two_kinds(fleet: Fleet) -> None:
    one, two, three = fleet.hosts
    one.alerts, two.alerts, three.alerts = (SHARE,), (YAHOO,), (REFUSED,)
    for host in fleet.hosts:
        host.sees()
        fleet.passes(4.0)
    assert {note.dedup_key for *_, note in fleet.people.told} == {SHARE[0], YAHOO[0]}
    assert three.page in {SHARE[0], YAHOO[0]}


def test_what_goes_on_under_the_same_key_is_the_page_whatever_else_is_like_it(fleet: Fleet) -> None:
    one, two, three = fleet.hosts
    one.alerts, two.alerts, three.alerts = (SHARE,), (SENDER,), (SENDER,)
    two.sees()
    fleet.passes(4.0)
    fleet.memory.texts[TROUBLES] = ""  # as a host of an older version, which enters nothing
    one.sees()
    fleet.passes(4.0)
    three.sees()
    fleet.passes(4.0)
    assert three.page == SENDER[0]
    assert fleet.people.messages == [NoteKind.OPENED] * 2


def test_where_others_are_always_quicker_people_are_told_all_the_same(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = Way.swap

    async def beaten(way: Way, swaps: Sequence[Swap]) -> list[Read | None]:
        if TROUBLES in {swap.name for swap in swaps}:
            known = Troubles.read(way.memory.texts.get(TROUBLES) or "{}").entries
            others = {**known, f"other-{len(known)}": Entry(way.memory.at + ENTERED, ())}
            way.memory.texts[TROUBLES] = Troubles(others).text()
        return await swapped(way, swaps)

    monkeypatch.setattr(Way, "swap", beaten)
    fleet.hosts[0].sees()
    fleet.passes(4.0)
    assert KEY not in Troubles.read(fleet.memory.texts[TROUBLES]).entries
    assert fleet.people.messages == [NoteKind.OPENED]


def test_of_what_was_entered_the_latest_is_kept(fleet: Fleet) -> None:
    troubles, (host, *_) = Troubles(), fleet.hosts
    for number in range(PAGES_MAX + 5):
        host.alerts, host.number = ((f"key-{number}", Kind.DOMAIN, f"{number}.example"),), number + 1
        troubles = troubles.entered(f"key-{number}", host.incidents()[0], at=float(number))
    assert len(troubles.entries) == PAGES_MAX
    assert Troubles.read(troubles.text()) == troubles
    again = troubles.entered(f"key-{number}", host.incidents()[0], at=float(number) + ENTERED / 2)
    assert again is troubles  # nothing to write


def test_what_is_over_is_no_page_for_what_is_merely_like_it(fleet: Fleet) -> None:
    one, two, _ = fleet.hosts
    one.alerts, two.alerts = (SHARE,), (SENDER,)
    one.sees()
    fleet.passes(30.0)
    one.severity = None
    fleet.passes(4.0)
    two.sees()
    fleet.passes(4.0)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED, NoteKind.OPENED]
    assert two.page == SENDER[0]


def test_troubles_that_a_clock_entered_which_was_set_back_since_keep_no_others_away(fleet: Fleet) -> None:
    one, two, _ = fleet.hosts
    far = fleet.memory.at + 10 * 86_400.0
    fleet.memory.texts[TROUBLES] = Troubles({f"old-{number}": Entry(far, ()) for number in range(PAGES_MAX)}).text()
    one.alerts, two.alerts = (SHARE,), (SENDER,)
    one.sees()
    fleet.passes(4.0)
    two.sees()
    fleet.passes(4.0)
    assert set(Troubles.read(fleet.memory.texts[TROUBLES]).entries) == {KEY}
    assert fleet.people.messages == [NoteKind.OPENED]

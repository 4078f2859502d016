"""Whole hosts of a fleet, mail and all, against one hidden limit: what they let out together, and what they lose."""

import bisect
import math

import pytest

from policies.commands import Change, Release
from policies.fleet.book import Book, Glance, Lead
from policies.fleet.host import CROWD, RECONCILED
from policies.fleet.row import Row
from policies.fleet.terms import ALONE_AFTER, LEASE
from policies.subqueue import State
from tests.fleet_world import Fleet
from tests.test_engine import BURST, Bucket
from tests.world import World

RATE, AT_ONCE = 2.0, 60.0
"""Of the provider: messages/s, and a bucket's size."""


class Limit(Bucket):
    """Remembers when it was tried."""

    def __init__(self, rate: float = RATE, burst: float = AT_ONCE) -> None:
        super().__init__("burst.example", rate=rate, burst=burst)
        self.tried: list[float] = []

    def __call__(self, domain: str, provider: str, now: float) -> str | None:
        self.tried.append(now)
        return super().__call__(domain, provider, now)

    def most_in_a_minute(self, *, after: float) -> int:
        tried = sorted(time for time in self.tried if time > after)
        return max(bisect.bisect_right(tried, time + 60) - place for place, time in enumerate(tried))


def burst(count: int, each: int) -> tuple[Fleet, Limit]:
    """A fleet of which every host has mail of the one domain."""
    limit = Limit()
    fleet = Fleet(count, limit)
    for world in fleet.worlds:
        send(world, each)
    return fleet, limit


def send(world: World, count: int) -> None:
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    for number in range(count):
        world.submit("news@burst.example", [f"user{number}@gmail.com"])


def told(world: World, kind: str) -> list[Change]:
    return [change for change in world.engine.telling.changes if change.kind == kind]


def drained(fleet: Fleet, total: int, *, within: float) -> float:
    began = fleet.now
    while fleet.delivered < total:
        fleet.run(10)
        assert fleet.now - began < within, (fleet.delivered, fleet.states(BURST))
    assert fleet.lost == fleet.duplicates == 0
    return fleet.now - began


def test_five_hosts_drain_as_one_does_and_keep_to_one_budget() -> None:
    one, single = burst(1, 1500)
    alone = drained(one, 1500, within=7_200)
    fleet, limit = burst(5, 300)
    fleet.run(30)
    first = fleet.deferrals  # what was under way on five hosts when the first was refused
    together = drained(fleet, 1500, within=7_200) + 30
    assert together <= 1.3 * alone
    assert limit.most_in_a_minute(after=limit.tried[0] + 30) <= 1.1 * (60 * RATE + AT_ONCE)
    assert single.most_in_a_minute(after=single.tried[0] + 30) <= 1.1 * (60 * RATE + AT_ONCE)
    assert (fleet.deferrals - first) / 1500 <= 0.1


def test_more_hosts_than_may_come_at_once_drain_too() -> None:
    fleet, limit = burst(CROWD + 2, 20)
    fleet.run(30)
    first, total = fleet.deferrals, 20 * (CROWD + 2)
    assert all(host.is_of_many for host in fleet.hosts)
    drained(fleet, total, within=3_600)
    assert limit.most_in_a_minute(after=limit.tried[0] + 30) <= 1.1 * (60 * RATE + AT_ONCE)
    assert (fleet.deferrals - first) / total <= 0.1


def test_a_look_suffices_while_a_book_is_as_known_and_somebody_leads() -> None:
    fleet, _ = burst(2, 100)
    fleet.run(20)
    host = fleet.hosts[0]
    row, token = host.parts[BURST].replica.row, 9
    for state, lead, settled, suffices in (
        (State.PAUSED, None, 0.0, True),
        (State.PROBING, None, 0.0, False),
        (State.PROBING, Lead("host-1", token, fleet.at - 1.0), 0.0, False),
        (State.PROBING, Lead("host-1", token, fleet.at + 1.0), 0.0, True),
        (State.RAMPING, Lead("host-1", token, fleet.at + 1.0), 0.0, False),
        (State.PROBING, None, fleet.at - 1.0, False),
        (State.PROBING, None, fleet.at + 1.0, True),  # nobody is lent the lead before
        (State.RAMPING, None, fleet.at + 1.0, True),
    ):
        row = row._replace(state=state, serial=row.serial + 1, until=fleet.at + 60.0)
        host.heard(row, at=fleet.at, now=fleet.now)
        glance = Glance.at(Book(fleet.store.server, settled, row, token, lead).text())
        assert glance.row
        assert host.looked(BURST, glance, at=fleet.at) is suffices, (state, lead, settled)
        newer = Glance.at(Book(fleet.store.server, settled, row._replace(serial=99), token, lead).text())
        assert not host.looked(BURST, newer, at=fleet.at)


@pytest.mark.parametrize("text", ["", "{}", '{"lead":["a",1,1.2.3],"row":{},"server":"s"}', "[1]"])
def test_a_glance_at_what_is_no_book_shows_nothing(text: str) -> None:
    assert Glance.at(text) == ("", -math.inf, -math.inf)


def test_a_glance_at_a_text_that_begins_again_and_again_takes_no_longer_than_reading_it() -> None:
    text = (
        '"lead":null,"row":{' * 50_000
    )  # as long as any; looked through from each beginning it takes a quarter of an hour
    assert Glance.at("{" + text) == ("", -math.inf, -math.inf)


def test_a_pause_that_the_fleet_heard_of_late_is_no_probe_that_failed() -> None:
    fleet, limit = burst(2, 100)
    fleet.store.answers = False
    fleet.run(5)
    fleet.store.answers = True
    fleet.run(20)
    tried, subs = len(limit.tried), [world.engine.subqueues.get(BURST) for world in fleet.worlds]
    while len(limit.tried) == tried:
        fleet.run(0.5)
    assert [sub.machine.snapshot()["longest_failed"] for sub in subs if sub is not None] == [0.0, 0.0]
    drained(fleet, 200, within=7_200)


def test_a_pause_that_ends_on_one_host_before_the_fleet_s_is_no_probe_that_failed() -> None:
    fleet, limit = burst(2, 100)
    fleet.run(20)
    tried, (_, second) = len(limit.tried), [world.engine.subqueues.get(BURST) for world in fleet.worlds]
    assert second is not None
    second.machine.resume(now=fleet.now)
    fleet.run(60)
    assert len(limit.tried) == tried  # the fleet's pause holds
    assert second.machine.snapshot()["longest_failed"] == 0.0
    drained(fleet, 200, within=7_200)


def test_a_host_that_sends_nothing_yet_holds_what_another_was_refused() -> None:
    limit = Limit()
    fleet = Fleet(2, limit)
    send(fleet.worlds[0], 100)
    fleet.run(5)
    assert fleet.states(BURST) == ["paused", "paused"]
    tried = len(limit.tried)
    send(fleet.worlds[1], 50)
    fleet.run(5)
    assert len(limit.tried) == tried
    (opened,) = told(fleet.worlds[1], "opened")
    assert opened.by_whom == "host host-0"
    assert opened.line


def test_hosts_of_a_fleet_release_each_at_a_time_of_its_own() -> None:
    fleet, _ = burst(3, 200)
    phases: list[set[float]] = [set() for _ in fleet.worlds]
    seen = [0] * len(fleet.worlds)

    def look() -> None:
        for number, world in enumerate(fleet.worlds):
            released = [command for command in world.commands[seen[number] :] if isinstance(command, Release)]
            seen[number] = len(world.commands)
            if released and set(fleet.states(BURST)) == {"ramping"}:
                phases[number].add(round(world.now % 1, 2))

    fleet.run(700, step=0.125, each=look)
    assert all(max(times) - min(times) <= 0.26 for times in phases), phases
    assert len({min(times) for times in phases}) == len(phases), phases


def test_one_probe_at_a_time_leaves_the_whole_fleet() -> None:
    fleet, limit = burst(5, 100)
    fleet.run(5)
    while set(fleet.states(BURST)) <= {"paused"}:
        fleet.run(1)
    tried = len(limit.tried)
    while "ramping" not in fleet.states(BURST):
        fleet.run(0.5)
    assert len(limit.tried) == tried + 1


@pytest.mark.parametrize("for_seconds", [LEASE, 120.0])
def test_a_store_that_is_gone_while_they_ramp_lets_out_no_more_and_stalls_nobody(for_seconds: float) -> None:
    fleet, limit = burst(3, 400)
    while "ramping" not in fleet.states(BURST):
        fleet.run(1)
    fleet.run(30)
    ceiling = max(host.parts[BURST].replica.row.ceiling for host in fleet.hosts)
    fleet.store.answers = False
    gone, delivered = fleet.now, fleet.delivered
    fleet.run(for_seconds)
    spent = len([time for time in limit.tried if time > gone])
    assert spent <= 1.1 * ceiling * for_seconds + 2 * len(fleet.hosts)
    if for_seconds > 2 * ALONE_AFTER:
        assert fleet.delivered > delivered + 0.2 * ceiling * (for_seconds - 2 * ALONE_AFTER)
    fleet.store.answers = True
    drained(fleet, 1200, within=7_200)


def test_an_empty_store_learns_from_the_hosts_where_they_stand() -> None:
    fleet, _ = burst(3, 100)
    fleet.run(20)
    assert fleet.states(BURST) == ["paused"] * 3
    fleet.restart()
    fleet.run(60)
    assert fleet.states(BURST) == ["paused"] * 3
    assert fleet.hosts[0].parts[BURST].replica.row.era == 1  # no new refusal was made of it
    drained(fleet, 300, within=7_200)


def test_what_an_empty_store_lacks_one_of_many_hosts_tells_at_once_and_the_others_look_at_times_of_their_own() -> None:
    fleet, _ = burst(CROWD + 2, 20)
    fleet.run(10)
    assert set(fleet.states(BURST)) == {"paused"}
    rows = {host.parts[BURST].replica.row for host in fleet.hosts}
    for host in fleet.hosts:
        host.urgent.clear()
        host.found({}, at=fleet.at, now=fleet.now)
    assert [host.name for host in fleet.hosts if BURST in host.urgent] == [row.host for row in rows]
    waiting = [host for host in fleet.hosts if BURST not in host.urgent]
    waits = {host.parts[BURST].ask_again(now=host.steady()) - host.steady() for host in waiting}
    assert len(waits) == len(waiting) > CROWD
    assert all(0.0 <= wait <= RECONCILED for wait in waits)


def test_a_host_that_dies_with_the_lead_holds_up_nobody() -> None:
    fleet, _ = burst(3, 200)
    fleet.run(10)
    while not any(host.parts[BURST].replica.token(now=host.steady()) for host in fleet.hosts):
        fleet.run(1)
    leader = next(host for host in fleet.hosts if host.parts[BURST].replica.token(now=host.steady()))
    dead = fleet.hosts.index(leader)
    held = len(fleet.worlds[dead].engine.books.ours)
    fleet.kill(dead)
    drained(fleet, 2 * 200, within=7_200)
    assert held


def test_what_a_restart_finds_open_is_as_the_fleet_has_it() -> None:
    fleet, _ = burst(2, 100)
    fleet.run(20)
    while "ramping" not in fleet.states(BURST):
        fleet.run(1)
    era = fleet.hosts[1].parts[BURST].replica.row.era
    fleet.reborn(0)
    fleet.run(30)
    assert fleet.states(BURST) == ["ramping", "ramping"]
    assert fleet.hosts[1].parts[BURST].replica.row.era == era  # a restart pauses nobody
    drained(fleet, 200, within=7_200)


def test_a_pause_by_hand_holds_for_all_and_so_does_its_end() -> None:
    fleet = Fleet(3, lambda *_: None)
    fleet.run(4)
    fleet.worlds[0].engine.orders.pause(BURST, 600.0, by_whom="postmaster", now=fleet.now)
    fleet.run(4)
    assert fleet.states(BURST) == ["paused"] * 3
    fleet.worlds[1].engine.orders.pause(BURST, 6_000.0, by_whom="postmaster", now=fleet.now)
    fleet.run(700)
    assert fleet.states(BURST) == ["paused"] * 3
    fleet.worlds[2].engine.orders.close(BURST, by_whom="postmaster", now=fleet.now)
    fleet.run(4)
    assert fleet.states(BURST) == ["closed"] * 3
    assert not any(host.parts for host in fleet.hosts)


def test_what_is_about_one_host_s_address_stays_there() -> None:
    key = BURST._replace(type="ip", value="192.0.2.1")
    fleet = Fleet(2, lambda *_: None)
    fleet.worlds[0].engine.orders.open(key, rule="google/rate-ip", line="line", now=fleet.now)
    fleet.run(10)
    assert fleet.states(key) == ["paused", "closed"]
    row = Row(key, State.PAUSED, 1.0, 1, 1, 0.0, 600.0, "google/rate-ip", "line", "stranger")
    fleet.hosts[1].heard(row, at=0.0, now=fleet.now)
    assert fleet.states(key) == ["paused", "closed"]


def test_what_was_said_and_not_answered_is_said_again_soon() -> None:
    fleet, _ = burst(2, 100)
    fleet.store.answers = False
    fleet.run(5)
    host = fleet.hosts[0]
    assert host.look([BURST]) == [BURST]
    host.wish(BURST)  # goes on its way, and no answer comes
    assert host.look([BURST]) == []
    fleet.run(2)
    assert host.look([BURST]) == [BURST]

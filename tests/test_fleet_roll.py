"""The roll in a real Redis: each host changes its own entry, whatever others do at that moment, and is told what all come to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from policies.fleet.roll import Asking, Member, Roll, enrol
from policies.fleet.terms import NEVER, REDUCED, SILENT_AFTER
from sidecar.fleet.exchange import ENTRIES_A_SECOND
from sidecar.fleet.redis_store import KEPT, Read, RedisStore, Swap
from sidecar.fleet.roll_store import ROLL, RollStore, Tally, outline
from tests.redis_world import Sidecar, rights, running_server, sidecars, store_at, until

pytestmark = pytest.mark.usefixtures("patient_store")

CLEAR = ("mx1", "b\\", "mx1.example.com", "gr\udcfcn", "ü", "[1]", "{mx1", "a:[1,2,3,")
UNCLEAR = ('q"uo"te', ',"mx1":[7,7,7]')
HOSTS = 40


@asynccontextmanager
async def stores(folder: Path, *options: str) -> AsyncIterator[tuple[RedisStore, RollStore]]:
    async with running_server(folder, *options) as server, store_at(server.url) as store:
        yield store, RollStore(store)


async def put(store: RedisStore, roll: Roll) -> tuple[Read, Roll]:
    """Write it as a host of an older version does: all of it; as it then stands, of the server's life."""
    (read,) = await store.read([ROLL])
    roll = replace(roll, server=read.server, settled=read.at)
    assert await store.swap([Swap(ROLL, read, roll.text())]) == [None]
    (read,) = await store.read([ROLL])
    return read, roll


def members(*names: str, alone: float = 0.1) -> Roll:
    return Roll("", 0.0, {name: Member(NEVER, NEVER, alone) for name in names})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("each_server")
def test_redis_makes_of_an_entry_what_the_roll_makes_of_it(tmp_path: Path, seed: int) -> None:
    async def scene() -> None:
        random = Random(seed)
        async with stores(tmp_path) as (store, rolls):
            read, roll = await put(store, members("mx1", alone=0.3))
            counted = roll
            for _ in range(80):
                at = read.at - random.uniform(0.0, 2 * SILENT_AFTER)
                host, life = random.choice(CLEAR), random.choice([read.server, read.server, "", "another"])
                part = random.choice([0.0, 0.0, 0.07, 0.2, 0.6])
                asking = Asking(host, life, random.choice([at, NEVER]), random.choice([at, NEVER]), part, {})
                told = await rolls.enter(read.server, outline(roll, roll.text()), asking, whole=random.random() < 0.5)
                assert isinstance(told, Tally)
                assert told.met == (roll.members[host].met if host in roll.members else None)
                before, roll = roll, enrol(roll, asking, server=read.server, at=told.at)
                counted = roll if told.age == 0.0 else counted
                parts = {name: (member.alone, name in before.members) for name, member in roll.members.items()}
                assert told.text or parts == {name: (it.alone, True) for name, it in before.members.items()}
                (stands,) = await store.read([ROLL])
                assert _rounded(Roll.read(stands.text)) == _rounded(roll)
                looked = await rolls.look(read.server, "mx1")
                assert isinstance(looked, Tally)
                for each in (told, looked):  # what it was when they were counted, which is not long ago
                    wanted = (roll if each.age == 0.0 else counted).standing(at=each.at - each.age)
                    assert each.standing.quorate is wanted.quorate
                    assert each.standing.reserved == pytest.approx(wanted.reserved)
                    assert each.age < 0.25
                roll = Roll.read(stands.text)

    asyncio.run(scene())


def _rounded(roll: Roll) -> Roll:
    """Parts are sums of many; in another order they are so in the last digit."""
    return replace(
        roll, members={name: member._replace(alone=round(member.alone, 12)) for name, member in roll.members.items()}
    )


@pytest.mark.parametrize("name", UNCLEAR)
def test_where_entries_cannot_be_told_from_names_the_roll_is_written_as_a_whole(tmp_path: Path, name: str) -> None:
    async def scene() -> None:
        async with stores(tmp_path) as (store, rolls):
            read, roll = await put(store, members("mx1", name))
            assert isinstance(await rolls.enter(read.server, "", Asking("mx1", "", NEVER, NEVER, 0.0, {})), Read)
            assert await rolls.rewrite(read, roll, roll.without("mx1")) is None
            (read,) = await store.read([ROLL])
            assert Roll.read(read.text) == roll.without("mx1")

    asyncio.run(scene())


def test_a_host_that_is_there_disturbs_no_other_and_one_that_comes_is_noticed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stores(tmp_path) as (store, rolls):
            read, roll = await put(store, members("one", "two", alone=0.25))
            known = outline(roll, read.text)
            for host in ("one", "two", "one"):
                told = await rolls.enter(read.server, known, Asking(host, read.server, read.at, read.at, 0.25, {}))
                assert isinstance(told, Tally)
                assert not told.text
            more = replace(roll, members={**roll.members, "three": Member(NEVER, NEVER, 0.1)})
            assert await rolls.rewrite(read, roll, more, "three") is None  # though the times are others by now
            told = await rolls.enter(read.server, known, Asking("one", read.server, read.at, read.at, 0.25, {}))
            assert isinstance(told, Tally)
            found = Roll.read(told.text).members
            assert found["one"] == found["two"] == Member(read.at, read.at, 0.25)
            assert found["three"].met == NEVER
            late = await rolls.rewrite(read, roll, roll.without("two"))
            assert late is not None
            assert Roll.read(late.text).members.keys() == {"one", "two", "three"}
            assert isinstance(await rolls.look("another", "one"), Read)
            assert await store.redis.ttl(store.key(ROLL)) > KEPT - 60

    asyncio.run(scene())


def test_an_account_with_the_rights_of_older_versions_still_enters(tmp_path: Path) -> None:
    async def scene() -> None:
        given = [right for right in rights("secret") if right not in {"+setrange", "+expire"}]
        async with running_server(tmp_path, "--user", "default", "off", "--user", "sidecar", *given) as server:
            url = f"unix://sidecar@{server.socket}"
            async with store_at(url, password="secret") as store:  # noqa: S106  # of this test's server
                read, _ = await put(store, members("one", "two"))
                for ago in (3.0, 2.0, 1.0):
                    at = read.at - ago
                    asking = Asking("one", read.server, at, at, 0.0, {})
                    told = await RollStore(store).enter(read.server, "", asking, whole=True)
                    assert isinstance(told, Tally)
                    assert Roll.read(told.text).members["one"] == Member(at, at, REDUCED / 2)

    asyncio.run(scene())


def test_forty_hosts_ask_little_and_agree(tmp_path: Path) -> None:
    """The short form of `benchmarks/fleet.py`, which says how soon as well: what each asks of Redis, and that all know."""

    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            sidecars(server.url, HOSTS) as fleet,
            store_at(server.url) as store,
        ):
            await until(lambda: all(map(_is_settled, fleet)), within=110.0)
            rounds = sum(each.exchange.rounds for each in fleet)
            await store.redis.config_resetstat()
            took = await until(lambda: sum(each.exchange.rounds for each in fleet) >= rounds + 5 * HOSTS)
            rounds = sum(each.exchange.rounds for each in fleet) - rounds
            asked = {name: stat["calls"] for name, stat in (await store.redis.info("commandstats")).items()}
            written = (await store.redis.info("stats"))["total_net_output_bytes"]
            assert asked["cmdstat_eval"] <= 3 * rounds  # few have to do again what another was quicker with
            assert asked["cmdstat_setrange"] >= 0.5 * rounds
            rolls = (
                took * ENTRIES_A_SECOND + HOSTS
            )  # that all hosts are told whole in that time, however many rounds they go
            assert written < rolls * 90 * HOSTS + 300 * rounds
            fleet[0].open()
            await until(lambda: all(each.state() == "paused" for each in fleet))
            server.kill()
            await server.start()
            await until(lambda: all(not each.exchange.silent for each in fleet))
            await until(lambda: fleet[0].agrees_with(fleet[1:]))
            assert {each.state() for each in fleet} == {"paused"}

    asyncio.run(scene())


def _is_settled(each: Sidecar) -> bool:
    """Whether the roll, as this host read it last, has all of them, with what is due to each."""
    roll = each.host.contact.roll
    near = pytest.approx(REDUCED / HOSTS, rel=0.06)
    return roll is not None and len(roll.members) == HOSTS and all(it.alone == near for it in roll.members.values())

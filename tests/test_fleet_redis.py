"""Hosts of a fleet at a real Redis: what one learns the others do at once, and what a store's troubles do to them."""

import asyncio
import signal
import time
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from policies.fleet.book import Book, Lead
from policies.fleet.roll import Roll
from policies.subqueue import State, SubQueue
from sidecar.fleet import redis_store
from sidecar.fleet.redis_store import RedisStore, StoreSilent, Swap
from sidecar.fleet.roll_store import ROLL
from sidecar.fleet.stream import BEGINNING, Stream
from sidecar.lab.ports import free_port
from tests.redis_world import (
    KEY,
    LINE,
    Server,
    Sidecar,
    certificate,
    rights,
    running_server,
    sidecars,
    slow_way,
    store_at,
    until,
    watched,
)

OTHER = KEY._replace(value="learned-alone.example.com")
QUICK = 600.0
"""Pauses of ten minutes take a second."""


@pytest.mark.usefixtures("patient_store", "each_server")
def test_a_text_is_swapped_only_for_what_was_read(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, store_at(server.url) as one, store_at(server.url) as two:
            (first,), (second,) = await one.read(["a"]), await two.read(["a"])
            assert first.text == ""
            assert first.at == pytest.approx(time.time(), abs=5.0)
            assert await one.swap([Swap("a", first, "one's")]) == [None]
            (quicker,) = await two.swap([Swap("a", second, "two's")])
            assert quicker is not None
            assert quicker.text == "one's"
            (other_life,) = await two.swap([Swap("a", quicker._replace(server="another"), "two's")])
            assert other_life is not None
            assert await two.names("a") == ["a"]
            assert await two.names("a*") == []

    asyncio.run(scene())


def test_who_only_observes_changes_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 2) as (one, two):
            two.engine.settings = two.engine.settings._replace(act=False)
            two.open(OTHER)
            one.open()
            await until(lambda: one.host.parts[KEY].shared)
            await asyncio.sleep(0)
            assert two.state() == "closed"
            assert OTHER not in one.host.parts

    asyncio.run(scene())


@pytest.mark.usefixtures("each_server")
def test_what_one_host_opens_is_paused_on_all(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 5) as fleet:
            for number in range(100):
                key = KEY._replace(value=f"{number}.example.com")
                fleet[number % 5].open(key)
                await until(lambda key=key: all(each.state(key) == "paused" for each in fleet))  # type: ignore[misc]
            sub = fleet[1].engine.subqueues.get(KEY._replace(value="0.example.com"))
            assert sub is not None
            assert sub.line == LINE
            opened = [change for change in fleet[1].engine.telling.changes if change.key == str(sub.key)]
            assert [change.by_whom for change in opened if change.kind == "opened"] == ["host host-0"]

    asyncio.run(scene())


def test_a_domain_that_is_no_text_is_shared_like_any_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 2) as (one, two):
            strange = KEY._replace(value="gr\udcfcn.example")
            for key in (strange, KEY):
                one.open(key)
                await until(lambda key=key: two.state(key) == "paused")  # type: ignore[misc]
            assert not one.exchange.silent

    asyncio.run(scene())


def test_one_host_leads_and_all_share_one_budget(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 5, scale=QUICK) as fleet:
            fleet[0].open()
            await until(lambda: all(each.state() == "paused" for each in fleet))
            for number, each in enumerate(fleet):
                _holds(each, 10 * number)
            await until(lambda: any(_may_probe(each) for each in fleet) and not any(map(_is_alone, fleet)))
            prober = next(each for each in fleet if _may_probe(each))
            assert sum(_may_probe(each) for each in fleet) == 1
            assert prober is not fleet[0]  # that one holds nothing
            machine = _machine(prober)
            machine.allowance(now=time.time(), held=10)
            assert machine.state is State.PROBING
            machine.accepted(began=time.time(), now=time.time())
            machine._pace.rate = 40.0
            await until(lambda: all(each.state() == "ramping" for each in fleet))
            await until(lambda: sum(map(_rate, fleet)) > 36.0 and not any(map(_is_alone, fleet)))
            assert sum(map(_rate, fleet)) <= machine.pace * 1.001
            assert _rate(fleet[0]) == 0.0
            server.kill()
            await until(lambda: not any(map(_rate, fleet)))  # leases end, and no flood follows
            await server.start()

    asyncio.run(scene())


def _holds(each: Sidecar, count: int) -> None:
    sub = each.engine.subqueues.get(KEY)
    assert sub is not None
    sub.held = count


def _machine(each: Sidecar) -> SubQueue:
    sub = each.engine.subqueues.get(KEY)
    assert sub is not None
    assert isinstance(sub.machine, SubQueue)
    return sub.machine


def _is_alone(each: Sidecar) -> bool:
    """Whether the store has been silent for it: then it goes by itself."""
    return bool(each.exchange.silent or each.exchange.status()["alone"])


def _may_probe(each: Sidecar) -> bool:
    return each.host.parts[KEY].may_probe()


def _rate(each: Sidecar) -> float:
    return each.host.parts[KEY].rate(50.0)


@pytest.mark.parametrize("trouble", ["killed and empty", "stopped"])
def test_the_last_known_state_is_kept_and_all_agree_again_after_a_trouble(tmp_path: Path, trouble: str) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 3) as fleet:
            fleet[0].open()
            await until(lambda: fleet[0].agrees_with(fleet[1:]))
            if trouble == "stopped":
                server.send(signal.SIGSTOP)
            else:
                server.kill()
            await until(lambda: all(each.exchange.silent for each in fleet))
            assert not any(_may_probe(each) or _rate(each) for each in fleet)
            assert {each.state() for each in fleet} == {"paused"}
            fleet[2].open(OTHER)
            if trouble == "stopped":
                await asyncio.sleep(10.0)  # long enough for leases to end and listeners to doubt
                server.send(signal.SIGCONT)
            else:
                await server.start()
            await until(
                lambda: fleet[0].agrees_with(fleet[1:]) and all(each.state(OTHER) == "paused" for each in fleet),
            )

    asyncio.run(scene())


def test_a_store_that_answers_too_late_is_silent_until_it_is_quick_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            slow_way(server, tmp_path / "slow.sock") as way,
            sidecars(way.url, 2) as fleet,
        ):
            fleet[0].open()
            await until(lambda: fleet[0].agrees_with(fleet[1:]))
            way.delay = 1.5
            await until(lambda: all(each.exchange.silent for each in fleet))
            fleet[0].open(OTHER)
            way.delay = 0.0
            await until(lambda: fleet[1].state(OTHER) == "paused")

    asyncio.run(scene())


def test_a_listener_whose_next_connection_is_never_answered_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "LISTENS", 0.2)

    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            slow_way(server, tmp_path / "slow.sock") as way,
            store_at(server.url) as stranger,
            store_at(way.url) as store,
            aclosing(store.pushed()) as pushed,
        ):
            assert await anext(pushed) == ""
            way.delay = 3_600.0
            await stranger.redis.client_kill_filter(_type="pubsub")
            with pytest.raises(StoreSilent):
                await anext(pushed)

    asyncio.run(scene())


def test_without_a_store_at_the_start_each_host_goes_by_itself_and_they_meet_later(tmp_path: Path) -> None:
    async def scene() -> None:
        url = f"unix://{tmp_path / 'redis.sock'}"
        async with sidecars(url, 2, met=False) as fleet:
            await until(lambda: all(each.exchange.silent not in {"", "not asked yet"} for each in fleet))
            fleet[0].open()
            part = _machine(fleet[0]).fleet
            assert part is not None
            assert part.may_probe()
            assert part.rate(7.0) == 7.0
            async with running_server(tmp_path):
                await until(lambda: fleet[1].state() == "paused")

    asyncio.run(scene())


def test_a_clock_of_the_server_that_was_set_back_keeps_no_mail_waiting(tmp_path: Path) -> None:
    """All that stands in the store is days ahead, and a host that is gone has the lead."""
    ahead = 10 * 86_400.0

    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            sidecars(server.url, 2, scale=QUICK) as fleet,
            store_at(server.url) as stranger,
        ):
            fleet[0].open()
            await until(lambda: fleet[1].state() != "closed")
            for each in fleet:
                _holds(each, 10)
            await until(lambda: any(map(_may_probe, fleet)) and not any(map(_is_alone, fleet)))

            async def was_ahead() -> bool:
                roll, book = await stranger.read([ROLL, f"book:{KEY}"])
                known, found = Roll.read(roll.text), Book.read(book.text)
                later = {
                    name: it._replace(met=it.met + ahead, agreed=it.agreed + ahead)
                    for name, it in known.members.items()
                }
                far = replace(
                    found,
                    settled=roll.at + ahead,
                    lead=Lead("gone", found.token + 1, roll.at + ahead),
                    token=found.token + 1,
                )
                texts = (replace(known, settled=roll.at + ahead, members=later).text(), far.text())
                swaps = [
                    Swap(name, read, text)
                    for name, read, text in zip((ROLL, f"book:{KEY}"), (roll, book), texts, strict=True)
                ]
                return await stranger.swap(swaps) == [None, None]

            await until(was_ahead)
            await until(lambda: not any(map(_may_probe, fleet)))
            await until(lambda: any(map(_may_probe, fleet)) and not any(map(_is_alone, fleet)))

    asyncio.run(scene())


def test_what_is_closed_by_hand_is_closed_on_all(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 3) as fleet:
            fleet[0].open()
            await until(lambda: fleet[0].agrees_with(fleet[1:]))
            fleet[1].engine.orders.close(KEY, by_whom="postmaster", now=time.time())
            await until(lambda: {each.state() for each in fleet} == {"closed"})
            fleet[2].open()
            await until(lambda: {each.state() for each in fleet} == {"paused"})

    asyncio.run(scene())


@pytest.mark.usefixtures("patient_store", "each_server")
def test_a_host_that_comes_later_learns_what_is_open(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 2) as fleet:
            for number in range(40):
                fleet[0].open(KEY._replace(value=f"{number}.example.com"))
            await until(lambda: len(fleet[1].host.parts) == 40)
            late = Sidecar("late", server.url)
            task = asyncio.create_task(late.run())
            await until(lambda: len(late.engine.subqueues.all()) == 40)
            await until(lambda: len(fleet[0].host.standing()["hosts"]) == 3)
            await until(lambda: _settles(server.url))
            task.cancel()  # who stops leaves, so that no majority counts it
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: len(fleet[0].host.standing()["hosts"]) == 2)

    asyncio.run(scene())


async def _settles(url: str) -> bool:
    """Have the roll believe that it is older than it is: a young one is told again of who has left."""
    async with store_at(url) as store:
        (read,) = await store.read([ROLL])
        return await store.swap([Swap(ROLL, read, replace(Roll.read(read.text), settled=0.0).text())]) == [None]


@pytest.mark.usefixtures("patient_store", "each_server")
def test_an_account_of_the_store_needs_no_more_than_is_documented(tmp_path: Path) -> None:
    async def scene() -> None:
        password = "secret"  # noqa: S105  # of this test's server
        options = ("--user", "default", "off", "--user", "sidecar", *rights(password))
        async with running_server(tmp_path, *options) as server:
            fleet = [Sidecar(f"host-{n}", f"unix://sidecar@{server.socket}", password=password) for n in range(2)]
            tasks = [asyncio.create_task(each.run()) for each in fleet]
            await until(lambda: all(each.exchange.rounds for each in fleet))
            fleet[0].open()
            await until(lambda: fleet[1].state() == "paused")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with store_at(server.url) as stranger:
                with pytest.raises(StoreSilent):
                    await stranger.read(["a"])

    asyncio.run(scene())


@pytest.mark.usefixtures("patient_store")
def test_tls_and_its_certificate_are_checked(tmp_path: Path) -> None:
    async def scene() -> None:
        port = free_port()
        files = certificate(tmp_path)
        options = ("--tls-port", str(port), "--tls-auth-clients", "no")
        async with running_server(
            tmp_path, *options, *(word for name in files for word in (f"--tls-{name}-file", str(files[name])))
        ):
            url = f"rediss://localhost:{port}/0"
            async with store_at(f"{url}?ssl_ca_certs={files['cert']}") as trusting, store_at(url) as stranger:
                (read,) = await trusting.read(["a"])
                assert read.server
                with pytest.raises(StoreSilent, match="certificate verify failed"):
                    await stranger.read(["a"])

    asyncio.run(scene())


def test_a_failover_by_sentinels_is_followed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with watched(tmp_path) as (primary, sentinel_port):
            url = f"sentinel://127.0.0.1:{sentinel_port}/mail"
            async with sidecars(url, 2) as fleet:
                fleet[0].open()
                await until(lambda: fleet[1].state() == "paused")
                before = fleet[0].host.contact.server
                primary.kill()
                await until(
                    lambda: all(not each.exchange.silent and each.host.contact.server != before for each in fleet),
                )
                assert {each.state() for each in fleet} == {"paused"}
                fleet[1].open(OTHER)
                await until(lambda: fleet[0].state(OTHER) == "paused")
                await until(lambda: fleet[0].agrees_with(fleet[1:]))

    asyncio.run(scene())


@pytest.mark.usefixtures("each_server")
def test_who_listens_to_a_server_that_was_cut_off_goes_where_the_fleet_is(tmp_path: Path) -> None:
    """Such a server keeps the connections of those who only listen, and says nothing to them."""
    (tmp_path / "cut-off").mkdir()

    async def reads(store: RedisStore) -> None:
        async for _ in Stream(store, "names").pages(BEGINNING):
            pass

    async def listeners(server: Server) -> bool:
        return (await server.says(b"PUBSUB NUMSUB sidecar:rows")).splitlines()[-2] == ":2"

    async def scene() -> None:
        async with (
            running_server(tmp_path) as before,
            sidecars(before.url, 2) as (one, two),
            store_at(before.url) as store,
        ):
            await until(partial(listeners, before))
            store.fleet_server = one.exchange.server
            reading = asyncio.create_task(reads(store))
            await until(partial(_has_clients, before, "cmd=xread"))
            before.socket = before.socket.rename(tmp_path / "cut-off" / "redis.sock")
            async with running_server(tmp_path) as after:
                for client in await _clients(before):
                    if "cmd=xread" not in client:
                        await before.says(f"CLIENT KILL ID {client.split()[0].removeprefix('id=')}".encode())
                await until(partial(listeners, after))
                one.open()
                await until(lambda: two.state() == "paused" and two.exchange.rows_heard > 0)
                with pytest.raises(StoreSilent, match="another server"):
                    await reading

    asyncio.run(scene())


async def _clients(server: Server) -> list[str]:
    """List those that ask, and those that listen to a stream."""
    return [line for line in (await server.says(b"CLIENT LIST TYPE normal")).splitlines() if line.startswith("id=")]


async def _has_clients(server: Server, which: str) -> bool:
    return any(which in client for client in await _clients(server))


def test_a_stop_is_heard_at_any_moment(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server:
            for number in range(60):
                task = asyncio.create_task(Sidecar("host", server.url).exchange.run())
                await asyncio.sleep(number * 0.0005)
                task.cancel()
                _, late = await asyncio.wait([task], timeout=60.0)
                assert not late, number

    asyncio.run(scene())


@pytest.mark.usefixtures("patient_store")
def test_a_host_that_died_is_counted_no_more_once_it_is_forgotten(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 2) as (one, two):
            await until(lambda: len(one.host.standing()["hosts"]) == 2)
            await until(lambda: _has_met(server.url, "host-1"))
            await until(lambda: _settles(server.url))
            for host, why in (("host-0", "this host"), ("host-7", "no host of the fleet"), ("host-1", "stop its core")):
                with pytest.raises(ValueError, match=why):
                    await one.exchange.forget(host)
            two.engine.settings = two.engine.settings._replace(act=False)  # as dead: it asks no more
            await until(lambda: _forgets(one, "host-1"))
            await until(lambda: len(one.host.standing()["hosts"]) == 1)

    asyncio.run(scene())


async def _has_met(url: str, host: str) -> bool:
    """Whether a host has come to the roll a second time: from then on it proves that it is there."""
    async with store_at(url) as store:
        (read,) = await store.read([ROLL])
    return Roll.read(read.text).members[host].met > 0.0


async def _forgets(each: Sidecar, host: str) -> bool:
    try:
        await each.exchange.forget(host)
    except ValueError:
        return False
    return True


def test_two_hosts_of_one_name_are_noticed_and_a_restart_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server:
            for _ in range(2):  # the second is the first one, started again
                async with sidecars(server.url, 2) as (one, other):
                    await until(lambda: min(one.exchange.rounds, other.exchange.rounds) >= 4)
                    assert not one.exchange.has_twin()
            async with sidecars(server.url, 1) as (one,), sidecars(server.url, 1) as (twin,):
                await until(lambda: one.exchange.has_twin() and twin.exchange.has_twin())
                assert one.exchange.status()["twin"]
        assert "calls itself host-0, too" in caplog.text

    asyncio.run(scene())

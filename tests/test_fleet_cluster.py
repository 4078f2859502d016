"""Cores and engines at a Redis Cluster: of one node, where nothing that they ask names keys of two slots; and of six, which
fail over and hand slots on.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest
from redis.crc import key_slot
from redis.exceptions import RedisError

from policies.fleet.book import Wish
from policies.key import Key
from sidecar.fleet import redis_store
from sidecar.fleet.book_store import BookStore, Changed
from sidecar.fleet.redis_store import RedisStore, StoreSilent
from sidecar.lab.ports import free_port
from sidecar.lab.private_postfix import PrivatePostfix
from tests.redis_world import (
    ClusterOfThree,
    Sidecar,
    certificate,
    cluster_of_one,
    cluster_of_three,
    cluster_of_two,
    sidecars,
    store_at,
    until,
)
from tests.test_fleet_core import NAMES, PATIENT, postfix, two
from tests.test_fleet_shares import ROW, put, renewal

__all__ = ["postfix"]
pytestmark = [pytest.mark.postfix, pytest.mark.timeout(300)]
OTHERS = (Key("dkim-domain", "one.example", "google"), Key("dkim-domain", "two.example", "google"))
ASKED = {
    "eval",
    "get",
    "set",
    "setrange",
    "scan",
    "publish",
    "subscribe",
    "xadd",
    "xread",
    "xrevrange",
    "hset",
    "hgetall",
}
"""Commands; each has been asked for at least once."""


def test_what_hosts_share_is_shared_through_a_cluster_of_one_node(
    tmp_path: Path, postfix: PrivatePostfix
) -> None:  # the fixture
    stream = {"do": "open", "where": "tenant = news", "name": "news", "who": "root"}

    async def scene() -> None:
        async with cluster_of_one(tmp_path) as server, two(tmp_path, postfix, server, "-c", PATIENT) as (one, other):
            key = one.is_refused(1)
            await until(lambda: other.state(key) == "paused")
            answers = [{"domain": "hosted.example", "hosts": ["mx.hoster.example"], "ttl": 300}]
            one.ask("learned-mx", answers=answers)
            await until(lambda: bool(other.ask("fleet-learned", name="hosted.example")["learned"]))
            other.ask("suppress", do="add", who="root", rows=[{"address": "dead@gmail.com"}])
            await until(lambda: one.suppresses("dead@gmail.com"))
            opened = await asyncio.to_thread(lambda: one.ask("subqueue", **stream, host=""))
            assert set(opened["hosts"]) == set(NAMES), opened
            store = RedisStore(server.url)
            read, book = await put(store)
            (told,) = await BookStore(store).change([renewal(read, book, Wish("mx1", ROW, 5))])
            assert isinstance(told, Changed)
            asked = await store.redis.info("commandstats")
            assert {name.removeprefix("cmdstat_") for name in asked} >= ASKED
            failed = {name for name, each in asked.items() if each["failed_calls"] or each["rejected_calls"]}
            assert failed <= {"cmdstat_client", "cmdstat_hello"}, failed  # of the library: older servers lack these
            with pytest.raises(RedisError, match="slot"):  # and it would have been seen
                await store.redis.mget([store.key("a"), store.key("b")])
            assert (await store.redis.info("commandstats"))["cmdstat_mget"]["rejected_calls"] == 1
            await store.close()

    asyncio.run(scene())


def test_a_fleet_goes_on_where_its_keys_are(tmp_path: Path) -> None:
    """The node that has them is killed, and its replica takes over; then the slot is given to another node, without the keys."""

    async def scene() -> None:
        async with (
            cluster_of_three(tmp_path) as cluster,
            sidecars(cluster.url, 2) as fleet,
            store_at(cluster.url) as store,
        ):
            key = store.key("roll")
            fleet[0].open()
            await until(lambda: fleet[1].state() == "paused")
            owner = await cluster.owner(key)
            assert {store.key(name) for name in await store.names("")} == await _keys(cluster, owner)
            cluster.kill(owner)
            await _goes_on(cluster, fleet, key, lambda now: now not in {"", owner}, OTHERS[0])
            owner = await cluster.owner(key)
            (heir, *_) = [name for name in cluster.nodes if name != owner and await _is_primary(cluster, name)]
            await until(partial(_handed_on, cluster, key, owner, heir))
            await _goes_on(cluster, fleet, key, heir.__eq__, OTHERS[1])

    asyncio.run(scene())


async def _handed_on(cluster: ClusterOfThree, key: str, owner: str, heir: str) -> bool:
    """Give the slot away as it was emptied: a node keeps what it has keys of, and hosts write at any moment."""
    await cluster.nodes[owner].says(b"FLUSHALL")
    await cluster.on_all(f"CLUSTER SETSLOT {key_slot(key.encode())} NODE {heir}")
    return await cluster.owner(key) == heir


def test_while_the_slot_is_moved_each_host_goes_by_itself_and_says_why(tmp_path: Path) -> None:
    """As it stands for long where an admin's move was broken off: some keys are here, and some there."""

    async def scene() -> None:
        async with (
            cluster_of_three(tmp_path) as cluster,
            sidecars(cluster.url, 2) as fleet,
            store_at(cluster.url) as store,
        ):
            key = store.key("roll")
            slot = key_slot(key.encode())
            fleet[0].open()
            await until(lambda: fleet[1].state() == "paused")
            owner = await cluster.owner(key)
            (heir, *_) = [name for name in cluster.nodes if name != owner and await _is_primary(cluster, name)]
            await cluster.nodes[heir].says(f"CLUSTER SETSLOT {slot} IMPORTING {owner}".encode())
            await cluster.nodes[owner].says(f"CLUSTER SETSLOT {slot} MIGRATING {heir}".encode())
            await _moved(cluster, owner, heir, {key})
            await until(lambda: all("is being moved" in each.exchange.silent for each in fleet))
            await until(lambda: all(each.host.contact.is_alone(now=time.monotonic()) for each in fleet))
            assert {each.state() for each in fleet} == {"paused"}
            await _moved(cluster, owner, heir, await _keys(cluster, owner))
            await cluster.on_all(f"CLUSTER SETSLOT {slot} NODE {heir}")
            await _goes_on(cluster, fleet, key, heir.__eq__, OTHERS[0])

    asyncio.run(scene())


async def _moved(cluster: ClusterOfThree, owner: str, heir: str, keys: set[str]) -> None:
    for key in keys:
        said = await cluster.nodes[owner].says(f'MIGRATE 127.0.0.1 {cluster.port_of[heir]} "{key}" 0 5000'.encode())
        assert said.startswith("+OK"), said


async def _goes_on(
    cluster: ClusterOfThree, fleet: list[Sidecar], key: str, true: Callable[[str], bool], opened: Key
) -> None:
    """All hear the node that has the keys now, still have what they had, and share what is opened there."""

    async def moved() -> bool:
        return true(await cluster.owner(key))

    await until(moved)
    (life,) = (
        line
        for line in (await cluster.nodes[await cluster.owner(key)].says(b"INFO server")).splitlines()
        if "run_id" in line
    )
    run_id = life.partition(":")[2].strip()
    await until(lambda: all(not each.exchange.silent and each.host.contact.server == run_id for each in fleet))
    assert {each.state() for each in fleet} == {"paused"}
    fleet[0].open(opened)
    await until(lambda: fleet[1].state(opened) == "paused")
    await until(lambda: fleet[0].agrees_with(fleet[1:]) and fleet[0].agrees_with(fleet[1:], opened))


async def _keys(cluster: ClusterOfThree, node: str) -> set[str]:
    told = await cluster.nodes[node].says(b"KEYS *")
    return {line for line in told.splitlines() if line.startswith("{")}


async def _is_primary(cluster: ClusterOfThree, name: str) -> bool:
    return "role:master" in await cluster.nodes[name].says(b"INFO replication")


@pytest.mark.usefixtures("patient_store")
def test_a_cluster_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    files = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files["cert"]))
    tls = ("--tls-port", str(port), "--tls-auth-clients", "no")
    paths = (word for name in files for word in (f"--tls-{name}-file", str(files[name])))

    async def scene() -> None:
        async with cluster_of_one(tmp_path, *tls, *paths):
            async with store_at(f"clusters://localhost:{port}") as store:
                await store.put("a", "text")
                assert (await store.read(["a"]))[0].text == "text"
            async with store_at(f"clusters://127.0.0.1:{port}") as stranger:
                with pytest.raises(StoreSilent, match="certificate verify failed"):
                    await stranger.read(["a"])

    asyncio.run(scene())


def test_a_node_that_hangs_costs_one_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next question asks another node first; nodes that are down, none."""

    async def scene() -> None:
        down = free_port()
        with socket.create_server(("127.0.0.1", 0)) as hangs:
            async with cluster_of_one(tmp_path) as server:
                nodes = ",".join(f"127.0.0.1:{port}" for port in (down, hangs.getsockname()[1], server.port))
                async with store_at(f"cluster://{nodes}") as store:
                    with pytest.raises(StoreSilent, match="no answer within 1 s"):
                        await store.read(["a"])
                    await until(partial(_reads, store))
        monkeypatch.setattr(redis_store, "ANSWER_WITHIN", 30.0)  # a busy machine may need the second to be refused
        async with store_at(f"cluster://127.0.0.1:{down}") as store:
            with pytest.raises(StoreSilent, match=r"no node of the Cluster says .*: .*Connect call failed"):
                await store.read(["a"])

    asyncio.run(scene())


def test_a_node_that_names_one_that_is_gone_costs_one_question(tmp_path: Path) -> None:
    """As one does that has not yet heard of a failover: the next question asks another node first."""

    async def scene() -> None:
        async with cluster_of_two(tmp_path) as (stale, gone), cluster_of_one(tmp_path) as server:
            gone.kill()
            assert str(gone.port) in await stale.says(b"GET {sidecar}:{roll}")
            async with store_at(f"cluster://127.0.0.1:{stale.port},127.0.0.1:{server.port}") as store:
                with pytest.raises(StoreSilent, match=f"{gone.port}"):
                    await store.read(["a"])
                await until(partial(_reads, store))
            async with store_at(f"cluster://127.0.0.1:{stale.port},127.0.0.1:{server.port}") as store:
                await until(partial(_listens, store))

    asyncio.run(scene())


async def _listens(store: RedisStore) -> bool:
    async with aclosing(store.pushed()) as pushed:
        with contextlib.suppress(StoreSilent):
            return await anext(pushed) == ""
    return False


async def _reads(store: RedisStore) -> bool:
    with contextlib.suppress(StoreSilent):
        return (await store.read(["a"]))[0].text == ""
    return False

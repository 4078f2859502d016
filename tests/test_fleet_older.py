"""A rolling upgrade with hosts of versions that were: what one left in Redis, and, where the history is at hand, they themselves."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.older_world import at_hand, unpacked
from tests.redis_world import KEY, running_server, sidecars, store_at, until

ROOT = Path(__file__).parents[1]
OURS = KEY._replace(value="ours.example.com")
VERSIONS = {
    "60c678cd": "all hosts swap the whole roll",
    "c41a6ea": "shares of the pace were given more fields",
}
"""Commits, and what they are of before."""
HOST = """
import asyncio, json, sys
from tests.redis_world import KEY, Sidecar

async def main():
    each = Sidecar("older", sys.argv[1])
    task = asyncio.create_task(each.run())
    while line := await asyncio.to_thread(sys.stdin.readline):
        match json.loads(line):
            case ["open", value]:
                each.open(KEY._replace(value=value))
            case ["close", value]:
                each.engine.orders.close(KEY._replace(value=value), by_whom="admin", now=__import__("time").time())
        states = {sub.key.value: str(sub.machine.state) for sub in each.engine.subqueues.all()}
        hosts = {row["host"]: row["silent"] for row in each.host.standing()["hosts"]}
        said = {"states": states, "hosts": hosts, "majority": each.host.contact.standing.quorate}
        print(json.dumps({**said, "bad": each.exchange.bad_texts, "silent": each.exchange.silent}), flush=True)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

asyncio.run(main())
"""


class Older:
    """A host of an older version, in a process of its own."""

    def __init__(self, tree: Path, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOST, url],
            cwd=tree,
            env={"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def says(self, *order: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._says, order)

    def _says(self, order: tuple[str, ...]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    async def stop(self) -> None:
        await asyncio.to_thread(self._process.communicate)
        assert self._process.returncode == 0


@asynccontextmanager
async def older(commit: str, folder: Path, url: str) -> AsyncIterator[Older]:
    host = Older(unpacked(commit, folder / "older"), url)
    try:
        yield host
    finally:
        await host.stop()


def test_hosts_of_versions_that_were_and_of_this_one_are_one_fleet(tmp_path: Path) -> None:
    async def scene(commit: str, folder: Path) -> None:
        async with running_server(folder) as server, sidecars(server.url, 2) as (one, two):
            async with older(commit, folder, server.url) as host:

                async def old_host(**wanted: Any) -> bool:
                    said = await host.says()
                    return all(said[name] == value for name, value in wanted.items())

                everybody = dict.fromkeys(("host-0", "host-1", "older"), False)
                await until(lambda: old_host(hosts=everybody, majority=True))
                await until(lambda: _hears_of(one, everybody) and _hears_of(two, everybody))
                await host.says("open", KEY.value)
                await until(lambda: one.state() == two.state() == "paused")
                two.open(OURS)
                both = {KEY.value: "paused", OURS.value: "paused"}
                await until(lambda: old_host(states=both))
                await host.says("close", OURS.value)
                await until(lambda: one.state(OURS) == two.state(OURS) == "closed")
                assert await old_host(bad=0, silent="")
            ours = {"host-0": False, "host-1": False}
            await until(lambda: _hears_of(one, ours) or _hears_of(one, {**ours, "older": True}))
            assert one.exchange.bad_texts == two.exchange.bad_texts == 0
            assert one.host.contact.standing.quorate

    for commit in at_hand(VERSIONS):
        folder = tmp_path / commit
        folder.mkdir()
        asyncio.run(scene(commit, folder))


def test_what_an_older_version_left_is_gone_on_with_and_stays_as_that_reads_it(tmp_path: Path) -> None:
    """Recorded of 60c678cd; a clone without history has no other host of that version."""
    left = json.loads((ROOT / "tests/fleet/written_by_older.json").read_text())
    pushed = left["pushed"][0].replace(KEY.value, OURS.value)

    async def scene() -> None:
        async with running_server(tmp_path) as server, store_at(server.url) as store:
            for name, text in left["texts"].items():
                await store.put(name, text)
            async with sidecars(server.url, 1) as (each,):
                await until(lambda: each.state() == "paused")
                await until(lambda: _hears_of(each, {"host-0": False, "older": True}))
                await store.push([pushed])
                await until(lambda: each.state(OURS) == "paused")
                each.engine.orders.close(KEY, by_whom="admin", now=time.time())
                await until(lambda: each.state() == "closed")
                roll, book = await store.read(list(left["texts"]))
            for read, name in ((roll, "roll"), (book, f"book:{KEY}")):
                assert _has_all_of(json.loads(left["texts"][name]), json.loads(read.text))
            assert each.exchange.bad_texts == 0

    asyncio.run(scene())


def _has_all_of(older: Any, newer: Any) -> bool:
    """Whether everything that an older version goes by is there, and of the same kind."""
    if isinstance(older, dict):
        return isinstance(newer, dict) and all(
            name in newer and _has_all_of(value, newer[name]) for name, value in older.items()
        )
    if isinstance(older, list):
        return isinstance(newer, list) and all(map(_has_all_of, older, newer)) and len(newer) >= len(older)
    return isinstance(newer, int | float if isinstance(older, int | float) else type(older))


def _hears_of(each: Any, hosts: dict[str, bool]) -> bool:
    return {row["host"]: row["silent"] for row in each.host.standing()["hosts"]} == hosts

"""What one host has others do: once each, by those that are there now and those that come back soon."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sidecar.fleet import commands
from sidecar.fleet.commands import FleetCommands
from sidecar.fleet.redis_store import RedisStore
from tests.redis_world import PATIENCE, running_server, until


class Mx:
    def __init__(self, name: str, url: str, there: dict[str, bool]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.commands = FleetCommands(name, RedisStore(url), lambda: there)
        self.commands.do = self.do

    async def do(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(dict(request))
        if request.get("key") == "bad":
            raise ValueError("no such sub-queue is open")
        if request.get("key") == "bug":
            raise KeyError("oh")
        return {"released": 3}


@contextlib.asynccontextmanager
async def at_work(*hosts: Mx) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(host.commands.run()) for host in hosts]
    try:
        await until(lambda: not any(host.commands.silent for host in hosts))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def fleet(monkeypatch: pytest.MonkeyPatch, url: str) -> list[Mx]:
    monkeypatch.setattr(commands, "LISTENS", 0.2)
    if commands.ANSWERED_WITHIN > 1.0:  # no test of when who asked has waited enough
        monkeypatch.setattr(commands, "ANSWERED_WITHIN", PATIENCE)
    there = dict.fromkeys(("mx1", "mx2", "mx3"), True)
    return [Mx(name, url, there) for name in there]


@pytest.mark.usefixtures("patient_store")
def test_all_or_the_one_named_do_it_once_and_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with running_server(tmp_path) as server:
            one, two, three = fleet(monkeypatch, server.url)
            async with at_work(one, two, three):
                told = await one.commands.tell({"key": "k", "who": "root"})
                assert told == ({name: {"ok": True, "released": 3} for name in ("mx2", "mx3")}, {})
                assert two.asked == [{"key": "k", "who": "host mx1 (root)"}]
                assert one.asked == []
                told = await two.commands.tell({"key": "bad"}, "mx1")
                assert told == ({"mx1": {"ok": False, "error": "no such sub-queue is open"}}, {})
                assert len(three.asked) == 1
                told = await two.commands.tell({"key": "bug"}, "mx3")
                assert told.answers["mx3"] == {"ok": False, "error": "KeyError: 'oh'"}
                with pytest.raises(ValueError, match="mx9: no host of the fleet; known are mx1, mx2, mx3"):
                    await one.commands.tell({}, "mx9")
                assert one.commands.others("mx1") == []
            again = Mx("mx2", server.url, {"mx1": True})  # started anew, it reads what it has done
            async with at_work(one, again):
                await one.commands.tell({"key": "after"}, "mx2")
                assert [each["key"] for each in again.asked] == ["after"]

    asyncio.run(story())


def test_an_answer_waits_for_a_store_that_is_silent_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with running_server(tmp_path) as server:
            one, two, three = fleet(monkeypatch, server.url)

            async def stops_the_store(request: Mapping[str, Any]) -> Mapping[str, Any]:
                server.send(signal.SIGSTOP)
                asyncio.get_running_loop().call_later(1.2, server.send, signal.SIGCONT)
                return await two.do(request)

            two.commands.do = stops_the_store
            async with at_work(one, two, three):
                told = await one.commands.tell({"key": "k"}, "mx2")
                assert told == ({"mx2": {"ok": True, "released": 3}}, {})
                assert len(two.asked) == 1

    asyncio.run(story())


@pytest.mark.usefixtures("patient_store")
def test_who_is_away_does_it_later_but_not_much_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ANSWERED_WITHIN", 0.2)

    async def story() -> None:
        async with running_server(tmp_path) as server:
            one, two, three = fleet(monkeypatch, server.url)
            there = {"mx1": True, "mx2": True, "mx3": False}
            one.commands._members = lambda: there
            async with at_work(one):
                told = await one.commands.tell({"key": "k", "seconds": 3_600.0})
                assert told.unheard == {
                    "mx2": "no answer within 0.2 s; does it when it is back within 1 h",
                    "mx3": "not there; does it when it is back within 1 h",
                }
                async with at_work(two):
                    await until(lambda: bool(two.asked))
                    assert 0 < two.asked[0]["seconds"] < 3_600.0  # of what was asked for, some is over
                await one.commands.tell({"key": "short", "seconds": 0.1}, "mx3")
                await asyncio.sleep(0.1)
                async with at_work(three):  # all of it
                    await until(lambda: _is_late(one, "mx3"))
                    assert [each["key"] for each in three.asked] == ["k"]
                monkeypatch.setattr(commands, "STILL_DONE", 3.0)
                await one.commands.tell({"key": "old"})
                await asyncio.sleep(3.1)
                async with at_work(three):
                    three.asked.clear()

                    async def is_told() -> bool:
                        await one.commands.tell({"key": "new"})
                        return bool(three.asked)

                    await until(is_told)
                    assert {each["key"] for each in three.asked} == {"new"}

    asyncio.run(story())


async def _is_late(asker: Mx, host: str) -> bool:
    """Whether a host says of the last command that its time was over."""
    store = asker.commands._store
    entries: Any = await store.redis.xrange(store.key("commands"))
    said: Any = (await store.redis.hgetall(store.key(f"answers:{entries[-1][0]}"))).get(host, "")
    return "its time was over" in said


def test_without_the_store_nobody_is_told_and_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with running_server(tmp_path) as server:
            one, two, *_ = fleet(monkeypatch, server.url)
            async with at_work(one, two):
                server.kill()
                told = await one.commands.tell({"key": "k"})
                assert told.answers == {}
                assert all(
                    why.startswith("perhaps not told: the fleet's store is silent") for why in told.unheard.values()
                )
                await server.start()
                told = await one.commands.tell({"key": "k"}, "mx2")
                await until(lambda: [each["key"] for each in two.asked] == ["k"])

    asyncio.run(story())


def test_a_stop_is_heard_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with running_server(tmp_path) as server:
            monkeypatch.setattr(commands, "LISTENS", 600.0)
            for number in range(60):
                task = asyncio.create_task(Mx("mx1", server.url, {"mx1": True}).commands.run())
                await asyncio.sleep(number * 0.0005)
                task.cancel()
                _, late = await asyncio.wait([task], timeout=PATIENCE)
                assert not late, number

    asyncio.run(story())

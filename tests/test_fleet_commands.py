"""What one host has others do: once each, by those that are there now and those that come back soon."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sidecar.fleet import commands
from sidecar.fleet.commands import STILL_DONE, FleetCommands
from sidecar.fleet.redis_store import RedisStore, StoreSilent
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


@pytest.mark.usefixtures("patient_store", "each_server")
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
def test_a_host_that_does_not_hear_that_it_has_begun_does_it_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with running_server(tmp_path) as server:
            one, two, _ = fleet(monkeypatch, server.url)
            begins = FleetCommands._begins
            lost: list[str] = []

            async def unheard(of: FleetCommands, number: str, kept: int) -> bool:
                begun = await begins(of, number, kept)
                if not lost:
                    lost.append(number)
                    raise StoreSilent("the answer was lost")
                return begun

            monkeypatch.setattr(FleetCommands, "_begins", unheard)
            async with at_work(one, two):
                number = await _told(one, {"key": "k"})
                await until(lambda: bool(two.asked))
                await until(lambda: _says(one, number, "mx2", '"released": 3'))
            assert (len(two.asked), lost) == (1, [number])

    asyncio.run(story())


@pytest.mark.usefixtures("patient_store")
def test_of_who_has_begun_and_says_no_more_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ANSWERED_WITHIN", 0.2)

    async def story() -> None:
        async with running_server(tmp_path) as server:
            one, two, _ = fleet(monkeypatch, server.url)
            stuck = asyncio.Event()

            async def hangs(_: Mapping[str, Any]) -> Mapping[str, Any]:
                stuck.set()
                return await asyncio.Event().wait() and {}

            two.commands.do = hangs
            async with at_work(one):
                async with at_work(two):
                    number = await _told(one, {"key": "k"}, "mx2")
                    await stuck.wait()
                    asked = await one.commands._answers(number, set())
                    assert asked == {"mx2": None}
                    monkeypatch.setattr(one.commands, "_answers", _same(asked))
                    told = await one.commands.tell({"key": "again"}, "mx2")
                    assert told == ({}, {"mx2": "has begun with it, and not said what came of it"})
                two.commands.do = two.do
                again = FleetCommands("mx2", RedisStore(server.url), dict)  # core there was started anew
                again.do = two.do
                task = asyncio.create_task(again.run())
                done = await _told(one, {"key": "next"}, "mx2")
                await until(lambda: _says(one, done, "mx2", '"released": 3'))
                assert [each["key"] for each in two.asked] == ["again", "next"]
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())


@pytest.mark.usefixtures("patient_store", "each_server")
def test_an_answer_that_is_late_for_a_store_that_forgot_is_not_kept_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with running_server(tmp_path) as server:
            one, two, _ = fleet(monkeypatch, server.url)
            stranger = RedisStore(server.url)

            async def forgotten(request: Mapping[str, Any]) -> Mapping[str, Any]:
                names: Any = await stranger.redis.keys(f"{stranger.key('answers:')[:-1]}*")
                assert await stranger.redis.delete(*names) == 1
                return await two.do(request)

            two.commands.do = forgotten
            async with at_work(one, two):
                number = await _told(one, {"key": "k"}, "mx2", asks=True)
                await until(lambda: _says(one, number, "mx2", '"released": 3'))
                await until(lambda: not two.commands._unsaid)
            assert 0 < await stranger.redis.ttl(stranger.key(f"answers:{number}")) <= commands.ASKED
            await stranger.close()

    asyncio.run(story())


@pytest.mark.usefixtures("patient_store")
def test_who_is_away_does_it_later_but_not_much_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ANSWERED_WITHIN", 0.2)

    async def story() -> None:
        async with running_server(tmp_path) as server:
            one, two, three = fleet(monkeypatch, server.url)
            there = {"mx1": True, "mx2": True, "mx3": False}
            one.commands._members = lambda: there
            store = one.commands._store
            told_at, _ = await store.texts(["x"])
            entry: dict[Any, Any] = {"host": "mx1", "to": "", "request": '{"key": "old"}', "asks": "0"}
            await store.redis.xadd(store.key("commands"), entry, id=f"{int((told_at - STILL_DONE - 1) * 1000)}-0")
            async with at_work(one):
                told = await one.commands.tell({"key": "k", "seconds": 600.0})
                assert told.unheard == {
                    "mx2": "no answer within 0.2 s; does it when it is back within 1 h",
                    "mx3": "not there; does it when it is back within 1 h",
                }
                brief = await _told(one, {"key": "brief", "seconds": 0.1})
                await asyncio.sleep(0.2)
                async with at_work(two, three):
                    for host in (two, three):
                        await until(lambda: _says(one, brief, host.commands.host, "its time was over"))  # noqa: B023  # waited for here
                        (asked,) = host.asked
                        assert asked["key"] == "k"
                        assert 0 < asked["seconds"] < 600.0  # of what was asked for, some is over

    asyncio.run(story())


async def _told(asker: Mx, request: Mapping[str, Any], to: str = "", *, asks: bool = False) -> str:
    """Tell others, and do not wait for their answers; its number."""
    entry: dict[Any, Any] = {
        "host": asker.commands.host,
        "to": to,
        "request": json.dumps(request),
        "asks": str(int(asks)),
    }
    store = RedisStore(asker.commands._store._url)
    try:
        return str(await store.redis.xadd(store.key("commands"), entry))
    finally:
        await store.close()


def _same(answers: Any) -> Callable[..., Any]:
    async def given(*_: object) -> Any:
        return answers

    return given


async def _says(asker: Mx, number: str, host: str, what: str) -> bool:
    store = RedisStore(asker.commands._store._url)
    try:
        said: Any = await store.redis.hget(store.key(f"answers:{number}"), host)
        return what in str(said)
    finally:
        await store.close()


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

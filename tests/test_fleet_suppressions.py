"""Suppression lists of several hosts at a real Redis: what is changed on one holds on all, also after troubles."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from policies.fleet.pace import Pace
from policies.suppression import Add, End, Listed, Reason
from sidecar.control import CoreUnreachable
from sidecar.fleet import change_log, suppressions
from sidecar.fleet.change_log import ChangeLog
from sidecar.fleet.commands import FleetCommands
from sidecar.fleet.redis_store import RedisStore
from sidecar.fleet.suppressions import SharedSuppressions
from tests.redis_world import rights, running_server, store_at, until
from tests.suppression_core import Core, core

ANN, BOB = "ann@x.example", "bob@x.example"
BY_HAND = Listed("global", Reason.BY_HAND)
BOUNCED = Listed("global", Reason.HARD_BOUNCE)


class Host:
    def __init__(self, of: Core, shared: SharedSuppressions, erased: list[str]) -> None:
        self.core = of
        self.shared = shared
        self.erased_outside = erased

    def has(self, address: str, *lists: Listed) -> bool:
        return self.core.listed(address) == lists

    async def add(self, *addresses: str) -> None:
        assert (await self.core.ask("add", rows=[{"address": each} for each in addresses]))["stored"]

    async def by_whom(self, address: str) -> list[str]:
        return [each["by_whom"] for each in (await self.core.ask("check", address=address))["entries"]]


@contextlib.asynccontextmanager
async def host(folder: Path, name: str, url: str, *, key: str = "00" * 16) -> AsyncIterator[Host]:
    directory = folder / name
    directory.mkdir(exist_ok=True)
    (directory / "suppression.key").write_text(key)
    erased: list[str] = []

    async def erase_outside(person: str) -> None:
        erased.append(person)
        if len(erased) == 1:
            raise CoreUnreachable("not yet")

    async with core(directory) as it:
        log = ChangeLog(RedisStore(url))
        shared = SharedSuppressions(
            name, log, it.store.outbox, it.part, thread=it.part._thread, erase_outside=erase_outside
        )
        task = asyncio.create_task(shared.run())
        try:
            yield Host(it, shared, erased)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await it.ledger.commit()


def test_who_is_suppressed_or_released_on_one_host_is_so_on_all(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            host(tmp_path, "mx1", server.url) as one,
            host(tmp_path, "mx2", server.url) as two,
            host(tmp_path, "mx3", server.url) as three,
        ):
            await one.add(ANN, BOB)
            await until(lambda: two.has(ANN, BY_HAND) and three.has(BOB, BY_HAND))
            assert await two.by_whom(ANN) == ["host mx1 (root)"]
            assert (await two.core.ask("list"))["entries"][0]["address"] == ANN
            await two.core.ask("remove", address=ANN)
            await until(lambda: one.has(ANN) and three.has(ANN))
            one.core.bounced(ANN)
            await until(lambda: two.has(ANN, BOUNCED))
            assert two.core.opened.suppressing.on_probation == 1
            await three.core.ask("remove", address=ANN)  # as an outage would
            await until(lambda: one.has(ANN) and two.has(ANN))
            assert two.core.opened.suppressing.on_probation == 0
            assert one.shared.status()["silent"] == ""
            one.shared.silent = "no answer to what it told"
            await until(lambda: not one.shared.silent)

    asyncio.run(scene())


@pytest.mark.usefixtures("each_server")
def test_who_was_away_catches_up(tmp_path: Path) -> None:
    async def scene() -> None:
        many = [f"{number}@x.example" for number in range(250)]
        async with running_server(tmp_path) as server, host(tmp_path, "mx1", server.url) as one:
            async with host(tmp_path, "mx2", server.url) as two:
                await one.add(ANN)
                await until(lambda: two.has(ANN, BY_HAND))
            await one.add(*many)
            await one.core.ask("remove", address=ANN)
            async with host(tmp_path, "mx2", server.url) as two:
                await until(lambda: two.has(ANN) and two.has(many[-1], BY_HAND))
                assert all(two.has(each, BY_HAND) for each in many)
                assert two.shared.followed == 251
                assert two.shared.status()["missed_of"] == 0

    asyncio.run(scene())


@pytest.mark.usefixtures("each_server")
def test_a_redis_that_restarts_empty_or_comes_late_is_told_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, host(tmp_path, "mx1", server.url) as one:
            async with host(tmp_path, "mx2", server.url) as two:
                await one.add(ANN)
                await until(lambda: two.has(ANN, BY_HAND))
            await one.add(BOB)
            await until(lambda: one.shared.hearing.heard[one.shared.hearing.origin] == 2)
            server.kill()
            await one.core.ask("remove", address=ANN)
            await until(lambda: bool(one.shared.silent))
            await server.start()
            async with host(tmp_path, "mx2", server.url) as two:
                await until(lambda: two.has(ANN) and two.has(BOB, BY_HAND))

    asyncio.run(scene())


def test_who_is_erased_is_erased_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppressions, "ERASE_AGAIN", 0.1)

    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            host(tmp_path, "mx1", server.url) as one,
            host(tmp_path, "mx2", server.url) as two,
        ):
            await one.add(ANN, BOB)
            await until(lambda: two.has(BOB, BY_HAND))
            await one.core.ask("erase", address=ANN)
            await until(lambda: two.erased_outside == [ANN, ANN])  # the first time it was not there
            await until(lambda: not two.shared._outbox.erasures())
            assert two.has(ANN, BY_HAND)
            assert [each["address"] for each in (await two.core.ask("list"))["entries"]] == ["", BOB]
            await two.core.ask("erase", address=BOB, forget=True)
            await until(lambda: one.has(BOB))
            async with store_at(server.url) as store:
                rows: Any = await store.redis.xrange(store.key("suppressions"))
            assert [entry["change"].count('"kind":"erase"') for _, entry in rows] == [
                1,
                1,
            ]  # nothing else is said of them

    asyncio.run(scene())


def test_a_list_of_another_key_is_not_mixed_with_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            host(tmp_path, "mx1", server.url) as one,
            host(tmp_path, "mx2", server.url, key="11" * 16) as two,
        ):
            await one.add(ANN)
            await until(lambda: two.shared.others_key == "mx1")
            assert two.has(ANN)
            assert "wanted the same file on all hosts" in caplog.text

    asyncio.run(scene())


def test_a_store_that_was_put_back_from_a_backup_is_heard(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, host(tmp_path, "mx2", server.url) as two:
            async with host(tmp_path, "mx1", server.url) as one:
                await one.add(ANN)
                await until(lambda: two.has(ANN, BY_HAND))
            shutil.copytree(tmp_path / "mx1", tmp_path / "backup")
            async with host(tmp_path, "mx1", server.url) as one:
                await one.add("carl@x.example")
                await two.core.ask("remove", address=ANN)
                await until(lambda: two.has("carl@x.example", BY_HAND) and one.has(ANN))
            shutil.rmtree(tmp_path / "mx1")
            shutil.copytree(tmp_path / "backup", tmp_path / "mx1")
            async with host(tmp_path, "mx1", server.url) as one:
                await until(lambda: one.has(ANN))
                await one.add(BOB)
                await until(lambda: two.has(BOB, BY_HAND))
                assert two.has(ANN)

    asyncio.run(scene())


@pytest.mark.usefixtures("each_server")
def test_the_account_of_the_documentation_is_enough(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            running_server(tmp_path, "--user", "default", "off", "--user", "sidecar", *rights("secret")) as server,
            host(tmp_path, "mx1", server.url.replace("unix://", "unix://sidecar:secret@")) as one,
            host(tmp_path, "mx2", server.url.replace("unix://", "unix://sidecar:secret@")) as two,
        ):
            await one.core.ask("erase", address=ANN)
            await one.add(BOB)
            await until(lambda: two.has(BOB, BY_HAND))

    asyncio.run(scene())


def test_what_was_dropped_before_it_was_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_log, "MOST", 1)

    async def scene() -> None:
        async with running_server(tmp_path) as server, host(tmp_path, "mx1", server.url) as one:
            async with host(tmp_path, "mx2", server.url) as two:
                await one.add(ANN)
                await until(lambda: two.has(ANN, BY_HAND))
            await one.add(*(f"{number}@x.example" for number in range(400)))  # Redis drops by the hundred
            await until(lambda: one.shared.hearing.heard[one.shared.hearing.origin] == 401)
            async with host(tmp_path, "mx2", server.url) as two:
                await until(lambda: two.shared.status()["missed_of"] == 1)

    asyncio.run(scene())


@contextlib.asynccontextmanager
async def asking(url: str, *hosts: Host) -> AsyncIterator[None]:
    """Let hosts ask each other."""
    names = [each.shared.host for each in hosts]
    given = [FleetCommands(name, RedisStore(url), lambda: dict.fromkeys(names, True)) for name in names]
    for each, commands in zip(hosts, given, strict=True):
        commands.do = each.shared.page
    tasks = [asyncio.create_task(commands.run()) for commands in given]
    for each, commands in zip(hosts, given, strict=True):
        each.shared.commands = commands
        each.shared._lacks.set()  # core has this in place before it asks
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_a_host_that_missed_changes_takes_a_copy_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_log, "MOST", 1)

    async def scene() -> None:
        many = [f"{number}@x.example" for number in range(600)]
        async with running_server(tmp_path) as server, host(tmp_path, "mx1", server.url) as one:
            async with host(tmp_path, "mx2", server.url) as two:
                await one.add(ANN)
                await until(lambda: two.has(ANN, BY_HAND))
            await one.add(*many[:300])
            await one.add(*many[300:])
            await until(lambda: one.shared.hearing.heard[one.shared.hearing.origin] == 601)
            async with host(tmp_path, "mx2", server.url) as two:
                await until(lambda: two.shared.status()["missed_of"] == 1)
                assert not all(two.has(each, BY_HAND) for each in many)
            async with host(tmp_path, "mx2", server.url) as two:  # it is known after a restart as well
                assert two.shared.status()["missed_of"] == 1
                await two.core.ask("add", rows=[{"address": BOB}])
                await two.core.ask("remove", address=many[7])  # not here at all, or here by now
                async with asking(server.url, one, two):
                    await until(lambda: two.shared.status()["missed_of"] == 0)
                    assert all(two.has(each, BY_HAND) for each in (ANN, BOB, *many[8:]))
                    assert await two.by_whom(many[9]) == ["host mx1 (root)"]
                    assert one.shared.status()["missed_of"] == 0

    asyncio.run(scene())


def test_who_is_taken_off_while_a_part_of_a_copy_is_taken_in_stays_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, host(tmp_path, "mx2", server.url) as two:
            await two.add(ANN)
            loop, part, suppressing = asyncio.get_running_loop(), two.core.part, two.core.opened.suppressing
            digest = two.core.opened.book.digest
            asked = part.ended

            def ended(whos: Sequence[bytes]) -> dict[tuple[bytes, Listed], float]:
                found = asked(whos)
                loop.call_soon_threadsafe(suppressing.end, End(digest(ANN), BY_HAND, 2e9, "root", "by hand"))
                return found

            monkeypatch.setattr(part, "ended", ended)
            rows = [Add(digest(each), each, BY_HAND, "", 1e9, "root") for each in (ANN, BOB)]
            await two.shared._lack(rows, "mx1", Pace())
            assert two.has(ANN)
            assert two.has(BOB, BY_HAND)

    asyncio.run(scene())


def test_what_waits_for_the_store_is_bounded_and_others_take_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(suppressions, "OUTBOX_MOST", 5)
    monkeypatch.setattr(suppressions, "SETTLED_EVERY", 0.05)

    async def scene() -> None:
        many = [f"{number}@x.example" for number in range(20)]
        async with (
            running_server(tmp_path) as server,
            host(tmp_path, "mx1", server.url) as one,
            host(tmp_path, "mx2", server.url) as two,
        ):
            await one.add(ANN)
            await until(lambda: two.has(ANN, BY_HAND))
            await until(lambda: one.shared.hearing.heard.get(one.shared.hearing.origin) == 1)
            server.kill()
            await one.add(*many)
            await until(lambda: one.shared.status()["dropped"] == 15)
            assert one.shared.status()["waiting"] == 5
            assert "the oldest are dropped" in caplog.text
            assert one.has(many[0], BY_HAND)
            await server.start()
            async with asking(server.url, one, two):
                await until(lambda: all(two.has(each, BY_HAND) for each in many))
                await until(lambda: two.shared.status()["missed_of"] == 0)
                await until(lambda: one.shared.status()["waiting"] == 0)
                await two.core.ask("remove", address=many[0])  # what was never told of it is in nobody's way
                await until(lambda: one.has(many[0]))
                assert one.shared.status()["missed_of"] == 0

    asyncio.run(scene())


def test_a_large_import_waits_for_who_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppressions, "AHEAD", 100)
    monkeypatch.setattr(suppressions, "TRY_AGAIN", 0.05)

    async def scene() -> None:
        many = [f"{number}@x.example" for number in range(1_000)]
        async with (
            running_server(tmp_path) as server,
            host(tmp_path, "mx1", server.url) as one,
            host(tmp_path, "mx2", server.url) as two,
        ):
            await one.add(*many)
            await until(lambda: all(two.has(each, BY_HAND) for each in many))
            assert two.shared.status()["missed_of"] == one.shared.status()["missed_of"] == 0

    asyncio.run(scene())

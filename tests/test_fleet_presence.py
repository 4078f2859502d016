"""What hosts say of themselves: by older and newer versions, through a real Redis, and in what status and page make of it."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from policies.fleet.book import Book
from policies.fleet.presence import Presence
from policies.fleet.roll import Roll
from policies.fleet.row import VERSION, Row
from policies.subqueue import State
from sidecar.core_status import Fleet
from sidecar.fleet.presences import PRESENCE, Presences
from sidecar.fleet.redis_store import RedisStore
from sidecar.fleet.shares import BOOK
from tests.redis_world import KEY, Sidecar, running_server, sidecars, store_at, until

pytestmark = pytest.mark.usefixtures("patient_store")

SAID = Presence("mx1", 5.0, sidecar="0.1.0", mode="act", held=12, live=40, subqueues=2, lag=0.5, helper=True)
FUTURE: dict[str, Any] = {"version": 2, "colour": "green", "load": [1, {"deep": None}]}


def test_what_is_written_is_read() -> None:
    assert Presence.read(SAID.text()) == SAID


def test_a_newer_version_s_fields_are_passed_over() -> None:
    assert Presence.read(json.dumps({**SAID._asdict(), **FUTURE})) == SAID._replace(version=2)


def test_an_older_version_lacks_fields_and_they_are_unknown() -> None:
    old = Presence.read('{"host": "mx1", "at": 5, "held": 3, "version": 0}')
    assert old == Presence("mx1", 5, held=3, version=0)
    assert (old.sidecar, old.lag, old.helper) == ("", None, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "a JSON list"),
        ("{", "Expecting"),
        ('{"at": 1}', "has no host"),
        ('{"host": "a", "at": "soon"}', "the at 'soon'; wanted seconds"),
        ('{"host": "a", "at": NaN}', "NaN is no number"),
        ('{"host": "a", "at": 1, "held": -1}', "the held -1; wanted a whole number from 0 up"),
        ('{"host": "a", "at": 1, "held": true}', "the held True"),
        ('{"host": "a", "at": 1, "helper": "yes"}', "the helper 'yes'; wanted true or false"),
    ],
)
def test_what_is_none_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Presence.read(text)


def test_state_of_a_future_version_is_read_by_this_one() -> None:
    row = Row(KEY, State.PAUSED, 2.0, 1, 3, 10.0, 20.0, "rule", "line", "mx9", version=7)
    values = {**row.values(), **FUTURE, "version": 7}
    assert Row.read(json.dumps(values)) == row
    book = {
        "server": "s", "settled": 1.0, "row": values, "token": 4, "lead": ["mx9", 4, 30.0, "why"],
        "shares": {"mx9": [1.5, 10, 30.0, 7, 2, 3.0, {"more": 1}]}, **FUTURE,
    }  # fmt: skip
    read = Book.read(json.dumps(book))
    assert read.row == row
    assert read.lead is not None
    assert (read.lead.host, read.lent()["mx9"].accepted) == ("mx9", 7)
    roll = {"server": "s", "settled": 1.0, "members": {"mx9": [1.0, 1.0, 0.1, "0.9"]}, **FUTURE}
    assert Roll.read(json.dumps(roll)).members["mx9"].alone == 0.1


def test_hosts_learn_of_each_other_and_of_one_of_another_version(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 2, met=False) as (one, two):
            for number, each in enumerate((one, two)):
                each.exchange.presences.describe = lambda name=each.host.name, held=number: SAID._replace(  # type: ignore[misc]
                    host=name, held=10 + held
                )
            await until(lambda: len(one.exchange.presences.known) == 2)
            await until(lambda: not any(host["silent"] for host in one.exchange.status()["hosts"]))
            status = Fleet.read({"fleet": one.exchange.status()})
            assert status is not None
            assert [(host.name, host.held, host.version, host.silent) for host in status.hosts] == [
                ("host-0", 10, "0.1.0", False),
                ("host-1", 11, "0.1.0", False),
            ]
            assert status.held == 21
            assert all(host.said is not None and host.said < 60.0 for host in status.hosts)

    asyncio.run(scene())


def test_what_is_no_presence_is_counted_and_its_host_shown_without(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, store_at(server.url) as store:
            presences = Presences(store)
            await store.put(f"{PRESENCE}mx1", SAID.text())
            await store.put(f"{PRESENCE}mx2", "no JSON")
            await presences.exchange(["mx1", "mx2", "mx3"], at=8.0, now=1.0)
            assert presences.known == {"mx1": SAID}
            assert presences.unreadable == 1
            assert presences.shown({"host": "mx1"}, at=8.0)["said_s"] == 3.0
            assert presences.shown({"host": "mx2"}, at=8.0)["held"] is None

    asyncio.run(scene())


def test_a_book_of_a_newer_version_is_followed_and_kept_readable(tmp_path: Path) -> None:
    """As in a rolling upgrade: what the newer host wrote holds mail on the older one, which writes the book after it."""

    async def scene() -> None:
        async with running_server(tmp_path) as server, store_at(server.url) as store:
            (read,) = await store.read([f"{BOOK}{KEY}"])
            row = Row(
                KEY, State.PAUSED, 2.0, 1, 3, read.at, read.at + 600.0, "rule", "line", "newer", version=VERSION + 1
            )
            book = json.loads(Book(read.server, read.at + 1.0, row, token=3).text())
            await store.put(f"{BOOK}{KEY}", json.dumps({**book, "row": {**book["row"], **FUTURE}, **FUTURE}))
            async with sidecars(server.url, 1) as (older,):
                await until(lambda: older.state() == "paused")
                older.engine.orders.close(KEY, by_whom="admin", now=time.time())
                await until(lambda: older.state() == "closed")
                await until(lambda: _closed_by_this_version(store))
            assert older.exchange.bad_texts == 0

    asyncio.run(scene())


async def _closed_by_this_version(store: RedisStore) -> bool:
    (read,) = await store.read([f"{BOOK}{KEY}"])
    row = Book.read(read.text).row
    return row.state is State.CLOSED and row.version == VERSION


def test_a_rolling_upgrade_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """Each host in its turn stops, and begins anew with an engine that knows nothing."""

    async def scene() -> None:
        async with running_server(tmp_path) as server, contextlib.AsyncExitStack() as stack:
            running = {name: await stack.enter_async_context(started(name, server.url)) for name in ("mx1", "mx2")}
            for each, _ in running.values():
                await until(lambda each=each: each.exchange.rounds >= 2)  # type: ignore[misc]
            running["mx1"][0].open()
            await until(lambda: running["mx2"][0].state() == "paused")
            for name in running:
                running[name][1].cancel()
                await asyncio.gather(running[name][1], return_exceptions=True)
                running[name] = await stack.enter_async_context(started(name, server.url))
                await until(lambda name=name: running[name][0].state() == "paused")  # type: ignore[misc]
            rows = [each.host.parts[KEY].replica.row for each, _ in running.values()]
            assert [(row.era, row.host) for row in rows] == [(1, "mx1")] * 2

    asyncio.run(scene())


@contextlib.asynccontextmanager
async def started(name: str, url: str) -> AsyncIterator[tuple[Sidecar, asyncio.Task[None]]]:
    each = Sidecar(name, url)
    task = asyncio.create_task(each.run())
    try:
        yield each, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

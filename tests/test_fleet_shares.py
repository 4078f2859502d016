"""The books of a large fleet in a real Redis: each host changes its own share, whatever others do at that moment."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from policies.fleet.book import Book, Lead, Share, Wish, lend, outer
from policies.fleet.row import Row
from policies.subqueue import State, SubQueue
from sidecar.fleet.book_store import Around, BookStore, Change, Changed, Outer, mine
from sidecar.fleet.redis_store import Read, RedisStore, Swap
from sidecar.fleet.shares import BOOK
from tests.redis_world import KEY, Sidecar, rights, running_server, sidecars, until

pytestmark = pytest.mark.usefixtures("patient_store")

ROW = Row(KEY, State.RAMPING, 10.0, 1, 5, 0.0, 0.0, "google/rate", 'a "line" with "shares":{ in it', "one")
CLEAR = ("mx1", "b\\", "mx1.example.com", "gr\udcfcn", "ü", "[1]", "{mx1", "a:[1,2,3,", "},token:")
UNCLEAR = ('q"uo"te', ',"mx1":[7,7,7]', '"},"token":')
NAME = "book:one"
HOSTS = 24


@asynccontextmanager
async def books(folder: Path, *options: str) -> AsyncIterator[tuple[RedisStore, BookStore]]:
    async with running_server(folder, *options) as server:
        store = RedisStore(server.url)
        try:
            yield store, BookStore(store)
        finally:
            await store.close()


async def put(store: RedisStore, **parts: object) -> tuple[Read, Book]:
    """Write a book as a host of an older version does: all of it, led for as long as this takes; as it then stands."""
    (read,) = await store.read([NAME])
    book = Book(read.server, 0.0, ROW, 9, Lead("lead", 9, read.at + 300.0))
    assert await store.swap([Swap(NAME, read, replace(book, **parts).text())]) == [None]  # type: ignore[arg-type]
    (read,) = await store.read([NAME])
    return read, Book.read(read.text)


def renewal(read: Read, book: Book, wish: Wish, pooled: float | None = 10.0, new: Book | None = None) -> Change:
    known = Around.shares_of(read.text)
    assert known is not None
    around = Around.shares_of(new.text()) if new is not None else None
    return Change(NAME, read.server, book.settled, known, around, mine(book, wish.host), wish, pooled, whole=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("each_server")
def test_redis_lends_as_the_book_does(tmp_path: Path, seed: int) -> None:
    async def scene() -> None:
        random = Random(seed)
        async with books(tmp_path) as (store, shelf):
            read, _ = await put(store)
            shares = {"gone": Share(3.0, 30, read.at - 1.0), "here": Share(2.0, 20, read.at + 300.0, 7)}
            read, book = await put(store, shares=shares)
            for step in range(80):
                need, accepted = random.choice([0, 1, 7, 3_000]), random.choice([0, step, 10**9])
                wish = Wish(random.choice(CLEAR), ROW, need, accepted=accepted, before=step, during=random.random())
                pooled = random.choice([0.0, 9.99, 10.0, 8.0])
                row = replace(book, row=book.row._replace(ceiling=pooled + 1.0, serial=step + 6))
                new = row if random.random() < 0.3 else None
                (told,) = await shelf.change([renewal(read, book, wish, pooled, new)])
                assert isinstance(told, Changed), told
                shared = (new or book).lent().items()
                living = {name: each for name, each in shared if each.expires > told.at}
                wanted = lend(replace(new or book, shares=living), wish, pooled, at=told.at)
                (read,) = await store.read([NAME])
                book = Book.read(read.text)
                assert told.text == read.text
                assert outer(book, led=False) == outer(wanted, led=False)
                assert _living(book, told.at) == _living(wanted, told.at)
                assert told.share == book.lent().get(wish.host)
                assert told.needs == sum(each.need for name, each in living.items() if name != wish.host)
                assert sum(each.rate for each in living.values()) <= 10.0 + 1e-9
            assert await store.redis.ttl(store.key(NAME)) > 1_000

    asyncio.run(scene())


def _living(book: Book, at: float) -> dict[str, Share]:
    """Rates are sums of many; in another order they are so in the last digit. What is over may stand there still."""
    return {name: each._replace(rate=round(each.rate, 9)) for name, each in book.lent().items() if each.expires > at}


HERE = {"mx1": Share(2.0, 20, 4e9)}


def undone(soon: float) -> dict[str, tuple[dict[str, Any], dict[str, Any], type]]:
    """List what stands there beside a lead until `soon`, what is asked, and what is answered."""
    return {
        "another life of the server": ({}, {"server": "another"}, Read),
        "nobody leads": ({"lead": None}, {}, Read),
        "whose lead is over": ({"lead": Lead("lead", 9, 5.0)}, {}, Read),
        "whose lead a clock wrote that was set back since": ({"lead": Lead("lead", 9, 4e9)}, {}, Read),
        "nothing is lent yet": ({"settled": 4e9}, {"settled": 4e9}, Read),
        "another share of its own": ({"shares": HERE}, {"mine": 7.0}, Read),
        "a share that it does not know": ({"shares": HERE}, {"mine": None}, Read),
        "a share that is there no more": ({}, {"mine": 4e9}, Read),
        "a name that cannot be told": ({"shares": {UNCLEAR[0]: HERE["mx1"]}}, {}, Read),
        "a name that looks like another's share": ({"shares": {UNCLEAR[1]: HERE["mx1"]}}, {}, Read),
        "a name that looks like the end": ({"shares": {UNCLEAR[2]: HERE["mx1"]}}, {}, Read),
        "another row": ({"row": ROW._replace(serial=6)}, {}, Outer),
        "another lead": ({"lead": Lead("other", 10, soon)}, {}, Outer),
    }


@pytest.mark.parametrize("case", undone(0.0))
def test_what_is_late_or_cannot_be_told_changes_nothing(tmp_path: Path, case: str) -> None:
    soon = time.time() + 300.0
    stands, asks, kind = undone(soon)[case]

    async def scene() -> None:
        async with books(tmp_path) as (store, shelf):
            before, known = await put(store, lead=Lead("lead", 9, soon), settled=stands.get("settled", 0.0))
            read, book = await put(store, **{"lead": Lead("lead", 9, soon), **stands})
            change = renewal(before, known, Wish("mx1", ROW, 5))
            change = change._replace(mine=mine(book, "mx1"))._replace(**asks)
            if kind is Read:  # what stands around the shares is as known
                around = Around.shares_of(read.text)
                assert around is not None
                change = change._replace(known=around)
            (told,) = await shelf.change([change])
            assert isinstance(told, kind)
            stand = told.read if isinstance(told, Outer) else told
            assert isinstance(stand, Read)
            assert Book.read(stand.text) == (replace(book, shares={}) if kind is Outer else book)
            assert (await store.read([NAME]))[0].text == read.text

    asyncio.run(scene())


def test_the_lead_goes_on_beside_others_and_only_where_nothing_else_has_changed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with books(tmp_path) as (store, shelf):
            read, book = await put(store, shares=HERE)
            later = replace(book, lead=Lead("lead", 9, read.at + 600.0), row=ROW._replace(ceiling=20.0, serial=6))
            wish = Wish("lead", ROW, 20)
            lead, other = renewal(read, book, wish, 20.0, later), renewal(read, book, Wish("mx2", ROW, 20))
            first, second, again = await shelf.change([other, lead, lead])
            assert isinstance(first, Changed)
            assert first.share is not None
            assert first.share.rate == pytest.approx(5.0)
            assert isinstance(second, Changed)
            assert second.share is not None
            assert second.share.rate == pytest.approx(20.0 / 3)
            assert isinstance(again, Read)
            found = Book.read(again.text)
            assert (found.row.ceiling, found.lead, set(found.lent())) == (20.0, later.lead, {"mx1", "mx2", "lead"})

    asyncio.run(scene())


def test_an_account_with_the_rights_of_older_versions_still_renews(tmp_path: Path) -> None:
    async def scene() -> None:
        given = [right for right in rights("secret") if right not in {"+setrange", "+expire"}]
        async with running_server(tmp_path, "--user", "default", "off", "--user", "sidecar", *given) as server:
            store = RedisStore(f"unix://sidecar@{server.socket}", password="secret")  # noqa: S106  # of this test's server
            read, book = await put(store)
            for need in (5, 6, 7):
                (told,) = await BookStore(store).change([renewal(read, book, Wish("mx1", ROW, need))])
                assert isinstance(told, Changed)
                (read,) = await store.read([NAME])
                book = Book.read(read.text)
                assert book.lent() == {"mx1": told.share}
                assert book.lent()["mx1"].need == need
            await store.close()

    asyncio.run(scene())


@pytest.mark.timeout(600)
def test_many_hosts_ramp_together_and_none_starves_the_lead(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, HOSTS, scale=600.0) as fleet:
            await until(lambda: all(each.host.is_of_many for each in fleet))
            fleet[0].open()
            await until(lambda: all(each.state() == "paused" for each in fleet))
            for number, each in enumerate(fleet):
                sub = each.engine.subqueues.get(KEY)
                assert sub is not None
                sub.held = 10 + number
            await until(lambda: all(each.state() == "ramping" for each in _probed(fleet)))
            for pace in (30.0, 10.0, 20.0):
                await until(lambda pace=pace: {_ceiling(each) for each in _led(fleet, pace)} == {pace})  # type: ignore[misc]
                await until(lambda pace=pace: sum(map(_rate, fleet)) > 0.9 * pace)  # type: ignore[misc]
                assert sum(map(_rate, fleet)) <= max(map(_ceiling, fleet)) * 1.001
            await until(lambda: all(_rate(each) > 0.0 for each in fleet))
            store = RedisStore(server.url)

            async def all_renewed() -> bool:
                (read,) = await store.read([f"{BOOK}{KEY}"])
                return '"sums":"' in read.text and read.text.count(" ]") >= HOSTS - 1  # all but whoever leads, in place

            await until(all_renewed)
            await store.close()

    asyncio.run(scene())


def _probed(fleet: list[Sidecar]) -> list[Sidecar]:
    """Have the probe of whoever may send one go well."""
    for each in fleet:
        if each.host.parts[KEY].may_probe():
            machine = _machine(each)
            machine.allowance(now=time.time(), held=10)
            machine.accepted(began=time.time(), now=time.time())
    return fleet


def _led(fleet: list[Sidecar], pace: float) -> list[Sidecar]:
    """Have whoever leads want that pace, of which the others hear from it alone."""
    for each in fleet:
        if each.host.parts[KEY].leads():
            _machine(each)._pace.rate = pace
    return fleet


def _machine(each: Sidecar) -> SubQueue:
    sub = each.engine.subqueues.get(KEY)
    assert sub is not None
    assert isinstance(sub.machine, SubQueue)
    return sub.machine


def _ceiling(each: Sidecar) -> float:
    return each.host.parts[KEY].replica.row.ceiling


def _rate(each: Sidecar) -> float:
    return each.host.parts[KEY].rate(50.0)

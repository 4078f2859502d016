"""Quotas in core: what of the configuration is refused, the way to the store and back, and what an admin may ask."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from policies.audit import KINDS
from policies.quota import Counted, Per, Within
from policies.telling import Telling
from sidecar import quota_command
from sidecar.cli import sidecar
from sidecar.config import Config, QuotaConfig
from sidecar.database import StoreUnavailable
from sidecar.quota import QuotaBook, open_quotas, read_quotas
from sidecar.store import Store
from sidecar.toml_table import ConfigError
from tests.quota_world import admitted, end

ROW = QuotaConfig("q", Per.TENANT, 10, Within.DAY)


def config(*rows: QuotaConfig) -> Config:
    return Config(quota=rows)


def test_what_stands_there_is_read() -> None:
    (first, second) = read_quotas(
        config(ROW, QuotaConfig("m", Per.CLIENT, 5, Within.HOUR, Counted.MESSAGES, burst=2, where="provider = google")),
        file=Path("x.toml"),
    )
    assert (first.burst, first.where, first.rate) == (10, None, 10 / 86_400)
    assert (second.burst, second.counted, second.by_provider) == (2, Counted.MESSAGES, True)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([QuotaConfig("a b", Per.TENANT, 1, Within.DAY)], "x.toml: quota[0].name: found 'a b', wanted letters"),
        ([QuotaConfig("", Per.TENANT, 1, Within.DAY)], "x.toml: quota[0].name: found '', wanted letters"),
        ([ROW, ROW], "x.toml: quota[1].name: there is a quota q before it"),
        ([QuotaConfig("q", Per.TENANT, 1, Within.DAY, warn=80.0)], "x.toml: quota[0].warn: found 80.0, wanted a share"),
        ([QuotaConfig("q", Per.TENANT, 1, Within.DAY, where="sendr = a")], "x.toml: quota[0].where: column 1: unknown"),
        ([QuotaConfig("q", Per.TENANT, 1, Within.DAY, where="sender =")], "x.toml: quota[0].where: column 9:"),
    ],
)
def test_what_cannot_be_used_is_refused(rows: list[QuotaConfig], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_quotas(config(*rows), file=Path("x.toml"))
    assert str(refused.value).startswith(says)


@contextlib.asynccontextmanager
async def book(path: Path, *rows: QuotaConfig) -> AsyncIterator[QuotaBook]:
    """As core makes it, and as it ends."""
    with ThreadPoolExecutor(1) as thread:
        store = Store.open(path / "core.db")
        read = read_quotas(config(*(rows or (ROW,))), file=Path("x.toml"))
        quotas = open_quotas(read, store.quotas, lambda _: None, now=time.time())
        made = QuotaBook(quotas, store.quotas, thread, Telling())
        yield made
        await made.store()
        store.close()


async def in_use(made: QuotaBook) -> list[tuple[str, int]]:
    answer = await made.answer({"do": "list"})
    return [(row["key"], round(row["in_use"])) for row in answer["buckets"]]


def test_a_restart_finds_what_was_in_use(tmp_path: Path) -> None:
    async def story() -> None:
        async with book(tmp_path) as made:
            admitted(made.quotas, 3, now=time.time())
            end(made.quotas, 3, now=time.time())
            admitted(made.quotas, 2, now=time.time(), message="under way")
        for _ in range(2):  # and finding it changes nothing
            async with book(tmp_path) as made:
                assert await in_use(made) == [("shop", 3)]
        async with book(tmp_path, QuotaConfig("other", Per.TENANT, 10, Within.DAY)) as made:
            assert await in_use(made) == []
            await made._prune(now=time.time())
        async with book(tmp_path) as made:
            assert await in_use(made) == [], "of a quota that there was no more nothing is kept"

    asyncio.run(story())


def test_what_has_come_back_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with book(tmp_path) as made:
            for number, count in enumerate((1, 9)):
                admitted(made.quotas, count, now=time.time(), message=str(number), sasl_username=f"t{number}")
                end(made.quotas, count, now=time.time(), message=str(number), sasl_username=f"t{number}")
            await made.store()
            await made._prune(now=time.time() + 3 * 8_640)
            assert [row.key for row in made._table.all()] == ["t1"]

    asyncio.run(story())


def test_a_store_that_takes_no_writes_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with book(tmp_path) as made:
            admitted(made.quotas, 3, now=time.time())
            end(made.quotas, 3, now=time.time())

            def full(_: Any) -> None:
                raise StoreUnavailable("disk full")

            with monkeypatch.context() as patched:
                patched.setattr(made._table, "put", full)
                assert not await made.store()
            assert await made.store()
            assert [row.taken for row in made._table.all()] == [3.0]

    asyncio.run(story())


def test_who_is_pushed_out_is_taken_out_of_the_store_and_out_of_what_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else ever new senders fill disk and memory."""

    async def story() -> None:
        async with book(tmp_path, QuotaConfig("q", Per.SENDER, 10, Within.DAY, keys=5)) as made:

            async def round_of_senders(count: int) -> None:
                for number in range(count):
                    sender, now = f"{number}@shop.example", time.time()
                    admitted(made.quotas, 1, now=now, message=sender, sender=sender)
                    end(made.quotas, 1, now=now, message=sender, sender=sender)
                    await made.store()

            await round_of_senders(20)
            assert len(made._table.all()) == 5

            def full(_: Any) -> None:
                raise StoreUnavailable("disk full")

            with monkeypatch.context() as patched:
                patched.setattr(made._table, "put", full)
                await round_of_senders(50)
                assert len(made._unstored) == 5

    asyncio.run(story())


def test_a_name_that_is_no_utf8_is_stored(tmp_path: Path) -> None:
    async def story() -> None:
        async with book(tmp_path) as made:
            admitted(made.quotas, 1, now=time.time(), sasl_username="b\udcfc")
            end(made.quotas, 1, now=time.time(), sasl_username="b\udcfc")
            assert await made.store()

    asyncio.run(story())


def test_an_admin_looks_and_resets_and_that_is_written_down(tmp_path: Path) -> None:
    async def story() -> None:
        async with book(tmp_path) as made:
            admitted(made.quotas, 12, now=time.time())
            (row,) = (await made.answer({"do": "show", "key": "shop"}))["buckets"]
            assert (row["quota"], row["room"], row["under_way"], row["beyond"]) == ("q", 0, 10, 2)
            assert 8_000 < row["room_again_s"] <= 8_640
            answer = await made.answer({"do": "reset", "key": "shop", "quota": "q", "who": "root"})
            assert answer == {"reset": ["q"], "key": "shop", "stored": True}
            (change,) = made._telling.changes
            assert (change.kind, change.key, change.rule, change.by_whom) == ("quota-reset", "", "quota/q", "root")
            assert change.kind in KINDS
            assert change.why == "q for shop: 10.0 of 10 were in use"
            assert admitted(made.quotas, 12, now=time.time(), message="2") == 10
            end(made.quotas, 10, now=time.time())
            assert await in_use(made) == [("shop", 10)], "what was under way counts no more"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({}, "wanted one of list, show, reset"),
        ({"do": "list", "quota": "none"}, "none: no such quota; known: q"),
        ({"do": "reset", "key": "nobody"}, "nobody: nothing is in use of any quota"),
    ],
)
def test_a_request_that_makes_no_sense(request_: dict[str, Any], says: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with book(tmp_path) as made:
            with pytest.raises(ValueError, match=says):
                await made.answer(request_)

    asyncio.run(story())


ANSWER = {
    "ok": True, "in_use": 3,
    "buckets": [
        {"quota": "q", "per": "tenant", "key": "shop\x1b[2J", "count": "recipients", "limit": 10, "within": "day",
         "burst": 10, "in_use": 10.0, "room": 0, "room_again_s": 8_640.0, "under_way": 0, "beyond": 2, "defers": True},
    ],
}  # fmt: skip


def ran(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(quota_command, "ask_core", lambda *_, **__: answer)
    result = CliRunner().invoke(sidecar, ["quota", *words], obj=Config())
    return result.exit_code, result.output


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    status, printed = ran(monkeypatch, ANSWER, "list")
    assert status == 0
    assert "10 recipients/day" in printed
    assert "8640 s" in printed
    assert "2 more are in use: --limit" in printed
    assert "\x1b" not in printed
    assert ran(monkeypatch, ANSWER, "show", "shop")[0] == 0
    assert ran(monkeypatch, {"ok": True, "buckets": []}, "show", "shop")[0] == 1
    reset = {"ok": True, "reset": ["q"], "key": "shop", "stored": False}
    assert ran(monkeypatch, reset, "reset", "shop")[1].startswith("shop: q emptied (in memory;")
    assert ran(monkeypatch, reset, "reset", "shop", "--json")[1].startswith('{"reset": ["q"]')

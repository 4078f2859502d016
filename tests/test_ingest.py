"""The ingest interface over real HTTP, its outbox, and core at its end: each event once, whatever fails in between."""

import asyncio
import contextlib
import json
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import requests

from policies.stored_address import hash_of
from policies.suppression import Listed, Reason
from sidecar import ingest as ingest_module
from sidecar.config import Config, ConfigError, IngestConfig, StoreConfig
from sidecar.control import CoreUnreachable
from sidecar.ingest import Allowance, Ingest, ingest, listening
from sidecar.lab.ports import free_port
from tests.suppression_core import Core, core

TOKEN = "a-token-of-more-than-twenty"  # noqa: S105  # of the tests alone


def config_in(directory: Path, **settings: Any) -> Config:
    (directory / "token").write_text(f"{TOKEN}\n")
    given = {"listen": f"127.0.0.1:{free_port()}", "token_file": str(directory / "token"), **settings}
    return Config(store=StoreConfig(path=str(directory)), ingest=IngestConfig(**given))


class Site:
    """The interface with core behind it."""

    def __init__(self, config: Config, it: Ingest, core: Core) -> None:
        self.config = config
        self.it = it
        self.core = core

    async def post(
        self, *events: Any, body: bytes | None = None, token: str = TOKEN, path: str = "/v1/events"
    ) -> requests.Response:
        data = b"\n".join(json.dumps(event).encode() for event in events) if body is None else body
        url = f"http://{self.config.ingest.listen}{path}"
        headers = {"Authorization": f"Bearer {token}"}
        return await asyncio.to_thread(requests.post, url, data=data, headers=headers, timeout=60)

    async def handed_over(self) -> None:
        while await self.it._hand_over():
            pass


@contextlib.asynccontextmanager
async def site(directory: Path, **settings: Any) -> AsyncIterator[Site]:
    config = config_in(directory, **settings)
    async with core(directory) as behind:

        async def ask(request: dict[str, Any]) -> dict[str, Any]:
            return await behind.part.answer(json.loads(json.dumps(request)))

        it = ingest(config, ask)
        try:
            async with listening(config, it):
                yield Site(config, it, behind)
        finally:
            it.close()


def event(number: int, kind: str = "complaint", **more: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "kind": kind,
        "recipient": f"user{number}@x.example",
        "sending_domain": "news.shop.example",
        **more,
    }


def rows(directory: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(directory / "outside.db")) as connection:
        return connection.execute(query).fetchall()


def test_a_complaint_suppresses_and_names_nobody_in_the_outside_store(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as it:
            answer = await it.post(event(1, campaign="may"), event(2, "unsubscribe"), event(3, "open"))
            assert answer.status_code == 200
            assert answer.json() == {"accepted": 3, "repeated": 0, "refused": []}
            await it.handed_over()
            assert it.core.listed("user1@x.example") == (Listed("domain:shop.example", Reason.COMPLAINT),)
            assert it.core.listed("user2@x.example") == (Listed("domain:shop.example", Reason.UNSUBSCRIBE),)
            assert it.core.listed("user3@x.example") == ()
            (entry, *_) = (await it.core.ask("check", address="user1@x.example"))["entries"]
            assert (entry["evidence"], entry["by_whom"]) == ("complaint e1, campaign may", "ingest")

    asyncio.run(story())
    assert rows(tmp_path, "SELECT count(*) FROM suppression_outbox") == [(0,)]
    stored = rows(
        tmp_path, "SELECT recipient, recipient_domain, sending_domain, campaign FROM ingest_event WHERE key = 'e1'"
    )
    assert stored == [(hash_of("user1@x.example"), "x.example", "news.shop.example", "may")]


def test_an_event_that_comes_again_is_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as it:
            await it.post(event(1), event(2))
            answer = await it.post(event(2), event(3), event(3))
            assert answer.json() == {"accepted": 1, "repeated": 2, "refused": []}
            await it.handed_over()
            await it.core.ask("remove", address="user1@x.example")
            await it.post(event(1))
            await it.handed_over()
            assert it.core.listed("user1@x.example") == ()

    asyncio.run(story())


def test_core_hears_once_of_what_was_said_twice(tmp_path: Path) -> None:
    """Core stored it, and we died, or lost the connection, before we knew."""

    async def story() -> None:
        async with site(tmp_path) as it:
            await it.post(event(1))
            ask = it.it._ask_core

            async def lost(request: dict[str, Any]) -> dict[str, Any]:
                await ask(request)
                raise CoreUnreachable("lost")

            it.it._ask_core = lost
            with pytest.raises(CoreUnreachable):
                await it.it._hand_over()
            assert it.core.listed("user1@x.example") != ()
            await it.core.ask("remove", address="user1@x.example")
            it.it._ask_core = ask
            await it.handed_over()
            assert it.core.listed("user1@x.example") == ()
        async with site(tmp_path) as it:
            await it.post(event(9))
            await it.handed_over()
            assert it.core.listed("user9@x.example") != ()

    asyncio.run(story())


def test_while_core_is_away_events_wait(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as it:
            ask = it.it._ask_core
            asked = asyncio.Event()

            async def away(_: dict[str, Any]) -> dict[str, Any]:
                asked.set()
                raise CoreUnreachable("core does not run here")

            it.it._ask_core = away
            running = asyncio.create_task(it.it.run())
            assert (await it.post(event(1))).status_code == 200
            await asyncio.wait_for(asked.wait(), 60)
            heard = asyncio.Event()

            async def back(request: dict[str, Any]) -> dict[str, Any]:
                heard.set()
                return await ask(request)

            it.it._ask_core = back
            await asyncio.wait_for(heard.wait(), 60)
            assert it.core.listed("user1@x.example") != ()
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    asyncio.run(story())


def test_one_bad_event_does_not_keep_the_others_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as it:
            answer = await it.post(event(1), event(2, "opened"), "x", event(3))
            said = answer.json()
            assert (answer.status_code, said["accepted"]) == (200, 2)
            assert [(each["item"], each["id"]) for each in said["refused"]] == [(1, "e2"), (2, None)]
            assert said["refused"][0]["why"].startswith("kind: found 'opened', wanted one of ")

    asyncio.run(story())


def test_who_may_not_and_what_is_too_much(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as it:
            for token in ("", "wrong", TOKEN + "x", "\xfc"):
                answer = await it.post(event(1), token=token)
                assert (answer.status_code, answer.json()["error"][:10]) == (401, "wanted the")
            assert (await it.post(body=b"[")).status_code == 400
            assert (await it.post(*[event(number) for number in range(1_001)])).status_code == 413
            assert (await it.post(body=b" " * ((1 << 20) + 1))).status_code == 413
            assert (await it.post(event(1), path="/v1/event")).status_code == 404

    asyncio.run(story())
    assert rows(tmp_path, "SELECT count(*) FROM ingest_event") == [(0,)]


def test_who_sends_more_than_their_share_is_told_when_to_come_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path, per_minute=1) as it:
            assert (await it.post(*[event(number) for number in range(1_000)])).status_code == 200
            answer = await it.post(event(1))
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) >= 60

    asyncio.run(story())
    assert rows(tmp_path, "SELECT count(*) FROM ingest_event") == [(1_000,)]


def test_a_store_that_cannot_be_written_takes_nothing_and_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as it:
            it.it._database.connection.execute("PRAGMA busy_timeout = 50")
            other = sqlite3.connect(tmp_path / "outside.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            answer = await it.post(event(1))
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
            other.execute("ROLLBACK")
            other.close()
            assert (await it.post(event(1))).json()["accepted"] == 1

    asyncio.run(story())


def test_a_person_is_erased_from_the_outside_store_as_well(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as it:
            await it.post(event(1), event(2), event(3, "bounce", reply="550 <user1@x.example>: no such user"))
            assert (await it.it.erase({"address": "User1@x.example"}))["rows"] == 2
            assert it.core.listed("user1@x.example") != ()  # what waited for core got there first
            with pytest.raises(ValueError, match="wanted"):
                await it.it.erase({"address": 7})

    asyncio.run(story())
    text = json.dumps(rows(tmp_path, "SELECT * FROM ingest_event")).lower()
    assert "user1@" not in text
    assert hash_of("user1@x.example") not in text
    assert hash_of("user2@x.example") in text


def test_with_suppression_off_nothing_piles_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as it:
            off = Config(store=it.config.store, suppression=type(it.config.suppression)(enabled=False))
            it.it._config = off
            await it.post(event(1))
            await it.handed_over()
            assert it.core.listed("user1@x.example") == ()

    asyncio.run(story())
    assert rows(tmp_path, "SELECT count(*) FROM suppression_outbox") == [(0,)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"token_file": ""}, "ingest.token_file: not set"),
        ({"token_file": "/nowhere/token"}, "ingest.token_file: /nowhere/token: cannot be read"),
        ({"listen": "8026"}, "ingest.listen: found '8026', wanted ADDRESS:PORT"),
    ],
)
def test_what_keeps_it_from_beginning(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    async def story() -> None:
        async with site(tmp_path, **settings):
            pass

    with pytest.raises(ConfigError) as refused:
        asyncio.run(story())
    assert str(refused.value).startswith(said)


def test_a_short_token_and_a_port_in_use(tmp_path: Path) -> None:
    async def story(**settings: Any) -> None:
        async with site(tmp_path, **settings):
            pass

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="choose another port"):
            asyncio.run(story(listen=f"127.0.0.1:{other.getsockname()[1]}"))
    (tmp_path / "short").write_text("short")
    with pytest.raises(ConfigError, match="5 characters; wanted 20 at least"):
        asyncio.run(story(token_file=str(tmp_path / "short")))


def test_the_allowance_comes_back_with_time() -> None:
    allowance = Allowance(60)
    assert allowance.wait("a", 60, now=0.0) == 0
    assert allowance.wait("a", 10, now=1.0) == pytest.approx(9.0)
    assert allowance.wait("b", 60, now=1.0) == 0
    assert allowance.wait("a", 10, now=10.0) == 0
    assert allowance.wait("a", 5_000, now=1_000.0) == 0  # more than a minute's worth at once
    assert allowance.wait("a", 1, now=1_001.0) > 0


def test_addresses_beyond_number_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "_CLIENTS_MAX", 2)
    allowance = Allowance(1)
    for client in "abc":
        allowance.wait(client, 1, now=0.0)
    assert sorted(allowance._left) == ["b", "c"]

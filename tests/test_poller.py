"""The poller with a real store: what is told, what fails, what is asked again after a restart; and the commands."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from parsers.feeds.asking import DnsAsk, HttpAsk, Poll, Reading, Trouble
from parsers.observation import Observation, Outcome
from policies.cadence import Cadence, Standing
from sidecar import feeds_command, mx, scope
from sidecar.asking import Asking
from sidecar.cli import sidecar
from sidecar.config import Config, ConfigError
from sidecar.feeds import Feed
from sidecar.outside_store import OutsideStore
from sidecar.poller import Polled, Poller
from sidecar.scope import Scope
from tests.outside_world import Response, http_server, name_server

SCOPE = Scope(("192.0.2.1",), ("example.com",))
NEVER = Cadence(1e9)


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[OutsideStore]:
    store = OutsideStore.open(tmp_path / "outside.db")
    yield store
    store.close()


def row(poll: Callable[[Config, Scope, float], Poll], cadence: Cadence = NEVER, *, wanted: bool = True) -> Feed:
    return Feed("about", lambda _: wanted, lambda _: cadence, poll)


def tells(_: Config, scope: Scope, __: float) -> Poll:
    yield ()
    return Reading(tuple(Observation("f", each, "score", Outcome.OK, 1.0) for each in scope.addresses))


def breaks(_: Config, __: Scope, ___: float) -> Poll:
    yield ()
    raise KeyError("nobody thought of this")


def misses_a_file(_: Config, __: Scope, ___: float) -> Poll:
    raise ConfigError("/etc/sidecar/google.json: no such file")


def poller(store: OutsideStore, told: Callable[[str, Polled], None], **feeds: Feed) -> Poller:
    asking = Asking(mx.system_resolver)
    return Poller(Config(), feeds, store, asking, find_scope=lambda _: SCOPE, told=told)


def test_a_broken_feed_harms_no_other_one(store: OutsideStore) -> None:
    told: list[tuple[str, Polled]] = []
    soon = Cadence(0.5)
    feeds = {
        "a": row(breaks, soon),
        "b": row(misses_a_file, soon),
        "c": row(tells, soon),
        "off": row(breaks, wanted=False),
    }

    async def run() -> None:
        done = asyncio.Event()

        def hears(name: str, polled: Polled) -> None:
            told.append((name, polled))
            if len(told) == 3:
                done.set()

        running = asyncio.create_task(poller(store, hears, **feeds).run())
        await asyncio.wait_for(done.wait(), 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    how = {name: polled.reading.trouble for name, polled in told}
    assert how == {"a": Trouble.FORMAT, "b": Trouble.CONFIGURATION, "c": None}
    assert [(known.object, known.value) for known in store.known()] == [("192.0.2.1", 1.0)]
    assert store.standing("b").why == "/etc/sidecar/google.json: no such file"


def test_a_restart_asks_when_it_was_planned(store: OutsideStore) -> None:
    told: list[str] = []

    def hears(name: str, _: Polled) -> None:
        told.append(name)

    asyncio.run(poller(store, hears, c=row(tells, Cadence(1000.0, jitter=0.0))).poll("c"))
    planned = store.standing("c").next_at

    async def again() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await poller(store, hears, c=row(tells, Cadence(1000.0, jitter=0.0))).run()

    asyncio.run(again())
    assert len(told) == 1
    assert store.standing("c").next_at == planned


def test_both_worlds_in_one_poll(store: OutsideStore) -> None:
    with http_server(lambda _: Response(200, b"seven")) as server:

        def asks_both(_: Config, __: Scope, ___: float) -> Poll:
            http, dns = yield (HttpAsk(server.url), DnsAsk("a.example"))
            return Reading((Observation("f", "o", "m", Outcome.OK, text=f"{http!r} {dns!r}"),))

        async def run() -> Polled:
            async with name_server({("a.example", "A"): ["192.0.2.7"]}) as (_, resolver):
                feed = {"f": row(asks_both)}
                asking = Asking(resolver)
                made = Poller(Config(), feed, store, asking, find_scope=lambda _: SCOPE, told=lambda *_: None)
                return await made.poll("f")

        (seen,) = asyncio.run(run()).reading.observations
    assert "b'seven'" in seen.text
    assert "192.0.2.7" in seen.text
    assert [answer.body for answer in store.answers("f", 9)] == [b"seven"]


# The commands.


def listed(config: Path) -> dict[str, dict[str, Any]]:
    output = CliRunner().invoke(sidecar, ["--config", str(config), "feeds", "--json"]).output
    return {row["feed"]: row for row in json.loads(output)}


def test_feeds_without_a_store_and_with_one(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text(f'[store]\npath = "{tmp_path}"\n[feeds.senderscore]\nenabled = true\n')
    before = listed(config)["senderscore"]
    assert before["state"] == "not yet asked"

    store = OutsideStore.open(tmp_path / "outside.db")
    reading = Reading((), Trouble.REFUSED, "not registered")
    store.polled("senderscore", store.standing("senderscore").after(reading, NEVER, now=1.0, dice=0), (), (), now=1.0)
    store.close()
    after = listed(config)["senderscore"]
    assert (after["state"], after["trouble"], after["why"]) == ("blind", "refused", "not registered")
    shown = CliRunner().invoke(sidecar, ["--config", str(config), "feeds"])
    assert shown.exit_code == 0
    assert "senderscore" in shown.output


@pytest.mark.parametrize(("answer", "status"), [(["127.0.4.97"], 0), (["127.255.255.255"], 1)])
def test_poll_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: list[str], status: int) -> None:
    monkeypatch.setattr(feeds_command, "find", lambda _: SCOPE)
    config = tmp_path / "sidecar.toml"
    zone = {("1.2.0.192.score.senderscore.com", "A"): answer}

    async def run() -> tuple[int, str]:
        async with name_server(zone) as (_, resolver):
            (server,) = resolver().nameservers
            config.write_text(f'[dns]\nresolvers = ["{server.address}:{server.port}"]\n')  # type: ignore[union-attr]  # one of ours
            arguments = ["-m", "sidecar", "--config", str(config), "poll", "senderscore", "--json"]
            result = await asyncio.to_thread(CliRunner().invoke, sidecar, arguments[2:])
            return result.exit_code, result.output

    exit_code, output = asyncio.run(run())
    assert exit_code == status
    told = json.loads(output)
    assert bool(told["observations"]) == (status == 0)


def test_only_public_addresses_are_asked_about() -> None:
    found = scope._public(["192.168.1.7", "127.0.0.1", "loopback-only", "8.8.4.4", "[2001:4860::1]", "1.1.1.1", ""])
    assert found == ("1.1.1.1", "8.8.4.4", "2001:4860::1")


def test_report_mail_stands_among_the_feeds(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text(f'[store]\npath = "{tmp_path}"\n')
    assert listed(config)["report-mail"]["state"] == "not yet asked"
    store = OutsideStore.open(tmp_path / "outside.db")
    standing = Standing(asked_at=2.0, told_at=1.0, since=1.0, trouble=Trouble.NETWORK, why="imap: no route")
    store.polled("report-mail", standing, (), (), now=2.0)
    store.close()
    shown = listed(config)["report-mail"]
    assert (shown["state"], shown["why"], shown["every_s"]) == ("blind", "imap: no route", 300.0)

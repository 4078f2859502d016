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
from sidecar.outside_store import OutsideStore, RawAnswer
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
        await asyncio.wait_for(done.wait(), 60)
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


ADDRESSES = tuple(f"192.0.2.{n}" for n in range(1, 6))
LISTINGS = {
    # what a list says of .1 and .2, poll after poll -> what the other feed is asked about after each
    "at first and once more": (["10", "10", "11"], [{1}, set(), {2}]),
    "again after its end": (["10", "00", "10"], [{1}, set(), {1}]),
    "nobody knows in between": (["10", "??", "10"], [{1}, set(), set()]),
    "both at once": (["11"], [{1, 2}]),
    "never": (["00", "??"], [set(), set()]),
}


def what_it_says(address: str, word: str) -> Observation:
    known = word != "?"
    outcome = Outcome.OK if known else Outcome.UNKNOWN
    return Observation("dnsbl-1h", address, "listed.spamcop", outcome, float(word) if known else None)


@pytest.mark.parametrize(("says", "wanted"), LISTINGS.values(), ids=list(LISTINGS))
def test_a_new_listing_is_asked_about_at_once(store: OutsideStore, says: list[str], wanted: list[set[int]]) -> None:
    now: list[str] = []
    asked: list[set[str]] = []

    def lists(_: Config, __: Scope, ___: float) -> Poll:
        yield ()
        of_a_domain = Observation("dnsbl-1h", "bad.example", "listed.surbl", Outcome.OK, 1.0)
        return Reading((*(what_it_says(*pair) for pair in zip(ADDRESSES, now[0], strict=False)), of_a_domain))

    def says_why(_: Config, scope: Scope, __: float) -> Poll:
        asked.append(set(scope.addresses))
        yield ()
        return Reading(tuple(Observation("why", each, "listed.ALL", Outcome.OK, 1.0) for each in scope.addresses))

    feeds = {"dnsbl-1h": row(lists), "why": row(says_why)._replace(on_listing=True)}

    async def run() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        asking = Asking(mx.system_resolver)
        scope = Scope(ADDRESSES, ("bad.example",))
        made = Poller(
            Config(), feeds, store, asking, find_scope=lambda _: scope, told=lambda name, _: told.put_nowait(name)
        )
        await made.poll("why")  # the whole poll, which says when the next one is
        planned = store.standing("why").next_at
        watching = asyncio.create_task(made._follow_listings("why"))
        for word, numbers in zip(says, wanted, strict=True):
            now[:], asked[:] = [word], []
            while not told.empty():
                told.get_nowait()
            await made.poll("dnsbl-1h")
            assert await told.get() == "dnsbl-1h"
            if numbers:
                assert await asyncio.wait_for(told.get(), 60) == "why"
            assert asked == ([{f"192.0.2.{number}" for number in numbers}] if numbers else [])
            assert store.standing("why").next_at == planned
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(run())


def test_a_feed_that_wants_no_questions_is_not_asked_about_a_listing(store: OutsideStore) -> None:
    def refuses(_: Config, __: Scope, ___: float) -> Poll:
        yield ()
        return Reading((), Trouble.REFUSED, "429", 3600.0)

    told: list[str] = []

    async def run() -> None:
        made = poller(
            store, lambda name, _: told.append(name), why=row(refuses, Cadence(60.0))._replace(on_listing=True)
        )
        await made.poll("why")
        made._listed["why"].put_nowait("192.0.2.1")
        watching = asyncio.create_task(made._follow_listings("why"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await watching
        assert made._listed["why"].empty()

    asyncio.run(run())
    assert told == ["why"]


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


def test_kept_answers_are_shown_as_they_came_and_nobody_is_asked(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text(f'[store]\npath = "{tmp_path}"\n')

    def run(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(sidecar, ["--config", str(config), "poll", "snds", "--kept", *options])
        return result.exit_code, result.output

    assert run("5") == (1, "snds: no answer is kept; lists and other look-ups in the DNS leave none\n")
    store = OutsideStore.open(tmp_path / "outside.db")
    bodies = (b"old", b"first\n\x1b[2J second \xff\n", b"newest")
    for number, body in enumerate(bodies):
        answer = RawAnswer(f"GET https://snds.example/?key=[secret]&n={number} -> 200", body)
        store.polled("snds", Standing(), (), [answer], now=3600.0 * number)
    store.close()
    status, shown = run("2")
    assert status == 0
    assert shown.splitlines()[0] == "1970-01-01T02:00:00+00:00 GET https://snds.example/?key=[secret]&n=2 -> 200"
    assert "  newest\n" in shown
    assert "  \\x1b[2J second \ufffd\n" in shown  # it steers no terminal
    assert "old" not in shown
    (row,) = map(json.loads, run("1", "--json")[1].splitlines())
    assert (row["at"], row["body"]) == ("1970-01-01T02:00:00+00:00", "newest")


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

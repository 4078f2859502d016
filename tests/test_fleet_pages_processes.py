"""Two outside processes, a Redis, a Slack and a PagerDuty: an incident that both see is one message and one page."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.conditions import CONDITIONS
from policies.fleet.page import Page
from sidecar.control import CoreUnreachable, Handler, ask_core, serve_control
from sidecar.database import Database
from sidecar.fleet.page_names import PAGE
from sidecar.incident_store import IncidentStore
from sidecar.statements import SCHEMA
from tests.alert_world import KEY, PagerDuty, Slack, note
from tests.lookout_world import ATTEMPT
from tests.older_world import at_hand, unpacked
from tests.outside_world import http_server
from tests.redis_world import PATIENCE, running_server, store_at, until

GOOGLE = "pf-rep:log:google:bad.deferrals.15m"
YAHOO = "pf-rep:log:yahoo:bad.deferrals.15m"
ROOT = Path(__file__).parents[1]
VERSIONS = {"dce575a": "a page's name was the key of the alert that opened the incident"}
"""Commits, and what they are of before."""
PATIENT = f"""
from sidecar.cli import main
from sidecar.fleet import redis_store

redis_store.ANSWER_WITHIN = {PATIENCE / 2}
main()
"""
"""An outside process that goes on waiting for an answer on a machine with other work."""
CORE: dict[str, Handler] = {"health": lambda _: {"log_lag_s": 0.1}, "queue": lambda _: {}, "noticed": lambda _: {}}


class Outside:
    """One host: its directory, its process."""

    def __init__(
        self, directory: Path, redis: str, slack: str, pagerduty: str, *, looks_at: str = "provider", tree: Path = ROOT
    ) -> None:
        """`looks_at`: the kind of thing whose deferrals are an alert. `tree`: the program, of this version or another."""
        directory.mkdir()
        self.tree = tree
        self.directory = directory
        (directory / "key").write_text(KEY)
        (directory / "url").write_text(f"{slack}/services/T0/B0/x")
        self.config = directory / "sidecar.toml"
        self.config.write_text(
            f'runtime_directory = "{directory}"\n[store]\npath = "{directory}"\nredis = "{redis}"\n'
            f'[fleet]\nhost = "{directory.name}"\n[web]\nlisten = "127.0.0.1:0"\n'
            '[dns]\nresolvers = ["127.0.0.1:1"]\n'
            "[subqueues]\nscale = 200\n"  # looks each second, and three seconds of calm
            f'[[condition]]\nname = "bad"\nwhen = "measure = deferrals.15m and kind = {looks_at} and share > 20%"\n'
            'severity = "critical"\n'
            f'[[channel]]\nname = "chat"\nkind = "slack"\nseverities = ["critical"]\nurl_file = "{directory}/url"\n'
            f'[[channel]]\nname = "pager"\nkind = "pagerduty"\nseverities = ["critical"]\nrouting_key_file = "{directory}/key"\nurl = "{pagerduty}"\n'
            f"[alerts]\nwithout = {[each.name for each in CONDITIONS]}\n"
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-c", PATIENT, "--config", str(self.config), "outside"]
        with (self.directory / "said").open("wb") as said:
            process = subprocess.Popen(command, stderr=said, cwd=self.tree)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(timeout=60)

    def is_there(self) -> bool:
        try:
            ask_core(self.directory / "outside", {"command": "none such"}, timeout=PATIENCE)
        except CoreUnreachable:
            return False
        except Exception:  # noqa: BLE001  # it refused: so it is there
            return True
        return True

    def attempts(self, number: int, status: str, provider: str) -> None:
        """Core has written down what the log says of them."""
        row = (time.time(), "a.example", provider, "4.7.28", status, "google/rate", "", "")
        schema = SCHEMA._replace(directory=str(self.tree / "sidecar/schema"))  # of the core of that version
        core = Database.open(self.directory / "core.db", schema)
        with core.transaction():
            core.connection.executemany(ATTEMPT, [row] * number)
        core.close()

    async def takes_on(self, incident: int) -> dict[str, Any]:
        """Somebody says so; what it answers. It may ask core meanwhile, which is of our loop."""
        ack = {"command": "incident-ack", "incident": incident, "who": "ann"}
        return await asyncio.to_thread(lambda: ask_core(self.directory / "outside", ack, timeout=PATIENCE))

    def incidents(self) -> list[tuple[int, str, str]]:
        store = IncidentStore.open_read_only(self.directory / "outside.db")
        found = [(each.id, str(each.phase), each.acked_by) for each in store.incidents(since=0.0)]
        store.close()
        return found


async def _is_agreed(url: str, key: str, *, hosts: int) -> bool:
    """Whether the store knows who sees an incident, and that people were told."""
    async with store_at(url) as store:
        (read,) = await store.read([PAGE + key])
    page = Page.read(read.text) if read.text else Page()
    return len(page.seen(at=read.at)) == hosts and page.open_for("chat") and page.open_for("pager")


def test_two_hosts_page_once_and_each_for_itself_without_the_store(tmp_path: Path) -> None:
    slack, pager = Slack(), PagerDuty()

    def headlines() -> list[str]:
        return [body["text"] for body in slack.taken]

    async def story(first: Outside, second: Outside, redis: Path) -> None:
        for host in (first, second):
            host.attempts(1, "sent", "google")
        # Of core no more is wanted than that it keeps up with its log.
        cores = [await serve_control(host.directory / "control", CORE) for host in (first, second)]
        async with running_server(redis) as server, cores[0], cores[1]:
            with first.running(), second.running():
                await until(lambda: first.is_there() and second.is_there())
                for host in (first, second):
                    host.attempts(300, "deferred", "google")
                await until(lambda: bool(slack.taken and pager.events))
                await until(lambda: all(host.incidents() for host in (first, second)))
                assert "mx1" in (await first.takes_on(first.incidents()[0][0]))["hosts"]
                await until(lambda: second.incidents()[0][2] == "host mx1 (ann)")
                await until(lambda: list(pager.open.values()) == ["acknowledged"])
                for host in (first, second):
                    host.attempts(3_000, "sent", "google")
                await until(lambda: not pager.open and len(slack.taken) == 2, within=90.0)
                assert pager.pages == 1
                assert [each.partition("]")[0] for each in headlines()] == ["[FIRING", "[RESOLVED"]
                last = str(slack.taken[-1]["blocks"])
                assert "mx1: over" in last
                assert "mx2: over" in last
                server.kill()
                for host in (first, second):
                    host.attempts(300, "deferred", "yahoo")
                await until(lambda: len(slack.taken) == 4 and pager.pages == 2, within=90.0)
                await server.start()
                # It began empty, and nobody speaks a second time.
                await until(lambda: _is_agreed(server.url, YAHOO, hosts=2))
                assert len(slack.taken) == 4

    with http_server(slack) as chat, http_server(pager) as duty:
        redis = tmp_path / "redis"
        redis.mkdir()
        url = f"unix://{redis}/redis.sock"
        hosts = [Outside(tmp_path / name, url, chat.url, duty.url) for name in ("mx1", "mx2")]
        try:
            asyncio.run(story(hosts[0], hosts[1], redis))
        except BaseException:
            for host in hosts:
                sys.stderr.write((host.directory / "said").read_text())
            sys.stderr.write(f"{headlines()} {pager.pages} {pager.open}\n")
            raise


def test_a_trouble_that_two_hosts_see_by_different_alerts_is_one_page(tmp_path: Path) -> None:
    """One by the provider's share, the other by the sender's."""

    async def story(first: Outside, second: Outside, redis: Path, slack: Slack, pager: PagerDuty) -> None:
        for host in (first, second):
            host.attempts(1, "sent", "google")
        cores = [await serve_control(host.directory / "control", CORE) for host in (first, second)]
        async with running_server(redis) as server, cores[0], cores[1]:
            with first.running(), second.running():
                await until(lambda: first.is_there() and second.is_there())
                first.attempts(300, "deferred", "google")
                await until(lambda: _is_agreed(server.url, GOOGLE, hosts=1))
                second.attempts(300, "deferred", "google")
                await until(lambda: _is_agreed(server.url, GOOGLE, hosts=2))
                assert (len(slack.taken), pager.pages) == (1, 1)
                for host in (first, second):
                    host.attempts(3_000, "sent", "google")
                await until(lambda: not pager.open and len(slack.taken) == 2, within=90.0)
                assert pager.pages == 1
                assert all(line in str(slack.taken[-1]["blocks"]) for line in ("mx1: over", "mx2: over"))
        store = IncidentStore.open_read_only(second.directory / "outside.db")
        (incident,) = store.incidents(since=0.0)
        assert incident.dedup_key == "pf-rep:log:a.example:bad.deferrals.15m"
        assert store.pages_of() == {incident.id: GOOGLE}
        assert any(GOOGLE in what for _, what in store.events(incident.id))
        store.close()

    slack, pager = Slack(), PagerDuty()
    (tmp_path / "redis").mkdir()
    url = f"unix://{tmp_path}/redis/redis.sock"
    with http_server(slack) as chat, http_server(pager) as duty:
        first = Outside(tmp_path / "mx1", url, chat.url, duty.url)
        second = Outside(tmp_path / "mx2", url, chat.url, duty.url, looks_at="domain")
        asyncio.run(story(first, second, tmp_path / "redis", slack, pager))


def test_a_host_of_an_older_version_and_one_of_this_have_one_page(tmp_path: Path) -> None:
    """Of one alert; of two alerts of one trouble an older version makes two."""

    async def story(older: Outside, newer: Outside, redis: Path, slack: Slack, pager: PagerDuty) -> None:
        for host in (older, newer):
            host.attempts(1, "sent", "google")
        cores = [await serve_control(host.directory / "control", CORE) for host in (older, newer)]
        async with running_server(redis) as server, cores[0], cores[1]:
            with older.running() as first, newer.running() as second:
                await until(lambda: older.is_there() and newer.is_there())
                for host in (older, newer):
                    host.attempts(300, "deferred", "google")
                await until(lambda: _is_agreed(server.url, GOOGLE, hosts=2))
                await older.takes_on(1)
                await until(lambda: newer.incidents()[0][2] == "host mx1 (ann)")
                await until(lambda: list(pager.open.values()) == ["acknowledged"])
                for host in (older, newer):
                    host.attempts(3_000, "sent", "google")
                await until(lambda: not pager.open and len(slack.taken) == 2)
                assert [first.poll(), second.poll()] == [None, None]
            assert (len(slack.taken), pager.pages) == (2, 1)
        assert [_named(host.directory) for host in (older, newer)] == [0, 1]

    for commit in at_hand(VERSIONS):
        folder = tmp_path / commit
        (folder / "redis").mkdir(parents=True)
        url = f"unix://{folder}/redis/redis.sock"
        slack, pager = Slack(), PagerDuty()
        with http_server(slack) as chat, http_server(pager) as duty:
            tree = unpacked(commit, folder / "older")
            older = Outside(folder / "mx1", url, chat.url, duty.url, tree=tree)
            newer = Outside(folder / "mx2", url, chat.url, duty.url)
            try:
                asyncio.run(story(older, newer, folder / "redis", slack, pager))
            finally:
                said = [(host.directory / "said").read_text() for host in (older, newer)]
                sys.stderr.write(f"{said[0][-2000:]}\n{said[1][-2000:]}\n{slack.taken} {pager.pages} {pager.open}\n")
        assert not any("cannot read" in text for text in said)


def _named(directory: Path) -> int:
    """Tell of how many incidents a host knows which page they belong to; older versions have no such table."""
    with contextlib.closing(sqlite3.connect(directory / "outside.db")) as store:
        is_there = store.execute("SELECT 1 FROM sqlite_master WHERE name = 'fleet_page_of'").fetchone()
        return int(store.execute("SELECT count(*) FROM fleet_page_of").fetchone()[0]) if is_there else 0


@pytest.mark.parametrize("state", ["sent", "sending", "dropped"])
def test_only_what_waits_is_withdrawn_or_sent(tmp_path: Path, state: str) -> None:
    store = IncidentStore.open(tmp_path / "outside.db")
    row = store.post_page(note(), "chat", page="key", now=1.0)
    assert [each.page for each in store.unsettled()] == ["key"]
    if state == "sending":
        assert store.sending(row)
    else:
        store.done(row, state, now=1.0)
    store.withdraw(row, why="", now=2.0)
    assert [each.state for each in store.posted()] == [state]
    assert not store.sending(row)
    store.settled([row])
    assert store.unsettled() == []
    store.put_pages({"a": "1", "b": "2"})
    store.put_pages({"a": "3"}, ["b"])
    assert store.pages() == {"a": "3"}
    store.put_pages_of({1: "a", 2: "b"})
    store.put_pages_of({1: "c"}, [2])
    assert store.pages_of() == {1: "c"}
    store.close()

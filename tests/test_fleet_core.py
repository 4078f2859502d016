"""Two core processes at one Redis: a line in one host's log holds mail on the other, and no Redis keeps nobody waiting."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sidecar.cli import sidecar as cli
from sidecar.control import CoreRefused, CoreUnreachable, ask_core
from sidecar.lab.private_postfix import PrivatePostfix
from tests.redis_world import PATIENCE, Server, running_server, until
from tests.world import GOOGLE_DKIM

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.postfix
WARM_UP = '[[warm_up]]\ntransport = "{}"\nstarted = "2024-01-01"\nstart_per_day = 10\nuntil_per_day = 1000\n'


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> PrivatePostfix:
    directory = tmp_path_factory.mktemp("fleet")
    instance = PrivatePostfix(directory / "postfix", main_cf={"enable_long_queue_ids": "yes"})
    os.utime(instance.config_directory / "main.cf", (1, 1))  # Postfix waits for a main.cf that was just written
    return instance


class Core:
    """One host: its directory, its log, its process."""

    def __init__(self, directory: Path, postfix: PrivatePostfix, url: str) -> None:
        directory.mkdir()
        self.directory = directory
        self.log = directory / "mail.log"
        self.log.touch()
        (directory / "suppression.key").write_text("00" * 16)
        self.config = directory / "sidecar.toml"
        self.config.write_text(
            f'mode = "act"\nruntime_directory = "{directory}"\n[log]\nsource = "{self.log}"\n'
            f'[policy]\nlisten = ["unix:{directory}/policy"]\n'
            f'[store]\npath = "{directory}"\nredis = "{url}"\n[fleet]\nhost = "{directory.name}"\n'
            f'[postfix]\nconfig_directory = "{postfix.config_directory}"\n'
            '[[quota]]\nname = "domain-day"\nper = "sending-domain"\nlimit = 100\nwithin = "day"\n'
            '[[pool]]\nname = "bulk"\ntransports = [{ transport = "nat-1" }, { transport = "own-1" }]\n'
            f"{WARM_UP.format('nat-1')}fleet = true\n{WARM_UP.format('own-1')}"
        )

    @contextlib.contextmanager
    def running(self, *program: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, *(program or ("-m", "sidecar")), "--config", str(self.config), "core"]
        with (self.directory / "said").open("wb") as said:
            process = subprocess.Popen(command, stderr=said, cwd=ROOT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=60)

    def ask(self, command: str, **request: Any) -> dict[str, Any]:
        return ask_core(self.directory / "control", {"command": command, **request}, timeout=PATIENCE)

    def is_asked(self) -> None:
        """An smtpd hands in a message of a domain that has a quota."""
        request = {"request": "smtpd_access_policy", "protocol_state": "RCPT", "instance": "1", "sender": "a@a.example",
                   "recipient": "user@gmail.com", "client_address": "192.0.2.7", "recipient_count": "0"}  # fmt: skip
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.directory / "policy"))
            connection.sendall("".join(f"{name}={value}\n" for name, value in request.items()).encode() + b"\n")
            assert connection.recv(1_000).startswith(b"action=")

    def suppresses(self, address: str) -> bool:
        return bool(self.ask("suppress", do="check", address=address)["suppressed"])

    def reaches_the_store(self) -> bool:
        try:
            fleet = self.ask("status")["fleet"]
        except CoreUnreachable:  # it is just beginning
            return False
        return fleet["rounds"] >= 2 and not fleet["silent"]

    def follows_its_log(self) -> bool:
        """A log of which nothing is known is read from its end on, wherever that is when core comes to it."""
        return bool(self.ask("status")["log"]["followed"])

    def hears_of_all(self) -> bool:
        hosts = self.ask("status")["fleet"]["hosts"]
        return [host["host"] for host in hosts if not host["silent"]] == NAMES

    def paused_by(self, transport: str) -> str:
        (found,) = self.ask("warm-up", do="show", transport=transport)["warm_ups"]
        return str(found["paused_by"])

    def changed_by(self, key: str) -> list[str]:
        return [each["by_whom"] for each in self.ask("changes")["changes"] if each["key"] == key]

    def state(self, key: str) -> str:
        return next((sub["state"] for sub in self.ask("status")["subqueues"] if sub["key"] == key), "closed")

    def is_refused(self, number: int) -> str:
        """A mail of a domain of its own is deferred here; its sub-queue's key."""
        domain, queue_id = f"burst{number}.example", f"4WzBBB{number:04d}".translate(_LETTERS) + "zB"
        now = _now()
        relay = "gmail-smtp-in.l.google.com[192.0.2.1]"
        refusal = f"host {relay} said: {GOOGLE_DKIM.format(domain=domain)} (in reply to end of DATA command)"
        with self.log.open("a") as log:
            log.write(
                f"{now} mx1 postfix/qmgr[100]: {queue_id}: from=<news@{domain}>, size=1000, nrcpt=1 (queue active)\n"
                f"{now} mx1 postfix/smtp[200]: {queue_id}: to=<user@gmail.com>, relay={relay}:25, delay=1, "
                f"delays=0/0/0/1, dsn=4.7.28, status=deferred ({refusal})\n"
            )
        return f"dkim-domain:{domain}@google"


def _now() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="microseconds")


NAMES = ["mx1", "mx2"]
PATIENT = f"""
from sidecar.cli import main
from sidecar.fleet import commands, redis_store

commands.ANSWERED_WITHIN = redis_store.ANSWER_WITHIN = {PATIENCE / 2}
main()
"""
"""A core that goes on waiting for an answer on a machine with other work."""
_LETTERS = str.maketrans("0123456789", "BCDFGHJKLM")


@contextlib.asynccontextmanager
async def two(
    tmp_path: Path, postfix: PrivatePostfix, server: Server, *program: str
) -> AsyncIterator[tuple[Core, Core]]:
    one, other = (Core(tmp_path / name, postfix, server.url) for name in NAMES)
    with one.running(*program), other.running(*program):
        await until(lambda: one.reaches_the_store() and other.reaches_the_store())
        await until(lambda: one.follows_its_log() and other.follows_its_log())
        await until(lambda: one.hears_of_all() and other.hears_of_all())
        yield one, other


def test_a_line_in_one_host_s_log_pauses_the_key_on_the_other(tmp_path: Path, postfix: PrivatePostfix) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, two(tmp_path, postfix, server) as (one, other):
            for number in range(5):
                key = one.is_refused(number)
                await until(lambda key=key: other.state(key) == "paused")  # type: ignore[misc]  # how soon: benchmarks
            (shown,) = (sub for sub in other.ask("status")["subqueues"] if sub["key"] == key)
            assert shown["fleet"]["host"] == "mx1"
            with pytest.raises(CoreRefused, match=r"mx9 is no host of the fleet|the store began anew"):
                other.ask("fleet-forget", host="mx9")
            assert "421-4.7.28" in shown["opened_by"]["line"]
            hosts = ["mx.hoster.example"]
            one.ask("learned-mx", answers=[{"domain": "hosted.example", "hosts": hosts, "ttl": 300}])
            await until(lambda: bool(other.ask("fleet-learned", name="hosted.example")["learned"]))
            words = ["--config", str(other.config), "fleet", "learned", "hosted.example"]
            said = CliRunner().invoke(cli, words)
            assert said.exit_code == 0, said.output
            assert [*said.output.splitlines()[1].split()[:4]] == ["hosted.example", "provider", "hoster.example", "mx1"]
            assert json.loads(CliRunner().invoke(cli, [*words, "--json"]).output)[0]["here"] == ["hoster.example"]
            other.ask("suppress", do="add", who="root", rows=[{"address": "dead@gmail.com"}])
            await until(lambda: one.suppresses("dead@gmail.com"))
            await until(lambda: [host["host"] for host in other.ask("status")["fleet"]["hosts"]] == NAMES)

    asyncio.run(scene())


def test_an_admin_s_command_on_one_host_is_done_on_all(tmp_path: Path, postfix: PrivatePostfix) -> None:
    stream = {"do": "open", "where": "tenant = news", "name": "news", "who": "root"}
    key = "stream:news@*"

    async def scene() -> None:
        async with running_server(tmp_path) as server, two(tmp_path, postfix, server, "-c", PATIENT) as (one, other):
            opened = await asyncio.to_thread(lambda: one.ask("subqueue", **stream, host=""))
            assert set(opened["hosts"]) == set(NAMES), opened
            assert opened["unheard"] == {}
            assert [host.state(key) for host in (one, other)] == ["paused", "paused"]
            await until(lambda: other.changed_by(key) == ["host mx1 (root)"])
            closed = await asyncio.to_thread(lambda: one.ask("subqueue", do="close", key=key, host="mx2"))
            assert set(closed["hosts"]) == {"mx2"}
            assert [host.state(key) for host in (one, other)] == ["paused", "closed"]
            released = await asyncio.to_thread(lambda: other.ask("subqueue", do="release", key="all", host=""))
            assert {name: each["released"] for name, each in released["hosts"].items()} == {"mx1": 0, "mx2": 0}
            for host in (one, other):
                await asyncio.to_thread(host.is_asked)
            emptied = await asyncio.to_thread(lambda: one.ask("quota", do="reset", key="a.example", host=""))
            assert {name: each["reset"] for name, each in emptied["hosts"].items()} == {
                "mx1": ["domain-day"],
                "mx2": ["domain-day"],
            }
            with pytest.raises(CoreRefused, match="nothing is in use"):
                await asyncio.to_thread(lambda: one.ask("quota", do="reset", key="a.example", host=""))
            with pytest.raises(CoreRefused, match="mx9: no host of the fleet; known are mx1, mx2"):
                one.ask("subqueue", do="release", key="all", host="mx9")
            paused = await asyncio.to_thread(
                lambda: one.ask("warm-up", do="pause", transport="nat-1", who="root", host="")
            )
            assert (set(paused["hosts"]), paused["unheard"]) == (set(NAMES), {})
            assert [host.paused_by("nat-1") for host in (one, other)] == ["root", "host mx1 (root)"]
            assert "hosts" not in one.ask("warm-up", do="pause", transport="own-1", who="root", host="")
            assert other.paused_by("own-1") == ""
            words = ["--config", str(one.config), "warmup", "resume", "nat-1", "--host", "mx2", "--json"]
            said = await asyncio.to_thread(lambda: CliRunner().invoke(cli, words))
            assert set(json.loads(said.output)[0]["hosts"]) == {"mx2"}, said.output
            assert [host.paused_by("nat-1") for host in (one, other)] == ["root", ""]
            shared = one.is_refused(1)
            await until(lambda: other.state(shared) == "paused")
            with pytest.raises(CoreRefused, match="it has one state"):
                one.ask("subqueue", do="close", key=shared, host="mx2")
            assert "hosts" not in one.ask("subqueue", do="pause", key=shared, host="")

    asyncio.run(scene())


def test_a_host_that_was_away_does_it_when_it_is_back(tmp_path: Path, postfix: PrivatePostfix) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server:
            one, other = (Core(tmp_path / name, postfix, server.url) for name in NAMES)
            with one.running():
                with other.running() as process:
                    await until(lambda: one.reaches_the_store() and other.reaches_the_store())
                    await until(one.hears_of_all)
                    process.kill()
                answer = await asyncio.to_thread(
                    lambda: one.ask("subqueue", do="open", where="tenant = news", name="news", host="")
                )
                assert "does it when it is back within 1 h" in answer["unheard"]["mx2"]
                with other.running():
                    await until(other.reaches_the_store)
                    await until(lambda: other.state("stream:news@*") == "paused")

    asyncio.run(scene())


def test_a_redis_that_hangs_and_dies_keeps_no_answer_waiting_and_is_found_again(
    tmp_path: Path, postfix: PrivatePostfix
) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, two(tmp_path, postfix, server) as (one, other):
            server.send(signal.SIGSTOP)  # what is asked of it now hangs
            await until(lambda: bool(one.ask("status")["fleet"]["silent"]))
            key = one.is_refused(7)
            await until(lambda: one.state(key) == "paused")
            assert other.state(key) == "closed"
            server.kill()
            await server.start()
            await until(lambda: other.state(key) == "paused")

    asyncio.run(scene())


def test_a_url_that_is_none_ends_core_without_its_password(tmp_path: Path, postfix: PrivatePostfix) -> None:
    core = Core(tmp_path / "mx1", postfix, "redis://user:hidden@host/0?db=x")
    with core.running() as process:
        assert process.wait(timeout=60) == 2
    said = (core.directory / "said").read_text()
    assert "store.redis: " in said
    assert "hidden" not in said
    assert "Traceback" not in said

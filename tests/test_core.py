"""The core process by itself: what keeps it from running is said in a line."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import sidecar.core
from parsers.log import LogReader
from parsers.postfix.facts import Fact
from policies.repeats import Repeated
from sidecar.config import Config, LogConfig
from sidecar.control import ask_core
from sidecar.core_parts import Lag, Parts
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.log_batch import Batch, Position
from sidecar.store import Store

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.postfix


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> PrivatePostfix:
    directory = tmp_path_factory.mktemp("core")
    instance = PrivatePostfix(directory / "postfix", main_cf={"enable_long_queue_ids": "yes"})
    os.utime(instance.config_directory / "main.cf", (1, 1))  # Postfix waits for a main.cf that was just written
    return instance


@pytest.fixture
def config(tmp_path: Path, postfix: PrivatePostfix) -> Path:
    (tmp_path / "mail.log").touch()
    path = tmp_path / "sidecar.toml"
    path.write_text(
        f'runtime_directory = "{tmp_path}"\n'
        f'[log]\nsource = "{tmp_path}/mail.log"\n'
        f'[policy]\nlisten = ["unix:{tmp_path}/policy"]\n'
        f'[store]\npath = "{tmp_path}"\n'
        f'[postfix]\nconfig_directory = "{postfix.config_directory}"\n'
    )
    return path


def core(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sidecar", "--config", str(config), "core"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def ends_saying(config: Path, words: str) -> None:
    process = core(config)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert words in said
    assert "Traceback" not in said


def runs_saying(config: Path, words: str) -> None:
    process = core(config)
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            if "listening on" in line:
                break
        assert words in said
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_it_listens_and_stops_when_told(config: Path) -> None:
    runs_saying(config, "listening on")


def test_a_log_that_cannot_be_read(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text().replace("mail.log", "logs"))
    (tmp_path / "logs").mkdir()
    ends_saying(config, f"{tmp_path}/logs")


def test_a_policy_socket_in_use(config: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "policy"))
        other.listen()
        ends_saying(config, "socket in use")


def test_a_control_socket_in_use(config: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "control"))
        other.listen()
        ends_saying(config, "socket in use")


def test_a_damaged_store_is_set_aside(config: Path, tmp_path: Path) -> None:
    (tmp_path / "core.db").write_bytes(b"not a database" * 1_000)
    runs_saying(config, "set aside")
    Store.open_read_only(tmp_path / "core.db").close()


def test_a_store_of_a_later_version(config: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "core.db")
    store.connection.execute("PRAGMA user_version = 999")
    store.close()
    ends_saying(config, "core.db")


def test_a_broken_rule_of_the_admin(config: Path, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "mine.toml").write_text("[[rule]]\nname = 1\n")
    config.write_text(config.read_text() + f'[rules]\ndirectory = "{tmp_path}/rules"\n')
    ends_saying(config, "mine.toml")


def test_a_postfix_that_is_not_there(config: Path, tmp_path: Path) -> None:
    config.write_text(
        "\n".join(line for line in config.read_text().splitlines() if "config_directory" not in line)
        + f'\nconfig_directory = "{tmp_path}/nowhere"\n'
    )
    ends_saying(config, "nowhere")


def sent(queue_id: str) -> Iterator[str]:
    yield f"cleanup[5]: {queue_id}: message-id=<same@s.example>"
    yield f"qmgr[6]: {queue_id}: from=<x@s.example>, size=9, nrcpt=1 (queue active)"
    relay = "relay=mx.r.example[192.0.2.1]:25, delay=1, delays=0/0/0/1"
    yield f"smtp[7]: {queue_id}: to=<u@r.example>, {relay}, dsn=2.0.0, status=sent (250 2.0.0 OK)"
    yield "smtp[7]: connect to mx.r.example[192.0.2.1]:25: Connection timed out"


def test_what_it_notices_is_asked_on_the_control_socket(config: Path, tmp_path: Path) -> None:
    """Through the log, the loop and the socket: a message sent twice, a host that cannot be reached, the queue."""
    stamp = datetime.now(UTC).isoformat()
    lines = [*sent("4Z00000000001zz"), *sent("4Z00000000002zz")]
    (tmp_path / "mail.log").write_text("".join(f"{stamp} mx postfix/{line}\n" for line in lines))
    (tmp_path / "core.db").write_bytes(b"not a database" * 1_000)  # so that the log is read from its begin
    process = core(config)
    assert process.stderr is not None
    try:
        assert any("listening on" in line for line in process.stderr)
        until = time.monotonic() + 60
        while ask_core(tmp_path / "control", {"command": "health"})["lines"] < len(lines) and time.monotonic() < until:
            pass
        told = ask_core(tmp_path / "control", {"command": "noticed"})
        (repeated,) = (Repeated(*each) for each in told["repeated"])
        assert (repeated.domain, repeated.delivered, repeated.again) == ("s.example", 2, 1)
        assert told["hosts"] == [["mx.r.example", 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]]
        queue = ask_core(tmp_path / "control", {"command": "queue"})
        assert (queue["live"], queue["old"]) == (2, 0)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_line_that_we_fail_at_counts_as_missing(caplog: pytest.LogCaptureFixture) -> None:
    """A restart would meet it again; and what it may have said of its message is feared."""
    taken: list[object] = []

    def observe(fact: Fact, *, now: float) -> None:
        del now
        if "192.0.2.2" in fact.record.text:
            raise TypeError("frozenset object expected; got set")
        taken.append(fact)

    told: list[object] = []
    engine = SimpleNamespace(observe=observe, misread=told.append, gap=lambda *, now: told.append(now))
    hands = SimpleNamespace(wants_listing=False)
    watching = SimpleNamespace(observe=lambda _fact, *, now: told.clear() if now < 0 else None)
    reader = LogReader(zone=UTC, reference=time.time())
    parts = SimpleNamespace(config=Config(), reader=reader, engine=engine, watching=watching, hands=hands)
    stamp = f"{datetime.now(UTC):%b %d %H:%M:%S} mx1 postfix/smtpd[1]"
    lines = tuple(f"{stamp}: connect from a[192.0.2.{i}]".encode() for i in (1, 2, 3))
    sidecar.core._take(Batch(lines, Position("mail.log", "{}"), time.time(), gap=False), cast("Parts", parts), Lag())
    assert len(taken) == 2
    assert len(told) == 2, "the line, and then a gap"
    assert hands.wants_listing
    assert "a line counts as missing: connect from a[192.0.2.2]" in caplog.text


def test_the_first_line_may_come_long_after_the_start() -> None:
    """Its stamp has no year, and core's own time is what it is read by."""
    seen: list[float] = []

    def observe(fact: Fact, *, now: float) -> None:
        del now
        seen.append(fact.record.time)

    observer = SimpleNamespace(observe=observe)
    reader = LogReader(zone=UTC, reference=time.time() - 3_600)
    parts = SimpleNamespace(config=Config(), reader=reader, engine=observer, watching=observer)
    stamp = datetime.now(UTC)
    line = f"{stamp:%b %d %H:%M:%S} mx1 postfix/smtpd[1]: connect from a[192.0.2.1]".encode()
    sidecar.core._take(Batch((line,), Position("mail.log", "{}"), time.time(), gap=False), cast("Parts", parts), Lag())
    assert [abs(at - stamp.timestamp()) < 1.0 for at in seen] == [True, True]


def test_of_many_hosts_lines_only_one_s_are_taken() -> None:
    seen: list[str] = []
    observer = SimpleNamespace(
        observe=lambda fact, *, now: seen.append(f"{fact.record.host} {now > 0} {fact.record.text}")
    )
    reader = LogReader(zone=UTC, reference=time.time())
    config = Config(log=LogConfig(host="mx1"))
    parts = SimpleNamespace(
        config=config, reader=reader, engine=observer, watching=SimpleNamespace(observe=lambda *_, **__: 0)
    )
    now = f"{datetime.now(UTC):%b %d %H:%M:%S}"
    hosts = ("mx1", "mx10", "mx2", "mx1")
    lines = [f"{now} {host} postfix/smtpd[{i}]: connect from mx1[192.0.2.{i}]".encode() for i, host in enumerate(hosts)]
    lines.insert(3, f"{now} mx2 last message repeated 7 times".encode())
    batch = Batch(lines, Position("mail.log", "{}"), time.time(), gap=False)
    sidecar.core._take(batch, cast("Parts", parts), Lag())
    assert seen == [f"mx1 True connect from mx1[192.0.2.{i}]" for i in (0, 3)]

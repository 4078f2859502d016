"""The outside process: what its pages say while core is well, behind, refusing or away; and that it lives on."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar import outside
from sidecar.control import CoreRefused, CoreUnreachable, Handler, serve_control
from sidecar.lab.ports import free_port
from sidecar.metrics import OutsideFigures
from sidecar.web import Page

HEALTH = {"pid": 1, "log_lag_s": 0.2, "mode": "observe", "recovered": ""}
FIGURES = {
    "figures": [
        {
            "name": "sidecar_log_lines_total",
            "help": "Lines",
            "type": "counter",
            "samples": [{"labels": {}, "value": 17}],
        }
    ],
    "histograms": [],
}


def refuses(_: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("no")


def page(path: Path, name: str, commands: dict[str, Handler] | None) -> Page:
    """The page `name` of an outside process whose core answers `commands`; None: is away."""

    async def ask() -> Page:
        own = OutsideFigures()
        core = outside.Core(path, seen=own.core_up.set)
        if commands is None:
            return await outside.routes(core, own)[name]()
        server = await serve_control(path, commands)
        try:
            return await outside.routes(core, own)[name]()
        finally:
            server.close()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("commands", "status", "says"),
    [
        ({"health": lambda _: HEALTH}, 200, b"ok\n"),
        ({"health": lambda _: {**HEALTH, "log_lag_s": None}}, 200, b"ok\n"),
        (
            {"health": lambda _: {**HEALTH, "log_lag_s": 61}},
            503,
            b"core is 61 s behind its log (at most 60 s is well)\n",
        ),
        ({"health": refuses}, 503, b"no\n"),
        (None, 503, b"core does not run here"),
    ],
)
def test_healthz(tmp_path: Path, commands: dict[str, Handler] | None, status: int, says: bytes) -> None:
    answer = page(tmp_path / "control", "/healthz", commands)

    assert answer.status.value == status
    assert says in answer.body


@pytest.mark.parametrize(
    ("commands", "has", "lacks"),
    [
        ({"metrics": lambda _: FIGURES}, [b"sidecar_log_lines_total 17.0", b"sidecar_core_up 1.0"], [b"core_up 0.0"]),
        ({"metrics": refuses}, [b"sidecar_core_up 1.0"], [b"sidecar_log_lines"]),
        (None, [b"sidecar_core_up 0.0", b"sidecar_outside_process_"], [b"sidecar_log_lines"]),
    ],
)
def test_metrics(tmp_path: Path, commands: dict[str, Handler] | None, has: list[bytes], lacks: list[bytes]) -> None:
    answer = page(tmp_path / "control", "/metrics", commands)

    assert answer.status == 200
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    assert all(text in answer.body for text in has)
    assert not any(text in answer.body for text in lacks)


def test_the_size_of_a_database_is_that_of_its_files(tmp_path: Path) -> None:
    database = tmp_path / "core.db"
    assert outside._size(database) == 0.0
    database.write_bytes(b"x" * 100)
    assert outside._size(database) == 100.0
    database.with_name("core.db-wal").write_bytes(b"x" * 30)
    assert outside._size(database) == 130.0


def test_core_going_away_and_coming_back_is_said_once_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "control"
    seen: list[bool] = []

    async def ask(core: outside.Core, kind: type[Exception] | None, command: str = "health") -> None:
        if kind is None:
            await core.ask({"command": command})
        else:
            with pytest.raises(kind):
                await core.ask({"command": command})

    async def story() -> None:
        core = outside.Core(path, seen=seen.append, patience=0)
        await ask(core, CoreUnreachable)
        await ask(core, CoreUnreachable)
        server = await serve_control(path, {"health": lambda _: HEALTH, "no": refuses})
        await ask(core, None)
        await ask(core, None)
        await ask(core, CoreRefused, "no")
        await ask(core, CoreRefused, "no")
        server.close()
        await ask(core, CoreUnreachable)

    with caplog.at_level(logging.INFO, logger="sidecar"):
        asyncio.run(story())

    said = [record.message.partition(":")[0] for record in caplog.records]
    assert said == ["core does not answer", "core answers again after 0 s", "core refuses no", "core does not answer"]
    assert seen == [False, False, True, True, True, True, False]


def test_a_core_that_is_only_starting_is_not_talked_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        core = outside.Core(tmp_path / "control", seen=lambda _: None, patience=60)
        for _ in range(3):
            with pytest.raises(CoreUnreachable):
                await core.ask({"command": "health"})
        server = await serve_control(tmp_path / "control", {"health": lambda _: HEALTH})
        await core.ask({"command": "health"})
        server.close()

    with caplog.at_level(logging.INFO, logger="sidecar"):
        asyncio.run(story())
    assert caplog.records == []


def test_a_flood_of_requests_makes_a_page_once() -> None:
    made: list[Page] = []

    async def make() -> Page:
        made.append(Page(b"%d" % len(made)))
        await asyncio.sleep(0)
        return made[-1]

    async def flood(seconds: float) -> list[Page]:
        cached = outside.at_most_every(seconds, make)
        return list(await asyncio.gather(*(cached() for _ in range(50))))

    assert {answer.body for answer in asyncio.run(flood(60))} == {b"0"}
    made.clear()
    assert len({answer.body for answer in asyncio.run(flood(0))}) == 50


@contextmanager
def process(directory: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A running `sidecar outside`; its standard error is to be read."""
    config = directory / "sidecar.toml"
    config.write_text(
        f'runtime_directory = "{directory}"\n[store]\npath = "{directory}"\n'
        f'[web]\nlisten = "127.0.0.1:{port}"\n[dns]\nresolvers = ["127.0.0.1:1"]\n'
    )
    command = [sys.executable, "-m", "sidecar", "--config", str(config), "outside"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def said(started: subprocess.Popen[str], words: str) -> str:
    """Wait for a line of its log that has these words."""
    assert started.stderr is not None
    for line in started.stderr:
        if words in line:
            return line
    raise AssertionError(f"ended with {started.wait()} without saying {words!r}")


def fetched(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_process_starts_without_core_finds_it_later_and_stops_when_told(tmp_path: Path) -> None:
    port = free_port()

    async def core_is_back() -> None:
        told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        def learned(request: dict[str, Any]) -> dict[str, Any]:
            for answer in request["answers"]:
                told.put_nowait(answer)
            return {}

        commands: dict[str, Handler] = {
            "metrics": lambda _: FIGURES,
            "wanted-domains": lambda _: {"domains": ["[192.0.2.1]"]},
            "learned-mx": learned,
        }
        server = await serve_control(tmp_path / "control", commands)
        await asyncio.to_thread(said, started, "core answers again")
        answer = await told.get()
        assert answer == {"domain": "[192.0.2.1]", "hosts": [], "ttl": answer["ttl"], "error": "", "null_mx": False}
        assert "sidecar_core_up 1.0" in (await asyncio.to_thread(fetched, port, "/metrics"))[1]
        os.kill(started.pid, signal.SIGTERM)
        assert await asyncio.to_thread(started.wait, 60) == 0  # before core goes: it leaves no connection half made
        server.close()

    with process(tmp_path, port) as started:
        line = said(started, "core does not answer")
        assert line.startswith(f"sidecar/outside[{started.pid}]: ")
        assert fetched(port, "/healthz")[0] == 503

        asyncio.run(core_is_back())


def test_a_port_in_use_ends_the_process_with_a_message(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with process(tmp_path, taken.getsockname()[1]) as started:
            said(started, "sidecar: web.listen: cannot listen on 127.0.0.1:")
            assert started.wait(60) == 2

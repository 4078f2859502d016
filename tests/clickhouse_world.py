"""ClickHouse servers for tests: Debian's, real and private, over HTTP; and a current engine, for the SQL alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from sidecar import clickhouse_schema
from sidecar.clickhouse import ClickHouse, HttpServer, ServerError, Value, filled, row_binary
from sidecar.lab.ports import free_ports

SHELL = Path(__file__).parent / "chdb_shell.py"
_CONFIG = """<yandex>
  <logger><level>warning</level><log>{directory}/log</log><errorlog>{directory}/errors</errorlog></logger>
  <listen_host>127.0.0.1</listen_host><http_port>{http}</http_port><tcp_port>{tcp}</tcp_port>
  <path>{directory}/data/</path><tmp_path>{directory}/tmp/</tmp_path>
  <mark_cache_size>67108864</mark_cache_size>
  <users_config>{directory}/users.xml</users_config>
  <default_profile>default</default_profile><default_database>default</default_database>
  <timezone>Asia/Kolkata</timezone>
</yandex>
"""
"""Half an hour from UTC, so that a day of the server's own is seen."""
_USERS = """<yandex>
  <profiles><default><max_threads>2</max_threads></default></profiles>
  <users><default><password>geheim</password><networks><ip>127.0.0.1</ip></networks>
    <profile>default</profile><quota>default</quota></default></users>
  <quotas><default></default></quotas>
</yandex>
"""
PASSWORD = "geheim"  # noqa: S105  # of a server that lives for a test


class PrivateServer:
    """Debian's clickhouse-server on loopback, which can be killed, stopped and started again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port, tcp = free_ports(2)
        self._config = directory / "config.xml"
        for name in ("data", "tmp"):
            (directory / name).mkdir()
        self._config.write_text(_CONFIG.format(directory=directory, http=self.port, tcp=tcp))
        (directory / "users.xml").write_text(_USERS)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["clickhouse-server", f"--config-file={self._config}"]
        with (self._directory / "output").open("ab") as output:
            self._process = subprocess.Popen(command, cwd=self._directory, stdout=output, stderr=output)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if requests.get(f"{self.url}/ping", timeout=5).ok:
                    return
            except requests.RequestException:
                assert self._process.poll() is None, (self._directory / "output").read_text()[-2000:]
                time.sleep(0.02)  # the server tells nobody that it listens
        raise AssertionError((self._directory / "output").read_text()[-2000:])

    @contextmanager
    def paused(self) -> Iterator[None]:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self, database: str = "sidecar") -> HttpServer:
        return HttpServer(self.url, database, user="default", password=PASSWORD)


class Embedded:
    """A current engine. It has no HTTP, so that rows come as a file."""

    name = "chdb"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            [sys.executable, str(SHELL), str(directory / "chdb")],
            cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def rows(self, statement: str, parameters: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        text = self._ask(filled(statement, parameters), "JSONCompact")
        return [tuple(row) for row in json.loads(text)["data"]]

    def run(self, statement: str) -> None:
        self._ask(statement, "CSV")

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
        path = self._directory / "rows"
        path.write_bytes(b"".join(map(row_binary, rows)))
        known = dict(
            self.rows(
                "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = ?", (table,)
            )
        )
        structure = ", ".join(f"{name} {known[name]}" for name in columns)
        listed = ", ".join(columns)
        self.run(f"INSERT INTO {table} ({listed}) SELECT {listed} FROM file('{path}', 'RowBinary', '{structure}')")  # noqa: S608  # ours

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, statement: str, form: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"statement": statement, "format": form}) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        if "error" in said:
            raise ServerError(said["error"])
        return str(said["text"])


@contextmanager
def private_server(directory: Path) -> Iterator[PrivateServer]:
    server = PrivateServer(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def embedded(directory: Path) -> Iterator[Embedded]:
    """With JSON numbers as numbers, and a database of ours."""
    engine = Embedded(directory)
    try:
        for statement in (
            "SET output_format_json_quote_64bit_integers = 0",
            "CREATE DATABASE sidecar",
            "USE sidecar",
        ):
            engine.run(statement)
        yield engine
    finally:
        engine.close()


def emptied(server: ClickHouse) -> None:
    """Make our tables, with nothing in them."""
    clickhouse_schema.make(server)
    for table in ("attempt", "message", "change", "named", "hourly", "daily"):
        server.run(f"TRUNCATE TABLE {table}")


# Fixtures, for the modules that import them.


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    with private_server(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with embedded(tmp_path_factory.mktemp("chdb")) as engine:
        yield engine


@pytest.fixture(params=["debian", "current"])
def server(request: pytest.FixtureRequest) -> Iterator[ClickHouse]:
    """Each engine, with our tables, and nothing in them."""
    if request.param == "current":
        engine = request.getfixturevalue("current")
        emptied(engine)
        yield engine
        return
    with closing(request.getfixturevalue("debian").client()) as client:
        client.create()
        emptied(client)
        yield client

"""The outside process itself sends to ClickHouse and writes events, and ends when it is told to."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sidecar.lab.ports import free_port
from sidecar.store import Commit, Store
from tests.clickhouse_world import PASSWORD, PrivateServer, current, debian, emptied, server
from tests.test_outside import fetched
from tests.test_rollup import attempt

__all__ = ["current", "debian", "server"]


def until(holds: Callable[[], bool]) -> None:
    """What another process does is seen from outside only."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def add(directory: Path, number: int) -> None:
    now = time.time()
    with closing(Store.open(directory / "core.db")) as store:
        store.commit(Commit(attempts=[attempt(time=now)] * number))


def test_the_process_sends_and_writes_and_ends(tmp_path: Path, debian: PrivateServer) -> None:
    with closing(debian.client()) as client:
        client.create()
        emptied(client)
    port = free_port()
    (tmp_path / "password").write_text(PASSWORD)
    config = tmp_path / "sidecar.toml"
    config.write_text(
        f'runtime_directory = "{tmp_path}"\n[store]\npath = "{tmp_path}"\nclickhouse = "{debian.url}"\n'
        f'[clickhouse]\nuser = "default"\npassword_file = "{tmp_path}/password"\nname = "mx1"\nevery_seconds = 0.1\n'
        f'[events]\nto = "{tmp_path}/events.json"\n'
        f'[web]\nlisten = "127.0.0.1:{port}"\n[dns]\nresolvers = ["127.0.0.1:1"]\n[alerts]\nenabled = false\n'
    )
    add(tmp_path, 3)
    command = [sys.executable, "-m", "sidecar", "--config", str(config), "outside"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as started:
        try:
            assert started.stderr is not None
            assert "listening on" in started.stderr.readline()
            until(lambda: "sidecar_history_sent_rows_total 3.0" in fetched(port, "/metrics")[1])
            events = tmp_path / "events.json"

            def written() -> bool:
                add(tmp_path, 1)  # its first look begins with what is new then
                return events.exists()

            until(written)
            started.send_signal(signal.SIGTERM)
            assert started.wait(60) == 0
        finally:
            started.kill()
    with closing(debian.client()) as client:
        assert client.rows("SELECT count() >= 3, uniqExact(store) FROM attempt") == [(1, 1)]
    assert events.read_text().startswith('{"event":"attempt","id":"mx1/attempt/')

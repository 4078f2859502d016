"""Core killed under a stream of questions, with systemd's own program holding the socket: nobody is left without an answer."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from sidecar.control import CoreUnreachable, ask_core
from sidecar.lab.private_postfix import PrivatePostfix

ROOT = Path(__file__).parents[1]
CLIENTS = 20
TRIES = 2
"""As check_policy_service: try_limit. smtpd would wait a second before the second one, we do not."""
POLICY_TIMEOUT = 3.0
pytestmark = pytest.mark.postfix


class Fleet:
    """Clients that ask one question after another, as smtpd does: again on a new connection where one breaks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waits: list[float] = []
        """Of each question, seconds; but for the first of each client, which waits for the first start."""
        self.failed: list[str] = []
        self.broken = 0
        """Questions that were asked again."""
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, number: int) -> None:
        connection: socket.socket | None = None
        count = 0
        while not self._enough.wait(0.005):
            count += 1
            began = time.monotonic()
            for tried in range(1, TRIES + 1):
                try:
                    connection = connection or self._connected()
                    self._asked(connection, f"{number}.{count}")
                    break
                except OSError as error:
                    self.broken += 1
                    if connection is not None:
                        connection.close()
                    connection = None
                    if tried == TRIES:
                        self.failed.append(repr(error))
            if count > 1:
                self.waits.append(time.monotonic() - began)
        if connection is not None:
            connection.close()

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(POLICY_TIMEOUT * 10)  # how long it takes is judged at the end
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            raise
        return connection

    def _asked(self, connection: socket.socket, instance: str) -> None:
        lines = f"request=smtpd_access_policy\nprotocol_state=RCPT\ninstance={instance}\nrecipient=a@gmail.com\n\n"
        connection.sendall(lines.encode())
        answer = connection.recv(1000)
        if answer != b"action=DUNNO\n\n":
            raise ConnectionError(answer)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    postfix = PrivatePostfix(tmp_path / "postfix", main_cf={"enable_long_queue_ids": "yes"})
    os.utime(postfix.config_directory / "main.cf", (1, 1))  # Postfix waits for a main.cf that was just written
    (tmp_path / "mail.log").touch()
    path = tmp_path / "sidecar.toml"
    path.write_text(
        f'runtime_directory = "{tmp_path}"\n'
        f'[log]\nsource = "{tmp_path}/mail.log"\n'
        f'[policy]\nlisten = ["unix:{tmp_path}/policy"]\n'
        f'[store]\npath = "{tmp_path}"\n'
        f'[postfix]\nconfig_directory = "{postfix.config_directory}"\n'
        '[web]\nlisten = "127.0.0.1:0"\n'
        "[feeds.blocklists]\nenabled = false\n[feeds.authentication]\nenabled = false\n"
    )
    return path


@pytest.fixture
def socket_of_systemd(config: Path) -> Iterator[Path]:
    """The policy socket, made by systemd's program, which becomes `sidecar run` with the first connection."""
    path = config.parent / "policy"
    command = [
        "systemd-socket-activate",
        "-l",
        str(path),
        sys.executable,
        "-m",
        "sidecar",
        "--config",
        str(config),
        "run",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr
        try:
            assert "Listening on" in process.stderr.readline()
            reader = threading.Thread(target=process.stderr.read)  # or it would wait for us to read its log
            reader.start()
            yield path
        finally:
            process.terminate()
            process.wait(60)
            reader.join()


def health(config: Path, *, other_than: int = 0) -> tuple[dict[str, Any], float]:
    """Wait for a core with another process id; gives what it says, and when (monotonic)."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            said = ask_core(config.parent / "control", {"command": "health"}, timeout=60.0)
        except CoreUnreachable:
            said = {"pid": other_than}
        if said["pid"] != other_than:
            return said, time.monotonic()
        time.sleep(0.01)  # what is waited for is another process
    raise AssertionError("no core within a minute")


def test_core_is_killed_under_load_and_no_question_is_lost(config: Path, socket_of_systemd: Path) -> None:
    inode = socket_of_systemd.stat().st_ino
    restarts = []
    with Fleet(socket_of_systemd) as fleet:
        said, _ = health(config)
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            asked = len(fleet.waits)
            while len(fleet.waits) < asked + 10 * CLIENTS:
                time.sleep(0.01)  # as above
            killed = time.monotonic()
            os.kill(said["pid"], number)
            said, back = health(config, other_than=said["pid"])
            restarts.append(back - killed)
        asked = len(fleet.waits)
        while len(fleet.waits) < asked + 10 * CLIENTS:
            time.sleep(0.01)  # as above
    figures = json.dumps({"restarts_s": restarts, "slowest_s": max(fleet.waits), "asked": len(fleet.waits)})
    assert not fleet.failed, figures
    assert fleet.broken >= CLIENTS, "the questions under way were not cut off: nothing was shown"
    assert max(fleet.waits) < 60.0, figures  # as long as a restart takes, and that is for a quiet machine to tell
    assert socket_of_systemd.stat().st_ino == inode, "the socket is systemd's, and stays"

"""Children that are to run always, with small programs in the place of ours: who dies, who is started again, who stops."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from sidecar import children

# A process that supervises the children of its argument, and hands them the sockets of its other arguments.
SUPERVISOR = """
import json, socket, sys
from sidecar import children, own_log
from sidecar.children import Child, supervise
children.STOP_WITHIN = 3.5
own_log.start("run")
listening = []
for path in sys.argv[2:]:
    listening.append(socket.socket(socket.AF_UNIX))
    listening[-1].bind(path)
    listening[-1].listen(100)
supervise([
    Child(name, tuple(command), tuple(listening[i].fileno() for i in which), reads)
    for name, command, which, reads in json.loads(sys.argv[1])
])
"""

# Answers each connection on each of its sockets with what it was given.
POLICY = """
import json, os, select, socket, sys
listening = {n: socket.socket(fileno=3 + n) for n in range(int(os.environ["LISTEN_FDS"]))}
print(os.getpid(), flush=True)
while True:
    for ready in select.select([*listening.values()], [], [])[0]:
        connection, _ = ready.accept()
        given = {name: value for name, value in os.environ.items() if name.startswith("LISTEN_")}
        connection.sendall(json.dumps([os.getpid(), ready.getsockname(), given]).encode())
        connection.close()
"""
SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER
DIES = "import os; print(os.getpid(), flush=True); os._exit(2)"
READER = "import sys; print('read', repr(sys.stdin.read()), flush=True); import time; time.sleep(60)"

Spec = tuple[str, str, Sequence[int], bool]


class Supervised:
    """A supervisor at work, and the lines that it and its children write."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def line(self, words: str) -> str:
        """Wait for the next line that has these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return line
        raise AssertionError(f"ended with {self.process.wait()} without {words!r}; wrote {''.join(self.lines)}")

    def pid(self, name: str) -> int:
        """Wait for a child to be started."""
        return int(self.line(f"{name}: started, pid ").rpartition(" ")[2])

    def stop(self) -> str:
        """Stop it; gives everything it wrote meanwhile."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGTERM)
        written = self.process.stdout.read()
        self.process.wait(60)
        return written


@contextmanager
def supervising(described: Sequence[object], sockets: Sequence[Path] = ()) -> Iterator[Supervised]:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, json.dumps(described), *map(str, sockets)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        try:
            yield Supervised(process)
        finally:
            process.kill()


def supervised(*specs: Spec, sockets: Sequence[Path] = ()) -> AbstractContextManager[Supervised]:
    """Children that are Python programs."""
    python = [sys.executable, "-I", "-S", "-c"]
    return supervising([[name, [*python, code], which, reads] for name, code, which, reads in specs], sockets)


def answer(path: Path) -> tuple[int, str, Mapping[str, str]]:
    """Connect and read: waits as long as nobody accepts, as smtpd does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        text = b""
        while piece := connection.recv(4096):
            text += piece
    pid, name, given = json.loads(text)
    return pid, name, given


@pytest.mark.parametrize(
    ("deaths", "seconds"), [(0, 0), (1, 0), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.6), (6, 3.2), (7, 5), (1000, 5)]
)
def test_pause_after_so_many_deaths(deaths: int, seconds: float) -> None:
    assert children.pause(deaths) == pytest.approx(seconds)


def test_a_killed_child_is_started_again_and_its_socket_was_never_closed(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    with supervised(("core", POLICY, [0], False), sockets=[path]) as at_work:
        first = at_work.pid("core")
        assert answer(path)[0] == first
        for _ in range(2):
            os.kill(first, signal.SIGKILL)
            second = answer(path)[0]
            assert second != first
            first = second
        said = at_work.stop()
    assert f"core: pid {first} stopped (killed by SIGTERM)" in said
    assert "(killed by SIGKILL); starting it again at once" in said
    assert "(killed by SIGKILL); starting it again in 0.2 s" in said


def test_sockets_are_handed_on_as_systemd_does(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    specs: list[Spec] = [("none", SLEEPER, [], False), ("core", POLICY, [2, 0, 1], False)]
    with supervised(*specs, sockets=paths) as at_work:
        pid = at_work.pid("core")
        for path in paths:
            given = {"LISTEN_PID": str(pid), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "policy:policy:policy"}
            assert answer(path) == (pid, str(path), given)


def test_a_child_without_sockets_gets_no_handle_of_others(tmp_path: Path) -> None:
    code = "import os, time; print('handles', sorted(map(int, os.listdir('/proc/self/fd')))[:-1]); print(os.environ.get('LISTEN_FDS'), flush=True); time.sleep(60)"
    with supervised(("outside", code, [], False), sockets=[tmp_path / "policy"]) as at_work:
        assert at_work.line("handles").strip() == "handles [0, 1, 2]"
        assert at_work.line("N").strip() == "None"


def test_children_that_die_at_once_are_started_more_and_more_rarely() -> None:
    with supervised(("outside", DIES, [], False), ("core", SLEEPER, [], False)) as at_work:
        for when in ("at once", "in 0.2 s", "in 0.4 s", "in 0.8 s"):
            assert at_work.line("outside: pid").endswith(f"ended (exit status 2); starting it again {when}\n")
        written = at_work.stop()
    assert "core: pid" in written
    assert at_work.process.returncode == 0
    assert sum("core: started" in line for line in at_work.lines) == 1


def test_all_are_stopped_last_first() -> None:
    with supervised(*((name, SLEEPER, (), False) for name in ("queue-helper", "core", "outside"))) as at_work:
        at_work.pid("outside")
        written = at_work.stop()
    order = [line.split(": ")[1] for line in written.splitlines() if "stopped (" in line]
    assert order == ["outside", "core", "queue-helper"]
    assert "stopping: SIGTERM" in written
    assert at_work.process.returncode == 0


def test_who_does_not_stop_is_killed_in_time_for_the_others() -> None:
    with supervised(("helper", SLEEPER, [], False), ("core", STUBBORN, [], False)) as at_work:
        pid = at_work.pid("core")
        at_work.line(str(pid))  # it has ignored SIGTERM by then
        written = at_work.stop()
    assert f"core: pid {pid} did not stop within 2.5 s; killed" in written
    assert "helper: pid" in written
    assert at_work.process.returncode == 0


def test_children_die_with_a_killed_supervisor() -> None:
    with supervised(("core", SLEEPER, [], False), ("outside", SLEEPER, [], False)) as at_work:
        at_work.pid("outside")
        at_work.line("")  # a child has begun
        at_work.process.kill()
        assert at_work.process.stdout is not None
        at_work.process.stdout.read()  # ends when nobody has the other end of the pipe any more


def test_standard_input_is_for_whoever_reads_the_log() -> None:
    with supervised(("core", READER, [], True), ("outside", READER, [], False)) as at_work:
        assert at_work.line("read").strip() == "read ''"
        assert at_work.process.stdin is not None
        at_work.process.stdin.write("a line\n")
        at_work.process.stdin.close()
        assert at_work.line("read").strip() == "read 'a line\\n'"


def test_what_cannot_be_started_is_said_and_tried_again() -> None:
    with supervising([["core", ["/nonexistent/python"], [], False]]) as at_work:
        at_work.line("core: cannot be started: [Errno 2]")
        at_work.line("ended (exit status 127); starting it again at once")
        at_work.line("ended (exit status 127); starting it again in 0.2 s")

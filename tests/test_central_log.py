"""The log of two hosts, brought into one file by real rsyslogd as the documentation has it: each line in order, and whose it is."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from sidecar.lab.ports import free_port
from tests.mail_host_world import until
from tests.rsyslog_world import collecting, sending

ROOT = Path(__file__).parents[1]
NAMES = ("mx1", "mx2")
COUNT = 200


def say(sockets: dict[str, Path], numbers: range) -> None:
    """As Postfix does by syslog(3), both hosts at once."""
    with contextlib.ExitStack() as stack:
        ways = {name: stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) for name in sockets}
        for name, way in ways.items():
            way.connect(str(sockets[name]))
        for number in numbers:
            for way in ways.values():
                stamp = time.strftime("%b %e %H:%M:%S")
                said = f"to=<u{number}@gmail.com>, relay=none, delay=1, delays=0/0/1/0, dsn=4.7.28, status=deferred (x)"
                way.send(f"<22>{stamp} postfix/smtp[{number + 1}]: 4ccrJH0p3rz{number:04}: {said}".encode())


def test_two_hosts_logs_are_one_file_that_says_whose_each_line_is(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "mail.log"
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(sending(tmp_path / name, name, port)) for name in NAMES}
        say(sockets, range(COUNT // 2))  # the log host is away: they keep it
        with collecting(tmp_path / "all", port, file):
            say(sockets, range(COUNT // 2, COUNT))
            last = f"<u{COUNT - 1}@"
            until(lambda: file.exists() and file.read_text().count(last) == 2)
    said = subprocess.run(
        [sys.executable, "-m", "sidecar", "parse", str(file)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    facts = [json.loads(line) for line in said.stdout.splitlines()]
    for name in NAMES:
        recipients = [fact["recipient"] for fact in facts if fact["host"] == name]
        assert list(dict.fromkeys(recipients)) == [f"u{number}@gmail.com" for number in range(COUNT)]
        assert len(recipients) <= COUNT + 1  # what was under way as the link came back is sent again
    assert {fact["fact"] for fact in facts} == {"DeliveryAttempt"}
    assert all("." in fact["time"] for fact in facts)  # to the microsecond

"""Real rsyslogd, unprivileged and each with a configuration of its own: hosts that send their log, and one that collects."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.mail_host_world import until

DOCUMENTATION = Path(__file__).parents[1] / "docs/central-log.md"
_SENDS = """
global(workDirectory="{folder}" localHostname="{name}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{folder}/log" CreatePath="off" UseSysTimeStamp="on" RateLimit.Interval="0")
{documented}
"""
_COLLECTS = """
global(workDirectory="{folder}")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="{port}")
{documented}
"""


def documented(begins: str, **instead: str) -> str:
    """What docs/central-log.md has that begins so, with other values."""
    (found,) = re.findall(rf"```\n({re.escape(begins)}.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    for place, value in instead.items():
        found = re.sub(rf'{place}="[^"]*"', f'{place}="{value}"', found)
    return str(found)


@contextlib.contextmanager
def collecting(folder: Path, port: int, file: Path) -> Iterator[None]:
    with _rsyslogd(
        folder, _COLLECTS.format(folder=folder, port=port, documented=documented("template(", file=str(file)))
    ):
        yield


@contextlib.contextmanager
def sending(folder: Path, name: str, port: int) -> Iterator[Path]:
    """Run a host's; the socket that takes its log."""
    there = documented('if $syslogfacility-text == "mail" then action(type="omfwd"', target="127.0.0.1", port=str(port))
    with _rsyslogd(folder, _SENDS.format(folder=folder, name=name, documented=there)):
        until((folder / "log").exists)
        yield folder / "log"


@contextlib.contextmanager
def _rsyslogd(folder: Path, configuration: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    file = folder / "rsyslog.conf"
    file.write_text(configuration)
    with (folder / "said").open("ab") as said:
        process = subprocess.Popen(
            ["rsyslogd", "-n", "-f", str(file), "-i", str(folder / "pid")], stdout=said, stderr=said
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)

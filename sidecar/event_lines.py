"""Events of core as lines of JSON, and the places they can be written to: a file, standard output, syslog.

Knows how a place takes whole lines or none; which events are next, event_writer.py knows.
"""

import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from sidecar.shipped_tables import CHANGE, Table

SYSLOG: Final = Path("/dev/log")
_LOCAL0_INFO: Final = 16 * 8 + 6
_SYSLOG_SECONDS: Final = 5.0
_LATER: Final = frozenset({"removed"})
"""Columns that are filled in after their row was written here."""
_ESCAPED: Final = re.compile(r"[\x7f-\uffff]")
"""All but ASCII and what lies beyond the Basic Multilingual Plane: an escape of that is two, of which Fluent Bit makes no
UTF-8 (up to 3.2 at least) and Loki then refuses what else came with it. Some of these others end a line for some reader."""


def line(table: Table, row: Sequence[Any], *, host: str) -> str:
    """Write a row of core as an object of one line. What is not known is left out.

    `id` names the event for good: one that comes twice, after a crash, has the same.
    """
    told = {name: table.value(row, name) for name in table.columns if name not in _LATER}
    event: dict[str, Any] = {
        "event": table.name,
        "id": f"{host}/{table.name}/{row[0]}",
        "time": _stamp(told.pop("time")),
    }
    if table is CHANGE:
        event["host"] = host
    if detail := told.get("detail"):
        event["category"] = detail.partition(".")[0]
    said = {name: value for name, value in told.items() if value != "" or name == "status"}
    text = json.dumps(event | said, separators=(",", ":"), ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _stamp(time: float) -> str:
    return datetime.fromtimestamp(max(time, 0.0), UTC).isoformat(timespec="microseconds")


class Sink(Protocol):
    """Where lines go."""

    def write(self, lines: Sequence[str]) -> None:
        """Raises OSError, and then none of them needs to be there."""

    def close(self) -> None: ...


def sink(to: str) -> Sink:
    """The place that `events.to` names."""
    return {"stdout": StandardOutput, "syslog": Syslog}[to]() if to in {"stdout", "syslog"} else LogFile(Path(to))


class LogFile:
    """A file that others rotate, by rename or by copy and truncate: lines go to the one that has the name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def write(self, lines: Sequence[str]) -> None:
        """On the disk when it returns. A file that is full is left as it was."""
        self._follow()
        size = os.fstat(self._file).st_size
        try:
            _write_all(self._file, "".join(lines).encode())
            os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, size)
            raise

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _follow(self) -> None:
        """Open the file that has the name now."""
        if self._file >= 0 and self._is_named():
            return
        self.close()
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # a crash left half a line, which is written again below

    def _is_named(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


class StandardOutput:
    """The journal, under systemd."""

    def write(self, lines: Sequence[str]) -> None:
        sys.stdout.buffer.write("".join(lines).encode())  # whatever the locale says
        sys.stdout.buffer.flush()

    def close(self) -> None:
        """Others use it too."""


class Syslog:
    """The system's syslog, as facility local0 and program sidecar-events; not `mail`, which is read by core."""

    def __init__(self, path: Path = SYSLOG) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def write(self, lines: Sequence[str]) -> None:
        connection = self._socket or self._connected()
        try:
            for each in lines:
                connection.send(f"<{_LOCAL0_INFO}>sidecar-events: {each.rstrip()}".encode())
        except OSError:
            self.close()  # a syslogd that was started again has another socket
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            made.settimeout(_SYSLOG_SECONDS)
            made.connect(str(self._path))
        except BaseException:
            made.close()
            raise
        self._socket = made
        return made

"""The systemd journal as a source of log entries: journalctl as a child process, restarted when it ends.

Mail entries alone (facility mail), and journald's own word that it dropped some of them.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sidecar.config import ConfigError
from sidecar.log_batch import BATCH_LINES, READ_SIZE, Batch, Position

FACILITY_MAIL = "2"
"""syslog(3), LOG_MAIL: the default of Postfix's syslog_facility. Names of programs cannot be matched by prefix."""

MESSAGES_SUPPRESSED = "a596d6fe7bfa4994828e72309e95d61e"
"""sd-messages.h, SD_MESSAGE_JOURNAL_DROPPED: the rate limit of a unit was reached, entries are lost."""

MATCHES = (f"SYSLOG_FACILITY={FACILITY_MAIL}", "+", f"MESSAGE_ID={MESSAGES_SUPPRESSED}")

FIELDS = (
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_PID",
    "SYSLOG_TIMESTAMP",
    "_HOSTNAME",
    "_PID",
    "_SOURCE_REALTIME_TIMESTAMP",
    "_SYSTEMD_UNIT",
)
"""Of each entry; those that begin with two underscores come in any case."""

BACK_OFF = 0.1
BACK_OFF_LONGEST = 5.0
"""Seconds before journalctl is started again; doubled while it ends without a new entry."""

COMPLAINT_LENGTH = 500

logger = logging.getLogger(__name__)


class Child:
    """One run of journalctl: its lines as they come, and what it said at its end."""

    def __init__(self) -> None:
        self.status = 0
        self.complaint = ""
        """What it wrote to standard error, as far as one wants to read it."""

    async def lines(self, command: Sequence[str]) -> AsyncGenerator[list[bytes], None]:
        """Raises ConfigError when there is no such program."""
        try:
            child = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=READ_SIZE,
                env=os.environ | {"LC_ALL": "C"},
            )
        except FileNotFoundError as error:
            raise ConfigError(
                f"log.source: the journal is read with {command[0]}, which is not installed; "
                f"wanted systemd's journalctl, or the path of a log file"
            ) from error
        assert child.stdout
        assert child.stderr
        listening = asyncio.create_task(self._listen(child.stderr))
        try:
            rest = b""
            while data := await child.stdout.read(READ_SIZE):
                *lines, rest = (rest + data).split(b"\n")
                if lines:
                    yield lines
            await listening
            self.status = await child.wait()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()
                await child.communicate()  # empties the pipe: a full one would keep wait() from returning

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        async for line in stderr:
            if len(self.complaint) < COMPLAINT_LENGTH:
                self.complaint = f"{self.complaint} {line.decode(errors='replace').strip()}".strip()


class Entries:
    """Makes batches of journalctl's lines; knows the cursor after the last of them."""

    def __init__(self, source: str, cursor: str) -> None:
        self.source = source
        self.cursor = cursor
        """"" before the first entry."""
        self.gap = False
        self._expected = ""
        self._must_come = False
        self._units: set[str] = set()
        """Whose entries we read, so whose suppressed ones we miss."""

    def expect_cursor(self, *, must_come: bool) -> None:
        """The next entry is that of the cursor, once more; `must_come`: any other shows that it is gone."""
        self._expected, self._must_come = self.cursor, must_come

    def ended(self) -> None:
        """Nothing more comes: neither did the entry of the cursor, if it was expected still."""
        self.gap = self.gap or bool(self._expected and self._must_come)
        self._expected = ""

    def batches(self, lines: Sequence[bytes], *, now: float) -> Iterator[Batch]:
        """Entries as batches; the first after a loss begins a new one, which says so."""
        entries: list[dict[str, str]] = []
        for line in lines:
            entry = self._read(line)
            if entry is None:
                continue
            missing = self._missing_before(entry)
            if entries and (missing or len(entries) == BATCH_LINES):
                yield self._batch(entries, now=now)
                entries = []
            self.gap = self.gap or missing
            self.cursor = entry["__CURSOR"]
            if entry.get("MESSAGE_ID") != MESSAGES_SUPPRESSED:
                self._units.add(entry.get("_SYSTEMD_UNIT", ""))
                entries.append(entry)
        if entries or self.gap:
            yield self._batch(entries, now=now)

    def take_gap(self, *, now: float) -> Iterator[Batch]:
        if self.gap:
            yield self._batch([], now=now)

    def _batch(self, entries: list[dict[str, str]], *, now: float) -> Batch:
        gap, self.gap = self.gap, False
        return Batch((), Position(self.source, self.cursor), now, gap, entries)

    def _read(self, line: bytes) -> dict[str, str] | None:
        """One entry; None where it is the cursor's own, read before, or no entry."""
        try:
            fields = json.loads(line)
        except ValueError:
            logger.warning("journalctl wrote a line that is no JSON: %.200r", line)
            self.gap = True
            return None
        entry = {name: _text(value) for name, value in fields.items()}
        expected, self._expected = self._expected, ""
        if not expected:
            return entry
        if _moment(entry["__CURSOR"]) == _moment(expected):
            return None
        self.gap = self.gap or self._must_come
        return entry

    def _missing_before(self, entry: dict[str, str]) -> bool:
        if entry.get("MESSAGE_ID") != MESSAGES_SUPPRESSED:
            return False
        said = entry.get("MESSAGE", "")
        return "postfix" in said or said.rpartition(" ")[2] in self._units


def _text(value: Any) -> str:
    """A field as journalctl's JSON has it: text, bytes as numbers, a list where it occurs repeatedly, null if too long."""
    if isinstance(value, list):
        if value and isinstance(value[0], int):
            return bytes(value).decode(errors="surrogateescape")
        return _text(value[0]) if value else ""
    return value if isinstance(value, str) else ""


def _moment(cursor: str) -> dict[str, str]:
    """What a cursor says of its entry, without the file that it was read from (s, i)."""
    parts = dict(part.partition("=")[::2] for part in cursor.split(";"))
    return {name: text for name, text in parts.items() if name not in {"s", "i"}}


async def follow_journal(
    directory: Path | None,
    *,
    source: str,
    start: Position | None,
    from_end: bool,
    program: Sequence[str] = ("journalctl",),
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[Batch, None]:
    """Entries of this host's journal or of a directory of journal files, those to come too; never ends.

    Raises ConfigError when the journal cannot be read at first.
    """
    command = (*program, "--output=json", "--all", "--no-pager", f"--output-fields={','.join(FIELDS)}")
    command += ("--merge", f"--directory={directory}") if directory else ()
    entries = Entries(source, start.token if start else "")
    if start is None:
        if from_end:
            entries.cursor = await _newest(command)
        yield Batch((), Position(source, entries.cursor), time.time(), gap=False)
    first, delay = True, BACK_OFF
    while True:
        known = entries.cursor
        # --follow shows this boot alone since systemd 251, whatever --boot says: first the rest of all
        # boots, then what comes. --cursor, which gives its own entry once more, and not --after-cursor:
        # only so is it seen whether that entry is still there.
        for follow in ((), ("--follow", "--no-tail")):
            since = (f"--cursor={entries.cursor}",) if entries.cursor else ()
            entries.expect_cursor(must_come=not follow)
            child = Child()
            async with contextlib.aclosing(child.lines((*command, *follow, *since, *MATCHES))) as output:
                async for lines in output:
                    for batch in entries.batches(lines, now=time.time()):
                        yield batch
                        await asyncio.sleep(0)
            if child.status and "seek to cursor" in child.complaint:
                entries.cursor, entries.gap = await _newest(command), True
            else:
                _check(child, first=first)
            first = False
            entries.ended()
            for batch in entries.take_gap(now=time.time()):
                yield batch
        logger.warning("journalctl ended with status %d: %s", child.status, child.complaint)
        delay = BACK_OFF if entries.cursor != known else min(2 * delay, BACK_OFF_LONGEST)
        await pause(delay)


async def _newest(command: Sequence[str]) -> str:
    """Cursor of the last entry, "" where there is none."""
    child = Child()
    found = ""
    async with contextlib.aclosing(child.lines((*command, "--lines=1", *MATCHES))) as output:
        async for lines in output:
            found = json.loads(lines[-1])["__CURSOR"]
    _check(child, first=True)
    return found


def _check(child: Child, *, first: bool) -> None:
    """Raise ConfigError where journalctl says that this user or this setting will never see mail entries."""
    hidden = "insufficient permissions" in child.complaint or "not seeing messages from other users" in child.complaint
    if not first or not (child.status or hidden):
        return
    raise ConfigError(
        f"log.source: the journal cannot be read: {child.complaint}; wanted a user in the group "
        f"systemd-journal (usermod -aG systemd-journal USER), or an existing directory after journal:"
    )

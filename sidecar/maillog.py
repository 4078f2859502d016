"""A log file followed through its rotations: `Tail` reads what has come since, `follow_file` waits for it.

Renamed, copied and truncated, compressed, half-written, absent: to the reader it is one endless log.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from sidecar.compressed import UNREADABLE
from sidecar.config import ConfigError
from sidecar.filewatch import on_network, watching
from sidecar.log_batch import READ_SIZE, Batch, Position
from sidecar.log_reading import Cut, Reading
from sidecar.rotation import LogFile, Place, find, log_files, open_file
from sidecar.threads import in_thread

QUICK = 1 << 16
"""Bytes just written, so in memory still: read at once. More, or anything else, is read in a thread."""

LINGER = 1.0
"""Seconds that a file is read on after its successor got its first line, for a second writer that is late."""

PATIENCE = 10.0
"""Seconds that a new file may be unreadable: logrotate creates it before it sets its owner."""

logger = logging.getLogger(__name__)


class Tail:
    """One log, however often its file is rotated; every `read` gives what has come since the last.

    A file is left only when the next has a line in it and this one was then read to its end: the one
    writer has turned over before us.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: str,
        start: Position | None,
        from_end: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.network = on_network(path)
        self._path = path
        self._source = source
        self._clock = clock
        self._start = start
        self._from_end = from_end and start is None
        self._reading: Reading | None = None
        self._reopened = False
        self._late: Reading | None = None
        self._late_until = 0.0
        self._gap = False
        self._patience = 0.0
        self._denied_since: float | None = None

    def waiting(self) -> int | None:
        """Bytes to be read; None where something else comes first that may take its time. Cheap."""
        reading = self._reading
        if reading is None or reading.compressed or self._late or self.network:
            return None
        try:
            live = self._path.stat()
        except OSError:
            return None
        unread = live.st_size - reading.offset - len(reading.pending)
        return unread if unread >= 0 and (live.st_dev, live.st_ino) == reading.identity else None

    def read(self) -> list[Batch] | None:
        """What has come since; None: nothing. An empty list: read again at once.

        Raises ConfigError when a file cannot be read: at first, or for longer than a rotation takes.
        """
        if self.network:
            # Opening asks the server; a mere look is answered from what the client remembers, up to a minute.
            with contextlib.suppress(OSError):
                self._path.open("rb").close()
        try:
            return self._begin() if self._reading is None else self._go_on(self._reading)
        except FileNotFoundError:
            return None  # renamed between two of our looks
        except OSError as error:
            now = self._clock()
            self._denied_since = now if self._denied_since is None else self._denied_since
            if now - self._denied_since >= self._patience:
                raise self._cannot_be_read(error) from error
            return None

    def close(self) -> None:
        for reading in filter(None, (self._reading, self._late)):
            reading.close()
        self._reading = self._late = None

    def _go_on(self, reading: Reading) -> list[Batch] | None:
        try:
            rewritten = reading.rewritten()
            data = b"" if rewritten else reading.read()
        except UNREADABLE as error:
            return self._after_failure(reading, error)
        if rewritten:
            return self._after_truncation(reading)
        self._reopened = False
        if data or reading.skipping:
            return self._batches(reading, reading.cut(data))
        turned = self._turn_over(reading)
        return self._late_lines(reading) if turned is None else turned

    def _begin(self) -> list[Batch] | None:
        """Open the file to begin with; the first batch says where, unless that is known."""
        files = log_files(self._path)
        live = files[-1] if files and files[-1].path == self._path else None
        place = self._place_to_start()
        found = find(place, files) if place else None
        if place and found is not None:
            self._open(files[found], place.offset)
            return self._told_gap()
        if place:
            # Its file is gone: what was written since is in those that were written to since.
            newer = [file for file in files if file.mtime_ns > place.mtime_ns and file.size]
            live = newer[0] if newer else live
            self._gap = True
        if live is None:
            self._from_end = False  # what comes into being while we wait is new from its first line
            return None
        return [self._batch((), self._open(live, _after_last_line(live) if self._from_end else 0))]

    def _place_to_start(self) -> Place | None:
        if self._start is None:
            return None
        try:
            return Place.read(self._start.token)
        except ValueError as error:
            logger.warning("%s: %s; beginning with the file's first line", self._path, error)
            self._start, self._from_end, self._gap = None, False, True
            return None

    def _open(self, file: LogFile, offset: int) -> Reading:
        """Read this file from now on.

        Raises OSError, and what was read before is read on.
        """
        self._reading = Reading(file, offset)
        self._gap = self._gap or self._reading.shrunk
        self._patience, self._denied_since = PATIENCE, None
        return self._reading

    def _after_truncation(self, reading: Reading) -> list[Batch]:
        """What was not yet read stands in copytruncate's copy, if there is one."""
        place = reading.place
        copies = [file for file in log_files(self._path) if file.identity != reading.identity]
        found = find(place, copies)
        if found is not None:
            self._open(copies[found], place.offset)
            reading.close()
        else:
            self._gap = True
            reading.restart(reading.size if place.head_length and reading.begins_the_same() else 0)
        return self._told_gap()

    def _after_failure(self, reading: Reading, error: Exception) -> list[Batch]:
        if self._reopened:
            raise self._cannot_be_read(error) from error
        logger.warning("%s: %s", reading.path, error or type(error).__name__)
        if reading.compressed:
            self._gap = True
            reading.give_up()
            return self._told_gap()
        # NFS: the handle is stale when another host has removed the file.
        self._reopened = True
        self._start = self._batch((), reading).position
        reading.close()
        self._reading = None
        return []

    def _turn_over(self, reading: Reading) -> list[Batch] | None:
        """Go on to the next file, if this one has come to its end and the next has begun."""
        if self._is_live(reading):
            return None
        following, sure = self._following(reading)
        if following is None:
            return None
        data = reading.read()  # what was written until the next was begun
        if data:
            return self._batches(reading, reading.cut(data))
        self._open(following, 0)
        rest = self._batches(reading, reading.rest())
        self._gap = self._gap or not sure
        if self._late:
            self._late.close()
        self._late, self._late_until = reading, self._clock() + LINGER
        return rest + self._told_gap()

    def _following(self, reading: Reading) -> tuple[LogFile | None, bool]:
        """The next file that has something in it, and whether it is sure that none stood between."""
        files = log_files(self._path)
        found = next((index for index, file in enumerate(files) if file.identity == reading.identity), None)
        if found is None:  # compressed meanwhile, or gone
            found = find(reading.place, files)
        later = [file for file in files if file.mtime_ns > reading.mtime_ns] if found is None else files[found + 1 :]
        return next((file for file in later if file.size), None), found is not None

    def _is_live(self, reading: Reading) -> bool:
        try:
            live = self._path.stat()
        except FileNotFoundError:
            return False
        return (live.st_dev, live.st_ino) == reading.identity

    def _late_lines(self, reading: Reading) -> list[Batch] | None:
        """Lines that still came into the file before; the position stays in the present one."""
        late = self._late
        if late is None:
            return None
        over = self._clock() >= self._late_until
        try:
            cuts = late.cut(late.read()) + (late.rest() if over else [])
        except UNREADABLE:
            over, cuts = True, []
        if over:
            late.close()
            self._late = None
        return [self._batch(cut.lines, reading) for cut in cuts] or None

    def _told_gap(self) -> list[Batch]:
        assert self._reading
        return [self._batch((), self._reading)] if self._gap else []

    def _batches(self, reading: Reading, cuts: list[Cut]) -> list[Batch]:
        place = reading.place
        return [self._batch(cut.lines, reading, place._replace(offset=cut.offset)) for cut in cuts]

    def _batch(self, lines: Sequence[bytes], reading: Reading, place: Place | None = None) -> Batch:
        gap, self._gap = self._gap, False
        position = Position(self._source, (place or reading.place).token())
        return Batch(lines, position, reading.mtime_ns / 1e9, gap)

    def _cannot_be_read(self, error: Exception) -> ConfigError:
        named = getattr(error, "filename", None) or self._path
        said = getattr(error, "strerror", None) or str(error)
        return ConfigError(
            f"log.source: {named}: cannot be read: {said}; wanted a file that the sidecar's user may read: "
            f"add the user to the group of the file (usermod -aG adm USER)"
        )


def _after_last_line(live: LogFile) -> int:
    """Offset of the end of the last whole line: a half-written one is not yet said."""
    stored, text = open_file(live)
    with stored, text:
        end = stored.seek(0, os.SEEK_END)
        begin = max(0, end - READ_SIZE)
        return begin + os.pread(stored.fileno(), end - begin, begin).rfind(b"\n") + 1


async def follow_file(
    path: Path, *, source: str, start: Position | None, from_end: bool
) -> AsyncGenerator[Batch, None]:
    """Lines of a log file, those to come too; never ends.

    `from_end` holds where there is no `start`. Raises ConfigError as `Tail.read` does.
    """
    tail = Tail(path, source=source, start=start, from_end=from_end)
    try:
        async with watching(path, network=tail.network) as watch:
            while True:
                unread = tail.waiting()
                if unread == 0:
                    await watch.wait()
                    continue
                batches = tail.read() if unread is not None and unread <= QUICK else await in_thread(tail.read)
                if batches is None:
                    await watch.wait()
                    continue
                for batch in batches:
                    yield batch
                    await asyncio.sleep(0)
    finally:
        tail.close()

"""Where log lines come from: chooses by `log.source` between a file, the journal and standard input."""

import asyncio
import os
import stat
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from sidecar.config import ConfigError
from sidecar.journal import follow_journal
from sidecar.log_batch import BATCH_LINES, READ_SIZE, Batch, Position
from sidecar.maillog import follow_file

__all__ = ["Batch", "Position", "follow"]

STDIN = "-"
JOURNAL = "journal"


def follow(source: str, *, start: Position | None = None, from_end: bool = True) -> AsyncGenerator[Batch, None]:
    """Follow a source of log lines: "journal", "journal:DIRECTORY" (of journal files), "-" or the path of a file.

    Begins after `start`; without one at the end, and with the first line if not `from_end`. Never ends
    but for standard input. Close it with contextlib.aclosing. Raises ConfigError, also while it is
    iterated, when the source cannot be read.
    """
    kind, _, directory = source.partition(":")
    if source == STDIN:
        return read_stdin(0)
    if source == JOURNAL:
        return follow_journal(None, source=source, start=start, from_end=from_end)
    if kind == JOURNAL and directory:
        return follow_journal(Path(directory), source=source, start=start, from_end=from_end)
    if source in {"", "journal:"}:
        raise ConfigError(f'log.source: found {source!r}, wanted the path of a log file, "journal" or "-"')
    return follow_file(Path(source), source=source, start=start, from_end=from_end)


async def read_stdin(descriptor: int) -> AsyncGenerator[Batch, None]:
    """Lines until the end of the input; it cannot be read again, so its positions say nothing."""
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    ahead = threading.Semaphore(2)
    loop = asyncio.get_running_loop()

    def hand_on(data: bytes) -> None:
        loop.call_soon_threadsafe(chunks.put_nowait, data)

    # A pipe, a terminal and /dev/null cannot all be read by an event loop, and a thread that waits for
    # a terminal cannot be stopped: so one that the process does not wait for at its end.
    threading.Thread(target=_read_all, args=(descriptor, hand_on, ahead), name="stdin", daemon=True).start()
    rest = b""
    while data := await chunks.get():
        ahead.release()
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > READ_SIZE:
            lines, rest = [*lines, rest], b""
        for batch in _batches(lines, descriptor):
            yield batch
            await asyncio.sleep(0)
    for batch in _batches([rest] if rest else [], descriptor):
        yield batch


def _read_all(descriptor: int, hand_on: Callable[[bytes], None], ahead: threading.Semaphore) -> None:
    """Hand on what comes, b"" at the end; waits while the reader is behind."""
    data = b"?"
    while data:
        ahead.acquire()
        try:
            data = os.read(descriptor, READ_SIZE)
        except OSError:  # the terminal is gone
            data = b""
        try:
            hand_on(data)
        except RuntimeError:  # the loop is closed: nobody reads any more
            return


def _batches(lines: list[bytes], descriptor: int) -> list[Batch]:
    status = os.fstat(descriptor)
    reference = status.st_mtime if stat.S_ISREG(status.st_mode) else time.time()
    cuts = [lines[start : start + BATCH_LINES] for start in range(0, len(lines), BATCH_LINES)]
    return [
        Batch([line.removesuffix(b"\r") for line in cut], Position(STDIN, ""), reference, gap=False) for cut in cuts
    ]

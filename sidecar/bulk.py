"""Many log files, read by all processors at once: plain files in parts cut at line ends, compressed ones whole.

It knows what a reader must be told so that a part is read as it would be in the whole: the time of the line before it.
What is made of the facts is the caller's: a function from a part to a result, and the results come in the parts' order.
"""

import contextlib
import gc
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

from parsers.log import LogReader
from parsers.postfix.facts import Fact
from parsers.record import LogRecord
from parsers.syslog import Syslog
from sidecar.compressed import DECOMPRESSORS, UNREADABLE

STDIN: Final = Path("-")
_BLOCK: Final = 1 << 16
"""Bytes read at a time. Of larger blocks each line's strings are new to the processor's caches: a tenth slower."""
_LONGEST: Final = 1 << 20
"""Bytes kept of a line that does not end; no log has longer ones."""
_SAMPLES: Final = 1 << 20
"""Bytes between two looks at a file's stamps; no file has a year's lines in less."""
_LOOK: Final = 1 << 16
"""Bytes looked at for lines with a stamp."""
_LEAST: Final = 8 << 20
"""Bytes that are worth a process."""
_OBJECTS: Final = 100_000
"""Objects made between two runs of the garbage collector; by default, 700, it takes a tenth of the time."""

R = TypeVar("R")


class ParseError(Exception):
    """A file that cannot be read: names it and says why."""


class Part(NamedTuple):
    """Lines of one file, whole ones, to be read by themselves."""

    path: Path
    zone: tzinfo
    """Of stamps that name none."""
    reference: float
    """Modification time of the file, seconds since the epoch, UTC."""
    year: int | None
    """That of the file's first line, if known."""
    syslog_names: Sequence[str] = ()
    begin: int = 0
    end: int | None = None
    """Offset after the last line; None: the file's end."""
    after: float | None = None
    """Time of the line before; None at the file's beginning."""

    def reader(self, *, only: Collection[type[Fact]] | None = None, counting: bool = False) -> LogReader:
        """A reader for the blocks of this part; `only` and `counting` are its own."""
        return LogReader(
            zone=self.zone,
            reference=self.reference,
            year=self.year,
            after=self.after,
            syslog_names=self.syslog_names,
            only=only,
            counting=counting,
        )

    def blocks(self) -> Iterator[bytes]:
        """Whole lines, some ten kilobytes at a time; the file's last may lack its end. Raises ParseError."""
        begun = b""
        try:
            with contextlib.ExitStack() as stack:
                for block in _reads(_opened(self, stack), self):
                    end = block.rfind(b"\n") + 1
                    if end:
                        yield begun + memoryview(block)[:end]  # copied once
                        begun = block[end:]
                    elif len(begun) < _LONGEST:
                        begun += block
        except UNREADABLE as error:
            raise ParseError(f"{self.path}: cannot be read: {_said(error, self.path)}") from error
        if begun:
            yield begun


def _opened(part: Part, stack: contextlib.ExitStack) -> Any:
    if part.path == STDIN:
        return sys.stdin.buffer
    stored = stack.enter_context(part.path.open("rb", buffering=0))
    if decompress := DECOMPRESSORS.get(part.path.suffix):
        return stack.enter_context(decompress(stored))
    stored.seek(part.begin)
    return stored


def _reads(file: BinaryIO, part: Part) -> Iterator[bytes]:
    if part.end is None:
        yield from iter(lambda: file.read(_BLOCK), b"")
        return
    left = part.end - part.begin
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise EOFError("it has become shorter while it was read")
        left -= len(block)
        yield block


def _said(error: BaseException, path: Path) -> str:
    if isinstance(error, FileNotFoundError) and path.suffix == ".zst" and path.exists():
        return "the program zstd is not installed; install it, or decompress the file first"
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


# Parts.


def parts(
    paths: Sequence[Path], *, zone: tzinfo, year: int | None = None, syslog_names: Sequence[str] = (), pieces: int = 1
) -> list[Part]:
    """The files in the order given, standard input where there are none; each in up to `pieces` parts of similar size.

    `zone` is that of stamps which name none; `year` that of the first line of each file, by default reckoned from the
    file's modification time. Raises ParseError.
    """
    found = []
    for path in paths or (STDIN,):
        try:
            reference = time.time() if path == STDIN else path.stat().st_mtime
            plain = path != STDIN and path.suffix not in DECOMPRESSORS and path.is_file()
            begins = first_year(path, zone) if plain and year is None else year
            whole = Part(path, zone, reference, begins, tuple(syslog_names))
            found += _cut(whole, pieces) if plain else [whole]
        except OSError as error:
            raise ParseError(f"{path}: cannot be read: {error.strerror}") from error
    return found


def _cut(whole: Part, pieces: int) -> list[Part]:
    size = whole.path.stat().st_size
    pieces = min(pieces, size // _LEAST)
    if pieces < 2:
        return [whole]
    with whole.path.open("rb") as file:
        wanted = [size * piece // pieces for piece in range(1, pieces)]
        cuts = [(0, whole.after), *_cuts(file, whole, wanted, size)]
    ends = [*(begin for begin, _ in cuts[1:]), None]
    return [whole._replace(begin=begin, end=end, after=after) for (begin, after), end in zip(cuts, ends, strict=True)]


def _cuts(file: BinaryIO, whole: Part, wanted: Sequence[int], size: int) -> Iterator[tuple[int, float]]:
    """Where lines begin, at the offsets wanted or soon after, with the time of the line before.

    A stamp without a year or a zone can only be read after those before it. One line in a megabyte is enough, but not
    in the hour that an autumn night has twice: there is no cut.
    """
    syslog = Syslog(zone=whole.zone, reference=whole.reference, year=whole.year, syslog_names=whole.syslog_names)
    due = list(wanted)
    for offset in sorted({*range(0, size, _SAMPLES), *wanted}):
        begin, before, line = _lines_at(file, offset)
        record = next((one for one in map(syslog.read, reversed(before)) if isinstance(one, LogRecord)), None)
        cut = due and offset >= due[0] and record and line is not None and isinstance(syslog.read(line), LogRecord)
        if cut and record and not _twice(record.time, whole.zone):
            yield begin, record.time
            due = [later for later in due if later > offset]


def _lines_at(file: BinaryIO, offset: int) -> tuple[int, list[str], str | None]:
    """Where the first line behind an offset begins, some lines before it, and itself if there is one."""
    start = max(0, offset - _LOOK // 2)
    file.seek(start)
    data = file.read(_LOOK)
    place = data.find(b"\n", offset - start) + 1
    if place == 0:
        return offset, [], None
    before = data[:place].split(b"\n")[1 if start else 0 : -1]
    line = data[place:].split(b"\n", 1)[0]
    return start + place, [_text(one) for one in before], _text(line)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape").rstrip("\r")


def _twice(moment: float, zone: tzinfo) -> bool:
    """Whether the clock on the wall shows this time, or one within an hour of it, twice."""
    near = (datetime.fromtimestamp(moment + hours * 3600.0, zone) for hours in (-1, 0, 1))
    return any(wall.replace(fold=0).utcoffset() != wall.replace(fold=1).utcoffset() for wall in near)


_BSD_MONTH: Final = re.compile(rb"\n(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d ")
_MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def first_year(path: Path, zone: tzinfo) -> int | None:
    """The year of a file's first line, where its stamps have none and it holds more than one New Year; else None.

    The reader alone takes the first line for the last time before the file's end that fits its stamp. Raises OSError.
    """
    if path == STDIN or path.suffix in DECOMPRESSORS:
        return None
    with path.open("rb") as file:
        months = list(_months(file))
    new_years = sum(1 for before, after in itertools.pairwise(months) if after + 6 <= before)
    if not new_years:
        return None
    end = datetime.fromtimestamp(path.stat().st_mtime, zone)
    last = end.year if months[-1] <= end.month else end.year - 1
    return last - new_years


def _months(file: BinaryIO) -> Iterator[int]:
    """The month of one line in each megabyte."""
    size = file.seek(0, 2)
    for offset in range(0, size, _SAMPLES):
        file.seek(offset)
        if found := _BSD_MONTH.search(b"\n" + file.read(4096) if offset == 0 else file.read(4096)):
            yield _MONTHS.index(found[1])


# Processes.


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def fold(work: Callable[[Part], R], some: Sequence[Part], *, processes: int | None = None) -> Iterator[R]:
    """What `work` makes of each part, in their order; up to `processes` (by default all processors) work at once.

    Results are pickled, so they should be sums and not facts. With one part, or one process, all is done here. Raises
    ParseError: what `work` raised as one, or that a process came to its end (killed, out of memory) or failed.
    """
    most = min(processes or processors(), len(some))
    if most < 2:
        for part in some:
            with seldom_collected():
                result = work(part)
            yield result
        return
    from sidecar.side_by_side import side_by_side  # noqa: PLC0415  # one process alone needs no multiprocessing

    yield from side_by_side(work, some, most)


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)

"""`sidecar parse`: logs to facts, one JSON object a fact, or to counts of what was understood and what was not."""

import itertools
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from parsers.fact_json import fact_json
from parsers.log import LogReader
from sidecar.config import Config
from sidecar.local_time import local_zone
from sidecar.rotation import DECOMPRESSORS, UNREADABLE

STDIN: Final = Path("-")
_BLOCK: Final = 1 << 18
_LONGEST: Final = 1 << 20
"""Bytes kept of a line that does not end; no log has longer ones."""
_SAMPLES: Final = 1 << 20
"""Bytes between two looks at a file's stamps; no file has a year's lines in less."""


class ParseError(click.ClickException):
    """A file that cannot be read: names it and says why."""

    exit_code = 2


@dataclass(slots=True)
class Statistics:
    """What the lines of all files gave."""

    lines: int = 0
    facts: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    """One unknown text of each daemon."""

    def add(self, reader: LogReader) -> None:
        self.lines += reader.lines
        self.facts += reader.known
        self.unknown += reader.unknown
        self.samples = {**reader.samples, **self.samples}

    def as_json(self) -> dict[str, Any]:
        return {"lines": self.lines, "facts": dict(self.facts), "unknown": dict(self.unknown)}


def parse_files(
    paths: Sequence[Path],
    *,
    zone: tzinfo,
    year: int | None = None,
    syslog_names: Sequence[str] = (),
    out: TextIO | None = None,
) -> Statistics:
    """Read logs, each by itself, and write a line of JSON for each fact to `out` if there is one.

    `zone` is that of stamps which name none; `year` that of the first line of each file, by default reckoned from the
    file's modification time. Raises ParseError.
    """
    statistics = Statistics()
    for path in paths or (STDIN,):
        reader = LogReader(
            zone=zone,
            reference=time.time() if path == STDIN else modified(path),
            year=year or first_year(path, zone),
            syslog_names=syslog_names,
        )
        for block in blocks(path):
            facts = reader.block_facts(block)
            if out is not None:
                out.writelines(f"{json.dumps(fact_json(fact, zone))}\n" for fact in facts)
        statistics.add(reader)
    return statistics


def modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise ParseError(f"{path}: cannot be read: {error.strerror}") from error


def blocks(path: Path) -> Iterator[bytes]:
    """Whole lines, some hundred kilobytes at a time; the last may lack its end."""
    begun = b""
    try:
        with ExitStack() as stack:
            file = _opened(path, stack)
            while block := file.read(_BLOCK):
                lines, newline, rest = block.rpartition(b"\n")
                if newline:
                    yield begun + lines + newline
                    begun = rest
                elif len(begun) < _LONGEST:
                    begun += rest
    except UNREADABLE as error:
        raise ParseError(f"{path}: cannot be read: {_said(error, path)}") from error
    if begun:
        yield begun


def _opened(path: Path, stack: ExitStack) -> Any:
    if path == STDIN:
        return sys.stdin.buffer
    stored = stack.enter_context(path.open("rb", buffering=0))
    decompress = DECOMPRESSORS.get(path.suffix)
    return stack.enter_context(decompress(stored)) if decompress else stored


def _said(error: BaseException, path: Path) -> str:
    if isinstance(error, FileNotFoundError) and path.suffix == ".zst" and path.exists():
        return "the program zstd is not installed; install it, or decompress the file first"
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


_BSD_MONTH: Final = re.compile(rb"\n(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d ")
_MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def first_year(path: Path, zone: tzinfo) -> int | None:
    """The year of a file's first line, where its stamps have none and it holds more than one New Year; else None.

    The reader alone takes the first line for the last time before the file's end that fits its stamp.
    """
    if path == STDIN or path.suffix in DECOMPRESSORS:
        return None
    try:
        with path.open("rb") as file:
            months = list(_months(file))
    except OSError as error:
        raise ParseError(f"{path}: cannot be read: {error.strerror}") from error
    new_years = sum(1 for before, after in itertools.pairwise(months) if after + 6 <= before)
    if not new_years:
        return None
    end = datetime.fromtimestamp(modified(path), zone)
    last = end.year if months[-1] <= end.month else end.year - 1
    return last - new_years


def _months(file: BinaryIO) -> Iterator[int]:
    """The month of one line in each megabyte."""
    size = file.seek(0, 2)
    for offset in range(0, size, _SAMPLES):
        file.seek(offset)
        if found := _BSD_MONTH.search(b"\n" + file.read(4096) if offset == 0 else file.read(4096)):
            yield _MONTHS.index(found[1])


_OFFSET: Final = re.compile(r"([+-])(\d\d):?(\d\d)", re.ASCII)


class Zone(click.ParamType[tzinfo]):
    """A name of the time zone database, or an offset."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tzinfo:
        if isinstance(value, tzinfo):
            return value
        if offset := _OFFSET.fullmatch(value):
            minutes = int(offset[2]) * 60 + int(offset[3])
            if minutes < 24 * 60:
                return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
        try:
            return UTC if value in {"UTC", "Z"} else ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.fail(
                f"{value!r} is no time zone; wanted a name like Europe/Berlin or an offset like +02:00", param, ctx
            )


@click.command(epilog="Example: sidecar parse --stats --json /var/log/mail.log /var/log/mail.log.2.gz")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--stats", is_flag=True, help="Counts instead of facts: lines, facts by name, unknown lines by daemon.")
@click.option("--json", "as_json", is_flag=True, help="Counts as one JSON object; facts always are.")
@click.option("--tz", "zone", type=Zone(), help="Zone of stamps that name none; default: this host's.")
@click.option("--year", type=click.IntRange(1971, 9998), help="Year of each file's first line; default: from its time.")
@click.pass_obj
def parse(
    config: Config,
    files: tuple[Path, ...],
    *,
    stats: bool,
    as_json: bool,
    zone: tzinfo | None,
    year: int | None,
) -> None:
    """Print what the lines of a log state, one JSON object a fact, nothing for lines that are not known.

    Reads FILES, also .gz, .bz2, .xz and .zst, or standard input.
    """
    statistics = parse_files(
        files,
        zone=zone or local_zone(),
        year=year,
        syslog_names=config.log.syslog_names,
        out=None if stats else sys.stdout,
    )
    if stats:
        click.echo(json.dumps(statistics.as_json()) if as_json else "\n".join(_table(statistics)))


def _table(statistics: Statistics) -> Iterator[str]:
    yield f"{statistics.lines:>10}  lines"
    for name, count in statistics.facts.most_common():
        yield f"{count:>10}  {name}"
    for daemon, count in statistics.unknown.most_common():
        yield f"{count:>10}  unknown of {daemon}: {statistics.samples.get(daemon, '')}".rstrip()

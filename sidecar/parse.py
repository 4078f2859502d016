"""`sidecar parse`: logs to facts, one JSON object a fact, or to counts of what was understood and what was not."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, Final, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from parsers.fact_json import fact_json
from parsers.log import LogReader
from sidecar.bulk import Part, fold, parts, processors
from sidecar.config import Config
from sidecar.local_time import local_zone


@dataclass(slots=True)
class Statistics:
    """What the lines of all files gave."""

    lines: int = 0
    facts: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    """One unknown text of each daemon."""

    def add(self, later: "Statistics") -> None:
        """Count what comes behind as well."""
        self.lines += later.lines
        self.facts += later.facts
        self.unknown += later.unknown
        self.samples = {**later.samples, **self.samples}

    def as_json(self) -> dict[str, Any]:
        return {"lines": self.lines, "facts": dict(self.facts), "unknown": dict(self.unknown)}


def parse_files(
    paths: Sequence[Path], *, zone: tzinfo, year: int | None = None, syslog_names: Sequence[str] = (), out: TextIO
) -> Statistics:
    """Read logs, each by itself, and write a line of JSON for each fact to `out`.

    `zone` is that of stamps which name none; `year` that of the first line of each file, by default reckoned from the
    file's modification time. Raises ParseError.
    """
    statistics = Statistics()
    for part in parts(paths, zone=zone, year=year, syslog_names=syslog_names):
        reader = part.reader()
        for block in part.blocks():
            facts = reader.block_facts(block)
            out.writelines(f"{json.dumps(fact_json(fact, zone))}\n" for fact in facts)
        statistics.add(_counts(reader))
    return statistics


def count_files(
    paths: Sequence[Path],
    *,
    zone: tzinfo,
    year: int | None = None,
    syslog_names: Sequence[str] = (),
    processes: int | None = None,
) -> Statistics:
    """The same counts, by as many processes as there are processors, or so many."""
    statistics = Statistics()
    most = processes or processors()
    for counts in fold(
        count, parts(paths, zone=zone, year=year, syslog_names=syslog_names, pieces=most), processes=most
    ):
        statistics.add(counts)
    return statistics


def count(part: Part) -> Statistics:
    """What is in a part of a log."""
    reader = part.reader(only=(), counting=True)
    for block in part.blocks():
        reader.block_facts(block)
    return _counts(reader)


def _counts(reader: LogReader) -> Statistics:
    return Statistics(reader.lines, reader.known, reader.unknown, reader.samples)


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
@click.option(
    "--messages", is_flag=True, help="Messages instead of facts, one JSON object each; with --stats their sums."
)
@click.option("--stats", is_flag=True, help="Counts instead of facts: lines, facts by name, unknown lines by daemon.")
@click.option("--json", "as_json", is_flag=True, help="Counts as one JSON object; facts always are.")
@click.option("--tz", "zone", type=Zone(), help="Zone of stamps that name none; default: this host's.")
@click.option("--year", type=click.IntRange(1971, 9998), help="Year of each file's first line; default: from its time.")
@click.pass_obj
def parse(
    config: Config,
    files: tuple[Path, ...],
    *,
    messages: bool,
    stats: bool,
    as_json: bool,
    zone: tzinfo | None,
    year: int | None,
) -> None:
    """Print what the lines of a log state, one JSON object a fact, nothing for lines that are not known.

    Reads FILES, also .gz, .bz2, .xz and .zst, or standard input. With --messages the files are one log, oldest first: a
    message is told when it is through, with all its queue ids and what became of each recipient.
    """
    zone = zone or local_zone()
    if messages:
        _messages(files, stats=stats, as_json=as_json, zone=zone, year=year, syslog_names=config.log.syslog_names)
    elif not stats:
        parse_files(files, zone=zone, year=year, syslog_names=config.log.syslog_names, out=sys.stdout)
    else:
        statistics = count_files(files, zone=zone, year=year, syslog_names=config.log.syslog_names)
        click.echo(json.dumps(statistics.as_json()) if as_json else "\n".join(_table(statistics)))


def _messages(
    files: Sequence[Path], *, stats: bool, as_json: bool, zone: tzinfo, year: int | None, syslog_names: Sequence[str]
) -> None:
    from sidecar.log_messages import sum_messages, write_messages  # noqa: PLC0415  # who wants facts needs none of it

    if not stats:
        write_messages(files, zone=zone, year=year, syslog_names=syslog_names, out=sys.stdout)
        return
    sums = sum_messages(files, zone=zone, year=year, syslog_names=syslog_names)
    rows = [(count, f"messages {end}") for end, count in sums.messages.most_common()]
    rows += [(count, f"recipients {status}") for status, count in sums.recipients.most_common()]
    rows += [(count, f"refused with {code}") for code, count in sums.refused.most_common()]
    click.echo(json.dumps(sums.as_json()) if as_json else "\n".join(f"{count:>10}  {what}" for count, what in rows))


def _table(statistics: Statistics) -> Iterator[str]:
    yield f"{statistics.lines:>10}  lines"
    for name, count in statistics.facts.most_common():
        yield f"{count:>10}  {name}"
    for daemon, count in statistics.unknown.most_common():
        yield f"{count:>10}  unknown of {daemon}: {statistics.samples.get(daemon, '')}".rstrip()

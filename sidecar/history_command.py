"""`sidecar report`: what became of the mail, out of core's store or out of log files.

Knows the options, and where the numbers come from; what they are and how they look is in history_report, _tables, _html.
"""

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from parsers.expression import Expression, ExpressionError
from policies.rollup import DAY, HOUR
from policies.site import Settings
from sidecar import clickhouse, history_html, history_log, history_report, history_tables, rules
from sidecar.config import Config
from sidecar.database import Database, StoreError
from sidecar.history_read import (
    ALIASES,
    BY_HOUR_MAX,
    DIMENSIONS,
    FLOW_COLUMNS,
    History,
    Selection,
    StoredHistory,
    span,
    where,
)
from sidecar.history_report import Report
from sidecar.history_server import ServerHistory
from sidecar.local_time import local_zone
from sidecar.outside_store import SCHEMA as OUTSIDE_SCHEMA
from sidecar.parse import Zone
from sidecar.statements import SCHEMA as CORE_SCHEMA

_LAST: Final = re.compile(r"(\d{1,4})([hdw])", re.ASCII)
_PATIENCE: Final = 300.0
"""Seconds that a person waits for a server's answer."""
_UNITS: Final = {"h": 3600, "d": 86_400, "w": 604_800}
_EXPRESSION: Final = (
    "provider, domain, transport, host, tenant, campaign, segment, category, detail, rule, bounce, status"
)


class Source(NamedTuple):
    """Where a report comes from."""

    history: History
    outside: Database | None
    name: str
    now: float
    """The end of what it knows."""
    first: float = 0.0
    """Its begin, where that is known."""


class Last(click.ParamType[int]):
    """A length of time, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _LAST.fullmatch(str(value))
        if found is None or int(found[1]) == 0:
            self.fail(
                f"{value!r} is no length of time; wanted a number of hours, days or weeks, as 24h, 7d, 4w", param, ctx
            )
        return int(found[1]) * _UNITS[found[2]]


class Dimension(click.ParamType[str]):
    """One of the words that a report can be made by, or several with commas between."""

    name = "dim"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        for word in str(value).split(","):
            if word not in DIMENSIONS and word not in ALIASES:
                self.fail(f"{word!r} is no dimension; wanted {', '.join((*DIMENSIONS, *ALIASES))}", param, ctx)
        return str(value)


class Filter(click.ParamType[Expression]):
    """A condition on the mail."""

    name = "expression"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Expression:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # converted before
        try:
            return where(value)
        except ExpressionError as error:
            self.fail(f"{error}", param, ctx)


@click.command(
    epilog="Example: sidecar report --last 7d --by campaign --where 'provider = google' --format html -o week.html"
)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--by", multiple=True, type=Dimension(), help=f"By what: {', '.join(DIMENSIONS)}. [default: provider]")
@click.option(
    "--last",
    type=Last(),
    help="Up to now: 24h, 7d, 4w, ... More than a week is whole days of UTC. [default: 7d, of FILES all]",
)
@click.option("--where", "condition", type=Filter(), help=f"Only such mail: an expression over {_EXPRESSION}.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "html"]), default="table", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.option("--top", type=click.IntRange(min=0), default=20, show_default=True, help="Rows of the table; 0 for all.")
@click.option("--compare", nargs=2, metavar="A B", help="Set two values of the first --by side by side.")
@click.option(
    "--cohort", type=click.Choice(list(FLOW_COLUMNS)), help="Acceptance by the day on which a value was first seen."
)
@click.option("--warm-up", is_flag=True, help="Each transport's days: how much more, and at what price.")
@click.option("--here", is_flag=True, help="Of this host's own store, though store.clickhouse has the fleet's.")
@click.option("--tz", "zone", type=Zone(), help="Zone of stamps in FILES that name none; default: this host's.")
@click.option("--year", type=click.IntRange(1971, 9998), help="Year of each file's first line; default: from its time.")
@click.option("--now", type=float, hidden=True, help="For benchmarks: the end of the time reported on.")
@click.option(
    "--timing",
    is_flag=True,
    hidden=True,
    help="For benchmarks: say on standard error how long it took, and how much CPU.",
)
@click.pass_obj
def report(
    config: Config,
    files: tuple[Path, ...],
    *,
    by: tuple[str, ...],
    last: int | None,
    condition: Expression | None,
    form: str,
    as_json: bool,
    output: Path | None,
    top: int,
    compare: tuple[str, str] | None,
    cohort: str | None,
    warm_up: bool,
    here: bool,
    zone: tzinfo | None,
    year: int | None,
    now: float | None,
    timing: bool,
) -> None:
    """Say what became of the mail: acceptance, bounces, deferrals and complaints against their targets, time to
    delivery, trends, and what stands out, with what happened around it.

    Out of the store of core, or of the fleet's that store.clickhouse names, or out of log FILES, which may be compressed
    and in any order; - is standard input.
    """
    began, worked = time.perf_counter(), time.process_time()
    dimensions = tuple(word for words in by or ("provider",) for word in words.split(","))
    with ExitStack() as stack:
        source = _of_files(config, files, zone, year) if files else _of_store(config, stack, here=here, now=now)
        selection = Selection(*_span(source, last), dimensions, condition)
        made = history_report.make(source.history, source.outside, selection, now=source.now)
        special = _special(source, selection, made, compare, cohort, warm_up=warm_up)
        form = "json" if as_json else form
        _write(_rendered(made, special, source, form, top=top), form, output)
    if timing:
        click.echo(f"{time.perf_counter() - began:.4f} {time.process_time() - worked:.4f}", err=True)


# Where it comes from.


def _of_store(config: Config, stack: ExitStack, *, here: bool, now: float | None) -> Source:
    """Raises StoreError, ServerError, ConfigError."""
    outside = outside_store(config)
    if outside is not None:
        stack.enter_context(closing(outside))
    server = None if here else clickhouse.configured(config)
    if server is not None:
        stack.enter_context(closing(server))
        server.patience = _PATIENCE
        return Source(ServerHistory(server), outside, server.name, now or time.time())
    core = stack.enter_context(closing(Database.open_read_only(config.core_database, CORE_SCHEMA)))
    return Source(StoredHistory(core), outside, str(config.core_database), now or time.time())


def outside_store(config: Config) -> Database | None:
    """Complaints and listings, where they can be read."""
    try:
        return Database.open_read_only(config.outside_database, OUTSIDE_SCHEMA)
    except StoreError:
        return None


def _of_files(config: Config, files: Sequence[Path], zone: tzinfo | None, year: int | None) -> Source:
    """Raises ParseError."""
    settings = Settings(
        act=False,
        campaign_headers=frozenset(map(str.lower, config.report.campaign_headers)),
        segment_headers=frozenset(map(str.lower, config.report.segment_headers)),
    )
    columns = (
        TextColumn("reading"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        read = history_log.read(
            files,
            rules.load(config.rules.directory),
            settings,
            zone=zone or local_zone(),
            year=year,
            syslog_names=config.log.syslog_names,
            told=lambda done, of: progress.update(task, completed=done, total=of),
        )
    name = f"{len(files)} file{'s' if len(files) > 1 else ''}, {read.lines} lines ({read.unknown} not understood)"
    return Source(StoredHistory(read.database), None, name, read.last, read.first)


def _span(source: Source, last: int | None) -> tuple[int, int]:
    if last is not None or not source.first:
        return span(last or 7 * DAY, now=source.now)
    whole = int(source.now) - int(source.first)
    width = HOUR if whole < BY_HOUR_MAX - 2 * HOUR else DAY
    return int(source.first) // width * width, (int(source.now) // width + 1) * width


# What is made of it.


class Special(NamedTuple):
    """What was asked for instead of the report."""

    drawn: RenderableType
    data: Any


def _special(
    source: Source,
    selection: Selection,
    made: Report,
    compare: tuple[str, str] | None,
    cohort: str | None,
    *,
    warm_up: bool,
) -> Special | None:
    if compare:
        try:
            found = history_report.compare(made, *compare)
        except KeyError as error:
            there = ", ".join(dict.fromkeys(row.key[0] for row in made.rows[:10]))
            raise click.UsageError(
                f"--compare: no mail of {selection.by[0]} {error.args[0]!r} in this time; there is {there or 'none'}"
            ) from error
        drawn = history_tables.differences(found, *compare)
        return Special(drawn, [history_tables.difference_json(each) for each in found])
    if cohort or warm_up:
        frame = (
            history_report.cohorts(source.history, selection, cohort)
            if cohort
            else history_report.warm_up(source.history, selection)
        )
        title = f"acceptance by days since a {cohort} was first seen" if cohort else "warm-up"
        shown = frame.reset_index() if frame.index.name else frame
        return Special(history_tables.frame_table(frame, title), json.loads(shown.to_json(orient="records")))
    return None


def _rendered(
    made: Report, special: Special | None, source: Source, form: str, *, top: int
) -> Iterator[RenderableType] | str:
    if form == "json":
        if special is not None:
            return json.dumps(special.data) + "\n"
        return json.dumps(history_tables.as_json(made, {"source": source.name})) + "\n"
    if special is not None:
        if form != "table":
            raise click.UsageError(f"--format {form}: --compare, --cohort and --warm-up come as table and json")
        return iter((special.drawn,))
    if form == "csv":
        return history_tables.as_csv(made)
    if form == "html":
        return history_html.page(made, source=source.name, now=source.now, plots=True)
    return history_tables.parts(made, top=top, source=source.name)


def _write(rendered: Iterator[RenderableType] | str, form: str, output: Path | None) -> None:
    if output is not None:
        text = rendered if isinstance(rendered, str) else history_tables.plain(rendered)
        try:
            output.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise click.ClickException(f"{output}: cannot be written: {error.strerror}") from error
    elif isinstance(rendered, str):
        click.echo(rendered.encode("utf-8", "backslashreplace"), nl=False)
        if form == "html" and sys.stdout.isatty():
            click.echo("sidecar: that is a page; use -o FILE", err=True)
    else:
        console = Console(highlight=False)
        console = console if console.is_terminal else Console(highlight=False, width=160)
        for part in rendered:
            console.print(part)
            console.print(Text())

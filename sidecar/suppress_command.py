"""`sidecar suppress`: the suppression list by hand, and in and out of CSV files.

Asks core for everything, and the outside process as well where a person is erased.
"""

import csv
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any, NoReturn

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from policies.suppression import Reason
from sidecar.config import Config
from sidecar.control import CoreRefused, CoreUnreachable, ask_core
from sidecar.own_log import printable
from sidecar.status import who

COLUMNS = ("address", "digest", "list", "reason", "since", "until", "by_whom", "evidence")
"""Of an export; an import takes them in any order, needs the first or the second, and knows no others."""
_TAKEN = ("address", "digest", "list", "reason", "since", "until", "evidence")
_AT_ONCE = 500
_REFUSED_SHOWN = 20
_SECONDS = 60.0
"""For one batch: a large list on a slow disk takes its time."""
_ERASE_SECONDS = 1_800.0
"""Every text of a month of events is looked at."""

_as_json = click.option("--json", "as_json", is_flag=True, help="JSON.")
_list = click.option("--list", "listed", metavar="LIST", help="global, tenant:LOGIN or domain:EXAMPLE.COM.")


@click.group(epilog="Example: sidecar suppress check user@gmail.com")
def suppress() -> None:
    """Look after the list of those who get no more mail."""


def _ask(config: Config, do: str, **request: Any) -> dict[str, Any]:
    """Raises CoreUnreachable, CoreRefused."""
    answer = ask_core(
        config.control_socket, {"command": "suppress", "do": do, "who": who(), **request}, timeout=_SECONDS
    )
    return {name: value for name, value in answer.items() if name != "ok"}


@suppress.command(epilog="Example: sidecar suppress add user@gmail.com --days 90")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@_list
@click.option(
    "--reason", type=click.Choice([str(each) for each in Reason]), default=str(Reason.BY_HAND), show_default=True
)
@click.option("--why", default="", help="Kept as evidence.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="For so long; else for good.")
@_as_json
@click.pass_obj
def add(
    config: Config,
    addresses: tuple[str, ...],
    *,
    listed: str | None,
    reason: str,
    why: str,
    days: float | None,
    as_json: bool,
) -> None:
    """Send no more mail to these addresses."""
    until = time.time() + days * 86_400 if days else 0
    row = {"list": listed, "reason": reason, "evidence": why, "until": until}
    answer = _ask(config, "add", rows=[{"address": each, **row} for each in addresses])
    _said(answer, as_json=as_json, text=f"{answer['added']} added, {answer['known']} were there")


@suppress.command(epilog="Example: sidecar suppress remove user@gmail.com")
@click.argument("address")
@_list
@click.option("--why", default="", help="Kept in the history.")
@_as_json
@click.pass_obj
def remove(config: Config, address: str, *, listed: str | None, why: str, as_json: bool) -> None:
    """Take an address off a list, or off all. Its history stays."""
    answer = _ask(config, "remove", address=address, list=listed, why=why)
    removed = [f"{each['list']} ({each['reason']})" for each in answer["removed"]]
    _said(
        answer,
        as_json=as_json,
        text=f"{address}: taken off {', '.join(removed)}" if removed else f"{address}: on no list",
    )
    if not removed:
        sys.exit(1)


@suppress.command(epilog="Example: sidecar suppress check user@gmail.com --json")
@click.argument("address")
@_as_json
@click.pass_obj
def check(config: Config, address: str, *, as_json: bool) -> None:
    """Say which lists an address is on and was on, why, since when and by whom. Exit status 1 where it is on one."""
    answer = _ask(config, "check", address=address)
    names = [f"{each['list']} ({each['reason']})" for each in answer["suppressed"]]
    if as_json:
        click.echo(json.dumps(answer))
    else:
        click.echo(f"{address}: suppressed on {', '.join(names)}" if names else f"{address}: not suppressed")
        for each in answer["entries"]:
            click.echo(
                f"  {each['list']} ({each['reason']}) since {_iso(each['since'])} by {printable(each['by_whom'])}"
            )
            click.echo(f"    {_until(each)}")
            click.echo(f"    {printable(each['evidence'])}")
    sys.exit(int(bool(names)))


@suppress.command("list", epilog="Example: sidecar suppress list --reason complaint --limit 20")
@_list
@click.option("--reason", type=click.Choice([str(each) for each in Reason]))
@click.option("--ended", is_flag=True, help="Those as well that are no longer in force.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@_as_json
@click.pass_obj
def list_(config: Config, *, listed: str | None, reason: str | None, ended: bool, limit: int, as_json: bool) -> None:
    """Show entries, the oldest first."""
    found = list(islice(_entries(config, listed=listed, reason=reason, ended=ended), limit))
    if as_json:
        click.echo(json.dumps(found))
    else:
        _print(found)


@suppress.command(epilog="Example: sidecar suppress segments")
@_as_json
@click.pass_obj
def segments(config: Config, *, as_json: bool) -> None:
    """Show how many recipients of each sending domain opened or clicked lately. Needs suppression.inactive_days."""
    found = _ask(config, "segments")["segments"]
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table("sending domain", "opened or clicked within", "people", box=None)
    for each in found:
        table.add_row(each["domain"], each["engaged"], str(each["people"]))
    Console().print(table)


def _entries(
    config: Config, *, listed: str | None, reason: str | None, ended: bool = False
) -> Iterator[dict[str, Any]]:
    """All of them, a page at a time."""
    after = 0
    while page := _ask(config, "list", after=after, limit=1_000, list=listed, reason=reason, ended=ended)["entries"]:
        yield from page
        after = page[-1]["id"]


@suppress.command("export", epilog="Example: sidecar suppress export suppressed.csv")
@click.argument("file", type=click.File("w", encoding="utf-8", lazy=True), default="-")
@_list
@click.pass_obj
def export(config: Config, file: IO[str], *, listed: str | None) -> None:
    """Write the list as CSV. With suppression.storage = "hash" there are digests alone, good for the same key."""
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    for entry in _entries(config, listed=listed, reason=None):
        writer.writerow(entry | {"since": _iso(entry["since"]), "until": _iso(entry["until"])})


@suppress.command("import", epilog="Example: sidecar suppress import suppressed.csv --list tenant:news")
@click.argument("file", type=click.Path(path_type=Path))
@_list
@click.option(
    "--reason", type=click.Choice([str(each) for each in Reason]), default=str(Reason.IMPORTED), show_default=True
)
@_as_json
@click.pass_obj
def import_(config: Config, file: Path, *, listed: str | None, reason: str, as_json: bool) -> None:
    """Read a CSV file with a header, or one address a line; --list and --reason where it does not say.

    What is there already is not added again, so that an import which was cut short may be begun anew.
    """
    sums = {"added": 0, "known": 0, "refused": 0}
    text = _opened(file)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress, text:
        task = progress.add_task(file.name, total=file.stat().st_size)
        numbered = _rows(file, text, {"list": listed, "reason": reason, "evidence": f"imported from {file.name}"})
        while batch := list(islice(numbered, _AT_ONCE)):
            answer = _ask(config, "add", rows=[row for _, row in batch])
            if not answer["stored"]:
                raise click.ClickException(
                    "core's store takes no writes now; what was read so far is kept, begin anew later"
                )
            sums["added"] += answer["added"]
            sums["known"] += answer["known"]
            for each in answer["refused"]:
                sums["refused"] += 1
                if sums["refused"] <= _REFUSED_SHOWN:
                    click.echo(f"{file}:{batch[each['row']][0]}: {each['why']}", err=True)
            progress.update(task, completed=text.buffer.tell())
    click.echo(json.dumps(sums) if as_json else ", ".join(f"{count} {name}" for name, count in sums.items()))
    sys.exit(int(sums["refused"] > 0))


def _opened(file: Path) -> Any:
    """Raises UsageError."""
    try:
        return file.open(encoding="utf-8-sig", errors="replace", newline="")
    except OSError as error:
        raise click.UsageError(f"{file}: cannot be read: {error.strerror}") from error


def _rows(file: Path, text: IO[str], default: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row). Raises UsageError for a header that is none of ours."""
    lines = _lines(text)
    first = next(lines, "")
    header = [name.strip().lower() for name in next(csv.reader([first]), [])]
    if not {"address", "digest"} & set(header):
        if "@" not in first or "," in first:
            raise click.UsageError(
                f"{file}: first line {first.strip()[:60]!a}; wanted a header with the column address"
            )
        header, lines = ["address"], _chained(first, lines)
    unknown = [name for name in header if name not in COLUMNS]
    if unknown:
        raise click.UsageError(f"{file}: column {unknown[0][:40]!a} is unknown; known are {', '.join(_TAKEN)}")
    if "evidence" in header:
        default = {**default, "evidence": ""}
    reader = csv.reader(lines)
    for values in reader:
        row = {name: value for name, value in zip(header, values, strict=False) if name in _TAKEN and value}
        if row:
            yield reader.line_num + (header != ["address"]), {**default, **row, **_times(row)}


def _lines(text: IO[str]) -> Iterator[str]:
    """Line by line, so that it is known how far the file has been read."""
    while line := text.readline():
        yield line


def _chained(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _times(row: Mapping[str, str]) -> dict[str, Any]:
    """Times as they may stand in a file: ISO 8601, or seconds since the epoch."""
    times: dict[str, Any] = {}
    for name in ("since", "until"):
        if value := row.get(name):
            try:
                at = datetime.fromisoformat(value)
                times[name] = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
            except ValueError:
                times[name] = value
    return times


@suppress.command(epilog="Example: sidecar suppress erase user@gmail.com --forget")
@click.argument("address")
@click.option("--forget", is_flag=True, help="Their place on the lists as well: they may be written to again.")
@_as_json
@click.pass_obj
def erase(config: Config, address: str, *, forget: bool, as_json: bool) -> None:
    """Take a person's address out of both stores, wherever it stands, and out of the history on a ClickHouse server.

    On the list a keyed digest stays, so that they get no more mail. Not touched: what is on hold right now, the mail
    log, and backups.
    """
    # Outside first: what it has for core goes there before it is erased.
    outside = ask_core(config.outside_socket, {"command": "erase", "address": address}, timeout=_ERASE_SECONDS)
    core = _ask(config, "erase", address=address, forget=forget)
    answer = {"address": address, "core_rows": core["rows"], "outside_rows": outside["rows"], "listed": core["listed"]}
    stays = "; a digest stays on the list" if core["listed"] else ""
    text = f"{address}: erased from {core['rows']} rows of core and {outside['rows']} of the outside process{stays}"
    if not config.store.clickhouse:
        _said(answer, as_json=as_json, text=text)
        return
    # Last: what is sent from now on does not name them any more.
    try:
        server = ask_core(
            config.outside_socket, {"command": "erase-history", "address": address}, timeout=_ERASE_SECONDS
        )
    except (CoreRefused, CoreUnreachable) as error:
        _said({**answer, "history": "not erased"}, as_json=as_json, text=text)
        _fail(f"{error}; run this again when the server is back")
    answer["history"] = "erased" if server["done"] else "under way"
    there = "and from the ClickHouse server" if server["done"] else "and the ClickHouse server is at it"
    _said(answer, as_json=as_json, text=f"{text}, {there}")


def _said(answer: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Say what was done; what was not is an error."""
    click.echo(json.dumps(answer) if as_json else text)
    for each in answer.get("refused", ()):
        click.echo(f"refused: {each['why']}", err=True)
    if not answer.get("stored", True):
        _fail("core's store takes no writes now: it counts at once, and is stored when that is possible again")
    if answer.get("refused"):
        sys.exit(2)


def _fail(why: str) -> NoReturn:
    raise click.ClickException(why)


def _print(entries: Iterable[Mapping[str, Any]]) -> None:
    table = Table("address", "list", "reason", "since", "until", "by", "evidence", box=None)
    for each in entries:
        address = each["address"] or each["digest"]
        since, until = _iso(each["since"]), _until(each)
        cells = (address, each["list"], each["reason"], since, until, each["by_whom"], each["evidence"])
        table.add_row(*(printable(cell) for cell in cells))
    if table.row_count:
        Console(markup=False).print(table)


def _until(entry: Mapping[str, Any]) -> str:
    if entry["ended_at"]:
        return f"ended {_iso(entry['ended_at'])} by {printable(entry['ended_by'])}: {printable(entry['ended_why'])}"
    if entry["provisional_until"]:
        return f"on probation until {_iso(entry['provisional_until'])}"
    return f"until {_iso(entry['until'])}" if entry["until"] else "for good"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else ""

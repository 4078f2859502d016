"""`sidecar audit`: what was done to mail, when, why and by whom, for people and for other programs.

Reads core's store beside core, which need not run; what is there to be read is in audit_read.
"""

import csv
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

import click

from policies.audit import KINDS
from policies.commands import Attempt
from sidecar import audit_read
from sidecar.audit_read import Row, Story, Wanted
from sidecar.config import Config
from sidecar.database import Database
from sidecar.history_command import Last
from sidecar.message_search import Life
from sidecar.own_log import printable
from sidecar.statements import SCHEMA

_IDS_SHOWN: Final = 5
COLUMNS: Final = ("id", "time", "kind", "key", "state", "messages", "by_whom", "rule", "why", "line", "queue_ids")
"""Of an export as CSV."""

_since = click.option("--since", type=Last(), metavar="TIME", help="Of the last so long: 24h, 7d, 4w.")
_key = click.option("--key", default="", help="Of one sub-queue: dkim-domain:example.com@google.")
_queue_id = click.option("--queue-id", default="", help="What was done to one message.")
_kind = click.option("--kind", type=click.Choice(KINDS), help="One kind alone.", metavar="KIND")
_by = click.option("--by", default="", metavar="WHO", help="engine, policy, a person, or hand for all persons.")
_as_json = click.option("--json", "as_json", is_flag=True, help="JSON.")


@click.group(epilog="Example: sidecar audit show 4bZx9T3Jr1z1Wn")
def audit() -> None:
    """Say what was done to mail, why and by whom; rows are added to it and go by age alone (store.audit_days)."""


@audit.command("list", epilog="Example: sidecar audit list --kind released --by hand --since 7d")
@_key
@_queue_id
@_kind
@_since
@_by
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The newest so many.")
@_as_json
@click.pass_obj
def list_(
    config: Config,
    *,
    key: str,
    queue_id: str,
    kind: str | None,
    since: int | None,
    by: str,
    limit: int,
    as_json: bool,
) -> None:
    """List what was done, oldest first."""
    with closing(_store(config)) as database:
        rows = audit_read.newest(database, Wanted(key, kind or "", by, queue_id, _begin(since)), limit)
    if as_json:
        click.echo(json.dumps([_as_object(row) for row in rows]))
    else:
        for row in rows:
            click.echo("\n".join(_said(row)))


@audit.command(epilog="Example: sidecar audit show 4bZx9T3Jr1z1Wn --json")
@click.argument("queue_id", metavar="QUEUEID")
@_as_json
@click.pass_obj
def show(config: Config, queue_id: str, *, as_json: bool) -> None:
    """Say what was done to one message, between what the log says of it. Exit status 1 where nothing is known."""
    with closing(_store(config)) as database:
        story = audit_read.of_message(database, queue_id)
    if as_json:
        click.echo(json.dumps(_story_as_object(queue_id, story)))
    else:
        for _, text in sorted(_events(story), key=lambda event: event[0]):
            click.echo(text)
        click.echo(_summary(queue_id, story))
    if not story.rows and not story.lives and not story.held_since:
        sys.exit(1)


@audit.command(epilog="Example: sidecar audit export --since 30d --format csv")
@_key
@_queue_id
@_kind
@_since
@_by
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.pass_obj
def export(config: Config, *, key: str, queue_id: str, kind: str | None, since: int | None, by: str, form: str) -> None:
    """Write all of it to standard output, oldest first: a JSON object a line, or CSV."""
    with closing(_store(config)) as database:
        rows = audit_read.every(database, Wanted(key, kind or "", by, queue_id, _begin(since)))
        if form == "jsonl":
            for row in rows:
                click.echo(json.dumps(_as_object(row)))
            return
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            told = _as_object(row)
            told["queue_ids"] = " ".join(queue_id for _, queue_id in row.change.ids)
            table.writerow([_cell(told[name]) for name in COLUMNS])


def _store(config: Config) -> Database:
    """Raises StoreError."""
    return Database.open_read_only(config.core_database, SCHEMA)


def _begin(since: int | None) -> float:
    return time.time() - since if since else 0.0


def _as_object(row: Row) -> dict[str, Any]:
    ids = [{"instance": instance, "queue_id": queue_id} for instance, queue_id in row.change.ids]
    return {"id": row.id, **row.change.told(), "time": _iso(row.change.time), "ids": ids}


def _story_as_object(queue_id: str, story: Story) -> dict[str, Any]:
    return {
        "queue_id": queue_id,
        "held_since": _iso(story.held_since) if story.held_since else None,
        "held_under": story.held_under,
        "done": [_as_object(row) for row in story.rows],
        "attempts": [
            {**attempt._asdict(), "time": _iso(attempt.time)} for life in story.lives for attempt in life.attempts
        ],
    }


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula must not be one."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def _said(row: Row) -> Iterator[str]:
    """One row for people."""
    change = row.change
    ids = [queue_id for _, queue_id in change.ids]
    named = " ".join(ids[:_IDS_SHOWN]) + (f" and {len(ids) - _IDS_SHOWN} more" if len(ids) > _IDS_SHOWN else "")
    of = f" {change.messages}" if change.messages else ""
    parts = (change.key, f"[{change.state}]" if change.state else "", change.why, f"by {change.by_whom}", change.rule)
    yield printable(f"{_iso(change.time)} {change.kind}{of} {' '.join(filter(None, parts))}")
    if named:
        yield f"    {printable(named)}"
    if change.line:
        yield f"    {printable(change.line)}"


def _events(story: Story) -> Iterator[tuple[float, str]]:
    for row in story.rows:
        yield row.change.time, "\n".join(_said(row))
    for life in story.lives:
        yield from _events_of(life)
        for change in life.changes:
            if life.queue_id in change.line:  # what its own reply led to, for other mail as well
                yield change.time, "\n".join(_said(Row(0, change)))


def _events_of(life: Life) -> Iterator[tuple[float, str]]:
    if life.received:
        sender = printable(life.sender) or "<>"
        yield life.received, f"{_iso(life.received)} {life.queue_id} entered the queue, from {sender}"
    for attempt in life.attempts:
        yield attempt.time, f"{_iso(attempt.time)} {life.queue_id} {_outcome(attempt)}"
    if life.removed:
        yield life.removed, f"{_iso(life.removed)} {life.queue_id} left the queue"


def _outcome(attempt: Attempt) -> str:
    to = attempt.recipient or attempt.recipient_domain
    said = f": {attempt.reply}" if attempt.reply else ""
    over = f" over {attempt.service}" if attempt.service else ""
    return printable(f"{attempt.status}, to {to}{over}{said}")


def _summary(queue_id: str, story: Story) -> str:
    if story.held_since:
        return f"{printable(queue_id)} is on hold by us since {_iso(story.held_since)}: {' '.join(story.held_under)}"
    if story.rows:
        return f"{printable(queue_id)} is not on hold by us now"
    if story.lives:
        return f"{printable(queue_id)}: we did nothing to it"
    return (
        f"{printable(queue_id)}: not known; what is older than store.audit_days and store.retention_days is forgotten"
    )


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")

"""What was around when an alert fired: who waits, what was refused and why, what the sidecar did by itself.

Reads core.db and nothing else, and only of the last quarter of an hour.
"""

import time as clock
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from policies.by_hand import STREAM
from policies.conditions import Alert
from policies.figures import Kind
from policies.incidents import LINES_MAX, Surroundings
from policies.key import Key
from sidecar import own_log
from sidecar.database import Database, StoreError
from sidecar.statements import SCHEMA

BACK: Final = 900.0
_ROWS: Final = 500


def around(core: Path, alert: Alert, *, now: float) -> Surroundings:
    """Look it up; what cannot be read is said in our log and left out."""
    if not core.exists():
        return Surroundings()
    try:
        database = Database.open_read_only(core, SCHEMA)
        try:
            return _around(database, alert, since=min(alert.since or now, now) - BACK, now=now)
        finally:
            database.close()
    except StoreError as error:
        own_log.look_incomplete(str(error))
        return Surroundings()


def _around(database: Database, alert: Alert, *, since: float, now: float) -> Surroundings:
    changes = [row for row in database.rows(_CHANGES, (since, _ROWS)) if _concerns(alert, row[1])]
    lines = [line for *_, line in changes if line]
    actions = [_action(*row[:5]) for row in changes]
    where = _where(alert)
    groups: list[str] = []
    victims: list[str] = []
    if where is not None:
        column, value, other = where
        lately = max(since, now - BACK)
        groups = [_group(*row) for row in database.rows(_REASONS.format(column=column), (lately, value, LINES_MAX))]
        rows = database.rows(_VICTIMS.format(column=column, other=other), (lately, value, LINES_MAX))
        victims = [
            f"{name}: {waits} of {attempts} attempts put off or refused" for name, waits, attempts in rows if waits
        ]
    victims += [f"{number} messages on hold" for (number,) in database.rows(_HELD, (_in_keys(alert),)) if number]
    return Surroundings(
        tuple([*groups, *dict.fromkeys(lines)][:LINES_MAX]), tuple(victims), tuple(actions[-LINES_MAX:])
    )


def _where(alert: Alert) -> tuple[str, str, str] | None:
    """(column, value) of the attempts that an alert is about, and what to tell its victims apart by."""
    match alert.kind:
        case Kind.PROVIDER:
            return "provider", alert.object, "sender_domain"
        case Kind.DOMAIN:
            return "sender_domain", alert.object, "provider"
        case Kind.SUBQUEUE if (key := _key(alert.object)) is not None and key.type not in _NO_DOMAIN:
            return "sender_domain", key.value, "provider"
        case _:
            return None


_NO_DOMAIN = frozenset({"ip", "netblock", "host", STREAM})
"""Types of keys whose value is no sending domain."""


def _key(text: str) -> Key | None:
    try:
        return Key.read(text)
    except ValueError:
        return None


def _in_keys(alert: Alert) -> str:
    return f'@{alert.object}"' if alert.kind is Kind.PROVIDER else alert.object


def _concerns(alert: Alert, text: str) -> bool:
    key = _key(text)
    if key is None:
        return False
    return alert.object in {key.value, key.provider, text}


def _action(time: float, key: str, kind: str, why: str, messages: int) -> str:
    stamp = clock.strftime("%H:%M:%S", clock.gmtime(time))
    number = f", {messages} messages" if messages else ""
    return f"{stamp} UTC {kind} {key}{number}: {why}"[:300]


def _group(*row: Any) -> str:
    status, dsn, detail, rule, number, example = row
    return f"{number} x {status}, dsn={dsn or '-'}, {detail or 'not classified'} ({rule or 'no rule'}), as {example}"


def progress(core: Path, watched: set[str]) -> Iterator[tuple[str, float, Any]]:
    """(key, opened at, messages held) of each sub-queue that holds mail; 0 held for those watched that hold none.

    Opened at is the last time that it ramped, where it has. Raises StoreError.
    """
    if not core.exists():
        return
    database = Database.open_read_only(core, SCHEMA)
    try:
        rows = database.rows(_PROGRESS, (clock.time() - 7 * 86_400.0,))
    finally:
        database.close()
    yield from rows
    yield from ((key, 0.0, 0) for key in watched - {row[0] for row in rows})


_CHANGES = """
    SELECT time, key, kind, why, messages, line FROM (
        SELECT * FROM change WHERE time >= ? AND key != '' ORDER BY id DESC LIMIT ?
    ) ORDER BY id
"""
_REASONS = """
    SELECT status, dsn, detail, rule, count(*), max(queue_id) FROM attempt
    WHERE time >= ? AND {column} = ? AND status != 'sent' GROUP BY status, dsn, detail, rule ORDER BY 5 DESC LIMIT ?
"""
_VICTIMS = """
    SELECT {other}, sum(status != 'sent') AS waits, count(*) FROM attempt
    WHERE time >= ? AND {column} = ? AND {other} != '' GROUP BY {other} ORDER BY waits DESC LIMIT ?
"""
_HELD = "SELECT count(*) FROM hold WHERE instr(keys, ?) > 0"
_PROGRESS = """
    SELECT key, max(opened_at, coalesce(
        (SELECT max(time) FROM change WHERE time >= ?1 AND change.key = subqueue.key AND kind = 'ramping'), 0
    )), (SELECT count(*) FROM hold, json_each(hold.keys) WHERE json_each.value = subqueue.key) AS held
    FROM subqueue WHERE held > 0
"""

# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""Whether a ClickHouse server has a day of a store's events, each once, and sums that agree with them.

Knows how to find what lacks without reading it all, and that sums are put right by adding what they are off by.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

from policies.rollup import DAY, MEASURES, Flow, Refusal
from sidecar import clickhouse_schema
from sidecar.clickhouse import ClickHouse, filled
from sidecar.database import Database
from sidecar.shipped_tables import Table, begin_of, day_of

CHUNK: Final = 20_000
"""Ids that are compared by their number and sum."""
SUMS: Final = ("hourly", "daily")
_KEYS: Final = ("day", "begin", *Flow._fields, *Refusal._fields, "store")
_ADDED: Final = (*MEASURES, "ids")


class Place(NamedTuple):
    """A day's rows of one store."""

    table: Table
    store: str
    day: date


def whole_days(core: Database, *, since: date, now: float) -> list[date]:
    """The days of which core still has all attempts. Raises StoreError."""
    first, time = core.rows("SELECT min(id), min(time) FROM attempt")[0]
    if first is None:
        return []
    oldest = day_of(time) + timedelta(days=int(first > 1))  # an attempt that is gone was older than all others
    begin = max(since, oldest)
    return [begin + timedelta(days=number) for number in range((day_of(now) - begin).days + 1)]


def lacking(core: Database, server: ClickHouse, place: Place, ids: tuple[int, int]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of core, with ids above the first and up to the second, that the server does not have.

    Raises ServerError, StoreError.
    """
    table, store, day = place
    times = begin_of(day), begin_of(day) + DAY
    ours = core.rows(_OURS.format(table=table.name), (*times, *ids))
    theirs = {int(row[0]): row for row in server.rows(_THEIRS.format(table=table.name), (day, store, *ids))}
    for number, count, total in ours:
        found = theirs.get(number, (number, 0, 0))
        if (count, total) != (int(found[1]), int(found[2])):
            chunk = max(ids[0] + 1, number * CHUNK), min((number + 1) * CHUNK - 1, ids[1])
            there = {int(row[0]) for row in server.rows(_IDS.format(table=table.name), (day, store, *chunk))}
            rows = core.rows(f"{table.select} WHERE id BETWEEN ? AND ? AND time >= ? AND time < ?", (*chunk, *times))
            yield [row for row in rows if row[0] not in there]


def put_right(server: ClickHouse, place: Place) -> Iterator[str]:
    """Make sums of a day agree with its events, where they do not; the tables that did not. Raises ServerError."""
    _, store, day = place
    counted = _numbers(server.rows(_COUNTED, (day, store)))
    for table in SUMS:
        if _numbers(server.rows(_SUMMED.format(table=table), (day, store))) != counted:
            server.run(_difference(table, store, day))
            yield table


def _numbers(rows: Sequence[tuple[Any, ...]]) -> list[int]:
    return [int(value) for value in rows[0]]


def _difference(table: str, store: str, day: date) -> str:
    """What must be added: the sums as they should be, less those that are there."""
    should = clickhouse_schema.view(table).replace("FROM attempt", f"FROM ({_EVENTS})")
    keys, added = ", ".join(_KEYS), ", ".join(_ADDED)
    there = (
        f"SELECT {keys}, {', '.join(f'-{name} AS {name}' for name in _ADDED)} FROM {table} WHERE day = ? AND store = ?"
    )
    columns = f"{keys}, {added}"
    return filled(
        f"INSERT INTO {table} ({columns}) SELECT {keys}, {', '.join(f'sum({name})' for name in _ADDED)}"
        f" FROM (SELECT {columns} FROM ({should}) UNION ALL {there}) GROUP BY {keys}",
        (day, store, day, store),
    )


_OURS: Final = f"""
    SELECT id / {CHUNK}, count(*), sum(id) FROM {{table}} WHERE time >= ? AND time < ? AND id > ? AND id <= ? GROUP BY 1
"""
_THEIRS: Final = f"""
    SELECT intDiv(id, {CHUNK}) AS chunk, count(), sum(id)
    FROM (SELECT DISTINCT id FROM {{table}} WHERE day = ? AND store = ? AND id > ? AND id <= ?) GROUP BY chunk
"""
_IDS: Final = "SELECT DISTINCT id FROM {table} WHERE day = ? AND store = ? AND id >= ? AND id <= ?"
_EVENTS: Final = "SELECT * FROM attempt WHERE day = ? AND store = ? ORDER BY id LIMIT 1 BY id"
_COUNTED: Final = """
    SELECT count(), sum(id) FROM (SELECT DISTINCT id FROM attempt WHERE day = ? AND store = ? AND passed_on = '')
"""
_SUMMED: Final = "SELECT sum(attempts) + sum(expired), sum(ids) FROM {table} WHERE day = ? AND store = ?"

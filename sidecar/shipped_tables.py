# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""The tables that core's store and a ClickHouse server both have, and how a row of the one becomes a row of the other."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from policies.commands import CHANGE_COLUMNS, Attempt, Received
from sidecar.clickhouse import Value
from sidecar.database import Database

_LAST: Final = 4_102_444_799.0
"""The last second of 2099: a Date of ClickHouse ends soon after, and no log is from then."""


class Table(NamedTuple):
    name: str
    columns: tuple[str, ...]
    """Of core's table, less its id."""
    more: tuple[str, ...] = ()
    """Further ones of the server's table."""

    @property
    def shipped(self) -> tuple[str, ...]:
        """Columns of the server's table, in the order of `ready`."""
        return ("day", "store", "id", *self.columns, *self.more)

    @property
    def select(self) -> str:
        """Rows of core, with their ids first."""
        return f"SELECT id, {', '.join(self.columns)} FROM {self.name}"

    def value(self, row: Sequence[Any], column: str) -> Any:
        return row[1 + self.columns.index(column)]


ATTEMPT: Final = Table("attempt", Attempt._fields)
MESSAGE: Final = Table("message", (*Received._fields, "removed"))
CHANGE: Final = Table("change", CHANGE_COLUMNS, ("instances", "queue_ids"))
TABLES: Final = (ATTEMPT, MESSAGE, CHANGE)


def day_of(time: float) -> date:
    """The day of UTC; of a clock that is far out the nearest that the server knows."""
    return datetime.fromtimestamp(min(max(time, 0.0), _LAST), UTC).date()


def begin_of(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def ready(core: Database, table: Table, store: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Value, ...]]:
    """Rows of core as the server takes them. Raises StoreError."""
    named = _messages(core, rows) if table is CHANGE and rows else {}
    for row in rows:
        begin = day_of(table.value(row, "time")), store
        yield (*begin, *row, *named.get(row[0], ((), ()))) if table is CHANGE else (*begin, *row)


def _messages(core: Database, rows: Sequence[tuple[Any, ...]]) -> dict[int, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Changes and the messages that they name: their instances and their queue ids."""
    found = defaultdict(list)
    for change, instance, queue_id in core.rows(_MESSAGES, (rows[0][0], rows[-1][0])):
        found[change].append((instance, queue_id))
    return {change: (tuple(i for i, _ in pairs), tuple(q for _, q in pairs)) for change, pairs in found.items()}


_MESSAGES: Final = "SELECT change, instance, queue_id FROM change_message WHERE change BETWEEN ? AND ?"

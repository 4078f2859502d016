# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""Hourly and daily sums in the store of core, added to in the transaction that stores the attempts themselves.

The only SQL that writes them; what is summed up, and under which names, policies/rollup.py says.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from policies.commands import Attempt
from policies.rollup import DAY, HOUR, MEASURES, Flow, Names, Refusal, Rolled, day_of, roll
from sidecar.database import Database

DAYS_KEPT: Final = 3
"""Days whose names are kept in memory: lines of yesterday may still come."""
_EARLIER: Final = 6 * 86_400.0
"""Seconds back in which a message may have had an outcome before core was started; Postfix keeps mail for five days."""


class _NamesByDay(dict[int, Names]):
    """Those of the last days; a day that is new here may have rows in the store."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    def __missing__(self, day: int) -> Names:
        names = self[day] = Names()
        for attempts, *flow in self._database.rows(_FLOWS_OF_DAY, (day,)):
            names.restore(Flow(*flow), attempts)
        for old in sorted(self)[:-DAYS_KEPT]:
            if old != day:
                del self[old]
        return names


class HistoryStore:
    """Writes the sums. Its caller holds the transaction, and `undone_with_it` around that."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names = _NamesByDay(database)
        self._flows: dict[Flow, tuple[int, int]] = {}
        """Id, and the last day that is written."""
        self._refusals: dict[Refusal, int] = {}

    def settled(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Decide whose outcome is its message's first, for messages that were in the queue before core was started.

        Asks the attempts that are stored, so it comes before these are.
        """
        seen: set[tuple[str, str, str]] = set()
        settled = []
        for attempt in attempts:
            place = attempt.host, attempt.instance, attempt.queue_id
            first = attempt.first % 3
            if first == 2:
                earlier = (*place, attempt.time - _EARLIER)
                first = 0 if place in seen or self._database.rows(_EARLIER_ATTEMPT, earlier) else 1
                seen.add(place)
            settled.append(attempt if first == attempt.first else attempt._replace(first=first))
        return settled

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Add attempts, with `first` settled, to the sums of their hours and days."""
        if attempts:
            self.write(roll(attempts, self._names))

    def write(self, rolled: Rolled) -> None:
        """Add sums by the hour, also to those of the days."""
        flows = [(begin, self._flow(flow, day_of(begin)), *sums) for (begin, flow), sums in rolled.flows.items()]
        values = [(begin, (dimension, value, *sums)) for (begin, dimension, value), sums in rolled.values.items()]
        refusals = [
            (begin, self._flow(flow, day_of(begin)), self._refusal(refusal), number)
            for (begin, flow, refusal), number in rolled.refusals.items()
        ]
        write = self._database.connection.executemany
        for table, width in (("hourly", HOUR), ("daily", DAY)):
            write(_ADD[table], [(row[0] // width * width, *row[1:]) for row in flows])
            write(_ADD_VALUE[table], [(begin // width * width, *rest) for begin, rest in values])
            write(_ADD_REFUSAL[table], [(row[0] // width * width, *row[1:]) for row in refusals])

    @contextlib.contextmanager
    def undone_with_it(self) -> Iterator[None]:
        """Stand around the transaction: when that fails, ids and names are looked up again."""
        try:
            yield
        except BaseException:
            self._flows.clear()
            self._refusals.clear()
            self._names.clear()
            raise

    def _flow(self, flow: Flow, day: int) -> int:
        number, last = self._flows.get(flow, (0, 0))
        if not number or last < day:
            if len(self._flows) > 50_000:
                self._flows.clear()
            number = int(self._database.connection.execute(_PUT_FLOW, (*flow, day)).fetchone()[0])
            self._flows[flow] = number, day
        return number

    def _refusal(self, refusal: Refusal) -> int:
        if refusal not in self._refusals:
            row = self._database.connection.execute(_PUT_REFUSAL, refusal).fetchone()
            self._refusals[refusal] = int(row[0])
        return self._refusals[refusal]


def prune(database: Database, *, hours_before: float, days_before: float, limit: int) -> int:
    """Delete sums of hours and days that are too old, at most so many of each; how many, 0 when done."""
    execute = database.connection.execute
    with database.transaction():
        gone = 0
        for table, before in (("hourly", hours_before), ("daily", days_before)):
            gone += execute(_PRUNE.format(table=table, keys="begin, flow"), (before, limit)).rowcount
            for more, keys in (("value", "dimension, begin, value"), ("refusal", "begin, flow, refusal")):
                gone += execute(_PRUNE.format(table=f"{table}_{more}", keys=keys), (before, limit)).rowcount
        if not gone:
            execute("DELETE FROM flow WHERE last_day < ?", (days_before - DAY,))
        return gone


def _marks(number: int) -> str:
    return ", ".join("?" * number)


_SUMS = ", ".join(MEASURES)


def _add(table: str, *keys: str) -> str:
    key = ", ".join(keys)
    added = ", ".join(f"{name} = {name} + excluded.{name}" for name in MEASURES)
    marks = _marks(len(keys) + len(MEASURES))
    return f"INSERT INTO {table} ({key}, {_SUMS}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {added}"


_ADD = {table: _add(table, "begin", "flow") for table in ("hourly", "daily")}
_ADD_VALUE = {table: _add(f"{table}_value", "begin", "dimension", "value") for table in ("hourly", "daily")}
_ADD_REFUSAL = {
    table: f"INSERT INTO {table}_refusal VALUES (?, ?, ?, ?) ON CONFLICT (begin, flow, refusal)"
    " DO UPDATE SET attempts = attempts + excluded.attempts"
    for table in ("hourly", "daily")
}
_FLOW = ", ".join(Flow._fields)
_PUT_FLOW = (
    f"INSERT INTO flow ({_FLOW}, last_day) VALUES ({_marks(len(Flow._fields) + 1)}) ON CONFLICT ({_FLOW})"
    " DO UPDATE SET last_day = max(last_day, excluded.last_day) RETURNING id"
)
_PUT_REFUSAL = (
    "INSERT INTO refusal (rule, detail, bounce, status) VALUES (?, ?, ?, ?) ON CONFLICT (rule, detail, bounce, status)"
    " DO UPDATE SET status = excluded.status RETURNING id"
)
_FLOWS_OF_DAY = f"SELECT attempts, {_FLOW} FROM daily JOIN flow ON flow.id = daily.flow WHERE begin = ?"
_EARLIER_ATTEMPT = "SELECT 1 FROM attempt WHERE host = ? AND instance = ? AND queue_id = ? AND time >= ? LIMIT 1"
_PRUNE = "DELETE FROM {table} WHERE ({keys}) IN (SELECT {keys} FROM {table} WHERE begin < ? LIMIT ?)"

"""What other hosts taught this one about names, in core's store, and who did.

The only SQL about it; the tables are explained in schema/0151-fleet-taught.sql.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from policies.fleet.taught import Fact
from sidecar.database import Database

STREAM: Final = "learned"
MOST: Final = 100_000
"""Facts that are kept; of more the oldest go."""


class Taught(NamedTuple):
    kind: str
    name: str
    value: str
    host: str
    at: float
    """By the clock of the fleet's store."""

    @property
    def fact(self) -> Fact:
        return Fact(self.kind, self.name, self.value)


class TaughtStore:
    """For the thread that all SQL runs in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def place(self) -> str:
        """Tell where to read on, "" for the beginning."""
        rows = self._database.rows("SELECT place FROM fleet_taught_upto WHERE stream = ?", (STREAM,))
        return str(rows[0][0]) if rows else ""

    def all(self) -> list[Taught]:
        """The latest last."""
        return [Taught(*row) for row in self._database.rows(f"{_ALL} ORDER BY at, kind, name, value")]

    def about(self, name: str, *, limit: int) -> list[Taught]:
        """Give what is said of a name, or where that is "", what was said last."""
        where = "WHERE name = ?1" if name else "WHERE ?1 = ''"
        rows = self._database.rows(f"{_ALL} {where} ORDER BY at DESC, kind, name, value LIMIT ?2", (name, limit))
        return [Taught(*row) for row in rows]

    def keep(self, taught: Sequence[Taught], place: str, *, before: float) -> None:
        """Keep these, and that all up to `place` was read; what is older than `before` goes. Raises StoreUnavailable."""
        with self._database.transaction():
            execute, many = self._database.connection.execute, self._database.connection.executemany
            many("INSERT OR REPLACE INTO fleet_taught VALUES (?, ?, ?, ?, ?)", taught)
            execute("INSERT OR REPLACE INTO fleet_taught_upto VALUES (?, ?)", (STREAM, place))
            execute("DELETE FROM fleet_taught WHERE at < ?", (before,))
            execute(_TOO_MANY, (MOST,))


_ALL = "SELECT kind, name, value, host, at FROM fleet_taught"
_TOO_MANY = "DELETE FROM fleet_taught WHERE at <= (SELECT at FROM fleet_taught ORDER BY at DESC LIMIT 1 OFFSET ?)"

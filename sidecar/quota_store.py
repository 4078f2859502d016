"""What is in use of each quota, in core's store: the only SQL about it."""

from collections.abc import Mapping, Sequence

from policies.bucket import Taken
from sidecar.database import Database


class QuotaTable:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Taken]:
        """In the order in which they were changed last, so that the newest are kept where there is not room for all."""
        return [Taken(*row) for row in self._database.rows("SELECT quota, key, taken, at FROM quota ORDER BY at")]

    def put(self, rows: Sequence[Taken]) -> None:
        """Write rows in the place of those of the same bucket; none for one of which nothing is taken. Raises StoreUnavailable."""
        stored = [_storable(row) for row in rows]
        with self._database.transaction():
            self._database.connection.executemany(_PUT, [row for row in stored if row.taken])
            self._database.connection.executemany(_DROP, [row[:2] for row in stored if not row.taken])

    def prune(self, rates: Mapping[str, float], now: float) -> None:
        """Delete rows of which all has come back, by quota so much a second, and those of other quotas. Raises StoreUnavailable."""
        with self._database.transaction():
            for (quota,) in self._database.connection.execute(_QUOTAS).fetchall():
                if quota in rates:
                    self._database.connection.execute(_COME_BACK, (quota, now, rates[quota]))
                else:
                    self._database.connection.execute(_NO_QUOTA, (quota,))


_PUT = "INSERT OR REPLACE INTO quota (quota, key, taken, at) VALUES (?, ?, ?, ?)"
_DROP = "DELETE FROM quota WHERE quota = ? AND key = ?"
_QUOTAS = "SELECT DISTINCT quota FROM quota"
_COME_BACK = "DELETE FROM quota WHERE quota = ? AND taken <= (? - at) * ?"
_NO_QUOTA = "DELETE FROM quota WHERE quota = ?"


def _storable(row: Taken) -> Taken:
    """SQLite stores no lone surrogates, as which bytes stand that are no UTF-8. Such a key begins anew with a restart."""
    return row._replace(key=row.key.encode(errors="backslashreplace").decode())

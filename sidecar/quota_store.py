"""What is in use of each quota, in core's store: the only SQL about it."""

from collections.abc import Sequence

from policies.quota import Taken
from sidecar.database import Database


class QuotaTable:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Taken]:
        """In the order in which they were changed last, so that the newest are kept where there is not room for all."""
        return [Taken(*row) for row in self._database.rows("SELECT quota, key, taken, at FROM quota ORDER BY at")]

    def put(self, rows: Sequence[Taken]) -> None:
        """Write rows in the place of those of the same bucket. Raises StoreUnavailable."""
        with self._database.transaction():
            self._database.connection.executemany(_PUT, map(_storable, rows))

    def drop(self, rows: Sequence[Taken]) -> None:
        """Delete these, unless they have changed. Raises StoreUnavailable."""
        with self._database.transaction():
            self._database.connection.executemany(_DROP, map(_storable, rows))


_PUT = "INSERT OR REPLACE INTO quota (quota, key, taken, at) VALUES (?, ?, ?, ?)"
_DROP = "DELETE FROM quota WHERE quota = ? AND key = ? AND taken = ? AND at = ?"


def _storable(row: Taken) -> Taken:
    """SQLite stores no lone surrogates, as which bytes stand that are no UTF-8. Such a key begins anew with a restart."""
    return row._replace(key=row.key.encode(errors="backslashreplace").decode())

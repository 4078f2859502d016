"""What this host tells the fleet about its suppression list, in core's store until all is known to be told.

The only SQL about it; what core's own transaction writes of it is in `sidecar.suppression_store`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sidecar.database import Database
from sidecar.suppression_store import SuppressionTables

HEARD = "fleet:"
"""Before the name of an origin in `suppression_heard`."""
_NAME = "fleet"


class Row(NamedTuple):
    number: int
    change: str


class Erasure(NamedTuple):
    """A person to be erased here, as another host said."""

    id: int
    address: str
    forget: bool
    by_whom: str


class Outbox:
    """For the thread that all SQL runs in."""

    def __init__(self, database: Database) -> None:
        """Raises StoreUnavailable."""
        self._database = database
        self.origin = SuppressionTables(database).identity(_NAME).hex()
        """What others know our count by."""

    def count_anew(self, after: int) -> None:
        """Go by another name from now on, for others know numbers after `after` of ours that we do not.

        What we told until then is not told again under that name. Raises StoreUnavailable.
        """
        with self._database.transaction():
            self._database.connection.execute("DELETE FROM fleet_told WHERE number <= ?", (after,))
            self._database.connection.execute("DELETE FROM suppression_identity WHERE name = ?", (_NAME,))
        self.origin = SuppressionTables(self._database).identity(_NAME).hex()

    def unheard(self, *, after: int, limit: int) -> list[Row]:
        """Changes that we have not read back yet, in their order."""
        return [Row(*row) for row in self._database.rows(_UNHEARD, (after, limit))]

    def kept(self, *, after: int, limit: int) -> list[Row]:
        """As `unheard`, with those that were read back and are still kept."""
        return [Row(*row) for row in self._database.rows(_KEPT, (after, limit))]

    def last(self) -> int:
        """The number of the last change that we ever told; 0: of none."""
        rows = self._database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'fleet_told'")
        return int(rows[0][0]) if rows else 0

    def read_back(self, upto: int, *, drop_before: float) -> None:
        """All up to that number have their place; those made before that time are dropped. Raises StoreUnavailable."""
        with self._database.transaction():
            self._database.connection.execute(
                "UPDATE fleet_told SET heard = 1 WHERE number <= ? AND heard = 0", (upto,)
            )
            self._database.connection.execute("DELETE FROM fleet_told WHERE heard = 1 AND at < ?", (drop_before,))

    def drop_oldest(self, *, upto: int, heard: int) -> list[Row]:
        """Drop changes up to that number; those of them that nobody can have read. Raises StoreUnavailable.

        `heard`: up to which number we have read ours back.
        """
        dropped = [Row(*row) for row in self._database.rows(_DROPPED, (heard, upto))]
        with self._database.transaction():
            self._database.connection.execute("DELETE FROM fleet_told WHERE number <= ?", (upto,))
        return dropped

    def heard(self) -> Mapping[str, int]:
        """By origin, how far we have heard it."""
        rows = self._database.rows("SELECT source, number FROM suppression_heard WHERE source LIKE 'fleet:%'")
        return {source.removeprefix(HEARD): number for source, number in rows}

    def erasures(self) -> list[Erasure]:
        rows = self._database.rows("SELECT id, address, forget, by_whom FROM fleet_erasure ORDER BY id")
        return [Erasure(number, address, bool(forget), by_whom) for number, address, forget, by_whom in rows]

    def erased(self, erasure: Erasure) -> None:
        """It is done here. Raises StoreUnavailable."""
        with self._database.transaction():
            self._database.connection.execute("DELETE FROM fleet_erasure WHERE id = ?", (erasure.id,))


_UNHEARD = "SELECT number, change FROM fleet_told WHERE heard = 0 AND number > ? ORDER BY number LIMIT ?"
_DROPPED = "SELECT number, change FROM fleet_told WHERE number > ? AND number <= ? ORDER BY number"
_KEPT = "SELECT number, change FROM fleet_told WHERE number > ? ORDER BY number LIMIT ?"

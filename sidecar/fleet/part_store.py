"""What this host may take of any budget of the fleet's when it is on its own, kept over a restart of core.

The only SQL about it; the table is explained in schema/0152-fleet-part.sql.
"""

from sidecar.database import Database


class PartStore:
    """For the thread that all SQL runs in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, host: str) -> float:
        """Tell it as a part of 1; 0 where nobody has said so yet."""
        rows = self._database.rows("SELECT alone FROM fleet_part WHERE host = ?", (host,))
        return float(rows[0][0]) if rows else 0.0

    def keep(self, host: str, alone: float) -> None:
        """Raises StoreUnavailable."""
        with self._database.transaction():
            self._database.connection.execute("INSERT OR REPLACE INTO fleet_part VALUES (?, ?)", (host, alone))

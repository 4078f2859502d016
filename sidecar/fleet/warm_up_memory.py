"""How far the fleet had come with its addresses, kept by each host: a store of the fleet that restarts empty is told it again.

The only SQL about it; the table is explained in schema/0150-fleet-warm-up.sql.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from policies.fleet.budget import read_level
from policies.warm_up import Level
from sidecar.database import Database

_LOG = logging.getLogger("sidecar.fleet")


class WarmUpMemory:
    """For the thread that all SQL runs in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def levels(self) -> Iterator[Level]:
        """Give what was kept; what cannot be read is as if it was not."""
        for (text,) in self._database.rows("SELECT level FROM fleet_warm_up"):
            try:
                yield read_level(text)
            except ValueError as error:
                _LOG.warning("what was known of a warm-up of the fleet is forgotten: %s", error)

    def keep(self, levels: Sequence[Level]) -> None:
        """Raises StoreUnavailable."""
        rows = [(level.transport, level.provider, json.dumps(asdict(level))) for level in levels]
        with self._database.transaction():
            self._database.connection.executemany("INSERT OR REPLACE INTO fleet_warm_up VALUES (?, ?, ?)", rows)

"""Writes core's events, as they are stored, to where a central log store takes them from; each at least once.

Knows how far it is, in the store of the outside process: a line that was written and not noted before a crash comes
again, with the same id.
"""

import asyncio
import socket
import time
from pathlib import Path
from typing import Final

from sidecar import own_log
from sidecar.config import Config, ConfigError
from sidecar.database import Database, StoreError
from sidecar.event_lines import Sink, line, sink
from sidecar.outside_store import SCHEMA as OUTSIDE_SCHEMA
from sidecar.shipped_tables import TABLES, Table
from sidecar.statements import SCHEMA
from sidecar.threads import in_thread

EVERY: Final = 1.0
_BATCH: Final = 2_000
_AWAY_MAX: Final = 60.0


class EventWriter:
    def __init__(self, config: Config, to: Sink, *, batch: int = _BATCH) -> None:
        """Raises StoreError."""
        self._core = config.core_database
        self._sink = to
        self._batch = batch
        self._host = config.clickhouse.name or config.alerts.host or socket.gethostname()
        self._positions = Database.open(config.outside_database, OUTSIDE_SCHEMA)
        self._wanted = [table for table in TABLES if table.name in config.events.kinds]
        self._failed = 0
        """Rounds in a row."""

    async def run(self) -> None:
        """Write for ever."""
        while True:
            written = await self.round()
            if written < 0:
                await asyncio.sleep(min(_AWAY_MAX, 2.0**self._failed))
            elif written < self._batch:
                await asyncio.sleep(EVERY)

    async def round(self) -> int:
        """Write what is new; how many lines, -1 where that failed, which is said once."""
        try:
            written = await in_thread(self.step)
        except (OSError, StoreError) as error:
            self._failed += 1
            if self._failed == 2:  # one failure is a restart
                own_log.events_wait(str(error))
            return -1
        except Exception as error:  # noqa: BLE001  # an error of ours here must not end feeds and alerts
            own_log.events_failed(error)
            self._failed += 1
            return -1
        if self._failed > 1:
            own_log.events_go_on()
        self._failed = 0
        return written

    def step(self) -> int:
        """Write one batch of each kind; how many lines. Raises OSError, StoreError."""
        core = Database.open_read_only(self._core, SCHEMA)
        try:
            return sum(self._write(core, table) for table in self._wanted)
        finally:
            core.close()

    def close(self) -> None:
        self._sink.close()
        self._positions.close()

    def _write(self, core: Database, table: Table) -> int:
        rows = core.rows(f"{table.select} WHERE id > ? ORDER BY id LIMIT ?", (self._last(core, table), self._batch))
        if rows:
            self._sink.write([line(table, row, host=self._host) for row in rows])
            self._note(table, rows[-1][0], table.value(rows[-1], "time"))
        return len(rows)

    def _last(self, core: Database, table: Table) -> int:
        """The id after which it goes on: at the first start the newest; in a store that began anew, by time."""
        newest = int(core.rows("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", (table.name,))[0][0])
        known = self._positions.rows(_POSITION, (table.name,))
        if not known:
            self._note(table, newest, time.time())
            return newest
        last, written = known[0]
        if last <= newest:
            return int(last)
        statement = f"SELECT coalesce(max(id), 0) FROM {table.name} WHERE time <= ?"  # noqa: S608  # our own name
        return int(core.rows(statement, (written,))[0][0])

    def _note(self, table: Table, last: int, at: float) -> None:
        with self._positions.transaction():
            self._positions.connection.execute(_PUT_POSITION, (table.name, last, at))


def configured(config: Config) -> EventWriter | None:
    """Raises ConfigError, StoreError."""
    ours = config.events
    if not ours.to:
        return None
    if ours.to not in {"stdout", "syslog"} and not Path(ours.to).is_absolute():
        raise ConfigError(f'events.to: {ours.to!r}: wanted "stdout", "syslog" or the absolute path of a file')
    if unknown := set(ours.kinds) - {table.name for table in TABLES}:
        raise ConfigError(f"events.kinds: {min(unknown)!r}: wanted {', '.join(table.name for table in TABLES)}")
    return EventWriter(config, sink(ours.to))


_POSITION: Final = "SELECT last, time FROM event_position WHERE name = ?"
_PUT_POSITION: Final = "INSERT OR REPLACE INTO event_position (name, last, time) VALUES (?, ?, ?)"

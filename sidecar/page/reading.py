"""The stores as the page reads them: in threads of its own, read-only, and never for long.

Knows what to do where a store is missing, busy or slow: the page says so and shows the rest.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sidecar import outside_store, statements
from sidecar.config import Config
from sidecar.database import Database, Schema, StoreError

DEADLINE = 3.0
"""Seconds that all queries of one page may take together."""
_STEPS = 20_000
"""Instructions of SQLite between two looks at the clock: some milliseconds."""


T = TypeVar("T")


class Store:
    """One store for one page. What it cannot give is empty, and `trouble` says why."""

    def __init__(self, path: Path, schema: Schema, *, until: float) -> None:
        self.trouble = ""
        self._until = until
        self._database: Database | None = None
        try:
            self._database = Database.open_read_only(path, schema)
        except StoreError as error:
            self.trouble = str(error)
        else:
            self._database.connection.set_progress_handler(self._late, _STEPS)

    def _late(self) -> bool:
        return time.monotonic() > self._until

    def rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return self.asked(lambda database: database.rows(query, parameters), [])

    def asked(self, ask: Callable[[Database], T], otherwise: T) -> T:
        """What `ask` reads from the store, or `otherwise` where that cannot be read, or not in time."""
        if self._database is None:
            return otherwise
        try:
            return ask(self._database)
        except StoreError as error:
            self.trouble = str(error)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            self.trouble = f"{self._database.path}: not read to the end within {DEADLINE:g} s; ask for less"
        return otherwise

    def close(self) -> None:
        if self._database is not None:
            with contextlib.suppress(StoreError):
                self._database.close()


class Stores:
    """Both stores for one page."""

    def __init__(self, core: Store, outside: Store) -> None:
        self.core = core
        self.outside = outside

    @property
    def troubles(self) -> list[str]:
        return [store.trouble for store in (self.core, self.outside) if store.trouble]


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Stores]:
    """Both, for the thread that calls."""
    until = time.monotonic() + DEADLINE
    core = Store(config.core_database, statements.SCHEMA, until=until)
    outside = Store(config.outside_database, outside_store.SCHEMA, until=until)
    try:
        yield Stores(core, outside)
    finally:
        core.close()
        outside.close()

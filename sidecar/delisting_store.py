"""What was asked to be taken off lists, in the store of the outside process: a connection of its own to the same file.

The only SQL about it. Any thread may call: calls wait for each other.
"""

import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from sidecar.database import Database, StoreUnavailable
from sidecar.outside_store import HISTORY_SECONDS, SCHEMA
from sidecar.threads import in_thread


class Delisting(NamedTuple):
    at: float
    by_whom: str
    object: str
    list: str
    note: str = ""


class DelistingStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises StoreError."""
        return cls(Database.open(path, SCHEMA))

    @classmethod
    def open_read_only(cls, path: Path) -> Self:
        """Raises StoreError, also where there is none yet."""
        return cls(Database.open_read_only(path, SCHEMA))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def add(self, asked: Sequence[Delisting], *, now: float) -> None:
        """Raises StoreUnavailable."""
        with self._lock, self._database.transaction():
            self._database.connection.executemany(_ADD, asked)
            self._database.connection.execute("DELETE FROM delisting WHERE time < ?", (now - HISTORY_SECONDS,))

    def since(self, moment: float, objects: Iterable[str] | None = None) -> list[Delisting]:
        """Give what was asked since, oldest first; of some objects or of all."""
        wanted = None if objects is None else set(objects)
        with self._lock:
            rows = [Delisting(*row) for row in self._database.rows(_ASKED, (moment,))]
        return [row for row in rows if wanted is None or row.object in wanted]

    def commands(
        self, clock: Callable[[], float]
    ) -> dict[str, Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]]:
        """Give what the control socket answers."""

        async def put(request: dict[str, Any]) -> Mapping[str, Any]:
            now = clock()
            who, about, note = (request.get(name) for name in ("who", "object", "note"))
            lists = request.get("lists")
            words = [who, about, note, *(lists if isinstance(lists, list) else [None])]
            if not all(isinstance(word, str) for word in words) or not who or not about:
                raise ValueError('wanted {"who": "NAME", "object": "ADDRESS", "lists": ["ID"], "note": "TEXT"}')
            asked = [Delisting(now, *(str(word)[:1000] for word in (who, about, each, note))) for each in words[3:]]
            try:
                await in_thread(lambda: self.add(asked, now=now))
            except StoreUnavailable as error:
                raise ValueError(str(error)) from error
            return {"at": now}

        return {"delisting": put}


def asked_lately(path: Path, *, since: float, objects: Iterable[str] | None = None) -> list[Delisting]:
    """Read it beside the process that writes; nothing where there is no store yet. Raises StoreError."""
    if not path.exists():
        return []
    store = DelistingStore.open_read_only(path)
    try:
        return store.since(since, objects)
    finally:
        store.close()


_ADD = "INSERT INTO delisting (time, by_whom, object, list, note) VALUES (?, ?, ?, ?, ?)"
_ASKED = "SELECT time, by_whom, object, list, note FROM delisting WHERE time >= ? ORDER BY id"

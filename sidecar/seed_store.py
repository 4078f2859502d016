"""Test mail in the store of the outside process: a connection of its own to the same file.

The only SQL about it. Any thread may call: calls wait for each other.
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from policies.cadence import Standing
from policies.placement import FEED, Place, SeedMail, observations
from sidecar.database import Database
from sidecar.outside_store import HISTORY_SECONDS, SCHEMA, OutsideStore

LATE_SECONDS = 14 * 86_400.0
"""For which a mail that was not found is looked for at each test: it is ours to take away."""


class SeedStore:
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

    def put(self, mails: Iterable[SeedMail], *, ended: bool = False, now: float) -> None:
        """Write down mails as they are now; `ended`: they are a whole test, and conditions hear of it.

        Raises StoreUnavailable.
        """
        rows = list(mails)
        with self._lock:
            with self._database.transaction():
                self._database.connection.executemany(_PUT, rows)
                self._database.connection.execute("DELETE FROM seed_mail WHERE sent_at < ?", (now - HISTORY_SECONDS,))
            if ended:
                polls = OutsideStore(self._database)
                standing = Standing(asked_at=now, told_at=now, since=polls.standing(FEED).since or now)
                polls.polled(FEED, standing, observations(rows), (), now=now)

    def since(self, moment: float) -> list[SeedMail]:
        """Those sent since, oldest first."""
        with self._lock:
            return [
                _mail(row) for row in self._database.rows(f"{_MAILS} WHERE sent_at >= ? ORDER BY sent_at", (moment,))
            ]

    def to_be_found(self, *, until: float, now: float) -> list[SeedMail]:
        """Those sent before `until` that may still turn up, or were found and are still there."""
        found = (mail for mail in self.since(now - LATE_SECONDS) if mail.sent_at < until)
        return [mail for mail in found if not mail.removed and mail.place is not Place.UNSENT]

    def last_test(self) -> float:
        """When the last one ended; 0 for never."""
        with self._lock:
            return OutsideStore(self._database).standing(FEED).asked_at


def _mail(row: tuple[Any, ...]) -> SeedMail:
    found = SeedMail(*row)
    return found._replace(place=Place(found.place), removed=bool(found.removed))


_MAILS = (
    "SELECT tag, address, provider, transport, sent_at, place, folder, arrived_at, looked_at, removed, why"
    " FROM seed_mail"
)
_PUT = "INSERT OR REPLACE INTO seed_mail VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

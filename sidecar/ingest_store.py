"""The part of the outside store that the ingest interface fills, and the outbox to core.

The only SQL about them. An event and what core has to hear of it are one transaction.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sidecar.database import Database


class IngestRow(NamedTuple):
    """As the table ingest_event."""

    key: str
    time: float
    at: float
    kind: str
    recipient: str
    recipient_domain: str
    sending_domain: str
    campaign: str
    reply: str


class Waiting(NamedTuple):
    """What core has to hear of."""

    source: str
    events: list[dict[str, Any]]
    """Each with its number, in order."""


class IngestStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rows: Sequence[tuple[IngestRow, str]]) -> list[bool]:
        """Write events with what core is to hear of each; tells of each whether it was new. Raises StoreUnavailable."""
        with self._database.transaction():
            return [self._add(row, body) for row, body in rows]

    def _add(self, row: IngestRow, body: str) -> bool:
        new = bool(self._database.connection.execute(_ADD, row).rowcount)
        if new:
            hand_over(self._database, [body])
        return new

    def waiting(self, limit: int) -> Waiting:
        (source,) = self._database.rows("SELECT name FROM suppression_source")
        rows = self._database.rows("SELECT number, body FROM suppression_outbox ORDER BY number LIMIT ?", (limit,))
        return Waiting(source[0], [{**json.loads(body), "number": number} for number, body in rows])

    def heard(self, upto: int) -> None:
        """Core has stored all up to this one. Raises StoreUnavailable."""
        with self._database.transaction():
            self._database.connection.execute("DELETE FROM suppression_outbox WHERE number <= ?", (upto,))

    def prune(self, *, before: float) -> int:
        """Delete events taken in before; how many. Raises StoreUnavailable."""
        with self._database.transaction():
            return self._database.connection.execute("DELETE FROM ingest_event WHERE time < ?", (before,)).rowcount

    def close(self) -> None:
        self._database.close()


def hand_over(database: Database, bodies: Iterable[str]) -> None:
    """Put into the outbox, within a transaction that is open."""
    database.connection.executemany("INSERT INTO suppression_outbox (body) VALUES (?)", ((body,) for body in bodies))


def body_of(
    kind: str, recipient: str, domain: str, *, at: float, evidence: str, by: str, reply: str = "", queue_id: str = ""
) -> str:
    """Say to core what happened: `sidecar.suppression` reads it."""
    said = {"kind": kind, "recipient": recipient, "domain": domain, "at": at, "evidence": evidence, "by": by}
    more = {"reply": reply, "queue_id": queue_id}
    return json.dumps(said | {name: value for name, value in more.items() if value})


_ADD = (
    "INSERT OR IGNORE INTO ingest_event (key, time, at, kind, recipient, recipient_domain, sending_domain, campaign,"
    " reply) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

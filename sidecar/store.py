"""The store of core: one SQLite file, in which events and the place they were read from change together.

The only SQL about it. Synchronous, and for one thread at a time; no rule about mail.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any, Self

from policies.commands import Attempt, Change
from policies.steering import Steering
from sidecar import pool_rows, statements, suppression_store
from sidecar.database import Database, StoreDamaged, StoreError, StoreUnavailable
from sidecar.fleet.outbox import Outbox
from sidecar.fleet.part_store import PartStore
from sidecar.fleet.taught_store import TaughtStore
from sidecar.fleet.warm_up_memory import WarmUpMemory
from sidecar.history_store import HistoryStore
from sidecar.history_store import prune as prune_history
from sidecar.log_batch import Position
from sidecar.quota_store import QuotaTable
from sidecar.store_rows import BrokenRow, Commit, HeldBy, HoldRow, LearnedRow, SubQueueRow
from sidecar.suppression_store import SuppressionTables

__all__ = [
    "Commit",
    "HeldBy",
    "HoldRow",
    "LearnedRow",
    "Store",
    "StoreDamaged",
    "StoreError",
    "StoreUnavailable",
    "SubQueueRow",
    "open_read_only",
]


class Store:
    """Made by `open`, `replace` or `open_read_only`; what `Database` says of each holds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._history = HistoryStore(database)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises StoreError; StoreUnavailable where that may pass."""
        return cls(Database.open(path, statements.SCHEMA))

    @classmethod
    def replace(cls, path: Path, why: str) -> Self:
        """Raises StoreError."""
        return cls(Database.replace(path, statements.SCHEMA, why))

    @classmethod
    def open_read_only(cls, path: Path) -> Self:
        """Raises StoreError, also where there is none yet."""
        return cls(Database.open_read_only(path, statements.SCHEMA))

    @property
    def path(self) -> Path:
        return self._database.path

    @property
    def connection(self) -> sqlite3.Connection:
        """For plain SQL of readers."""
        return self._database.connection

    @property
    def database(self) -> Database:
        """For readers that have their own statements."""
        return self._database

    @property
    def recovered(self) -> str:
        """What happened to a store that was there before and is not used; "" where nothing did."""
        return self._database.recovered

    def commit(self, commit: Commit) -> None:
        """Write it in one transaction.

        Raises StoreUnavailable, and nothing is written; StoreDamaged.
        """
        try:
            self._write(commit)
        except UnicodeEncodeError:
            self._write(_without_surrogates(commit))

    def checkpoint(self, source: str) -> Position | None:
        rows = self._database.rows(statements.CHECKPOINT, (source,))
        return Position(source, rows[0][0]) if rows else None

    def subqueues(self) -> list[SubQueueRow]:
        return [SubQueueRow(*row) for row in self._database.rows(statements.SUBQUEUES)]

    def holds(self) -> list[HoldRow]:
        return [_hold(row) for row in self._database.rows(statements.HOLDS)]

    def learned(self) -> list[LearnedRow]:
        return [LearnedRow(*row) for row in self._database.rows(statements.LEARNED)]

    def broken(self) -> list[BrokenRow]:
        return [BrokenRow(*row) for row in self._database.rows(statements.BROKEN)]

    def changes(self, after_id: int, limit: int) -> list[tuple[int, Change]]:
        """With their ids, in the order they were made, from the one after `after_id` on."""
        return [(row[0], Change(*row[1:])) for row in self._database.rows(statements.CHANGES, (after_id, limit))]

    def attempts(self, after_id: int, limit: int) -> list[Attempt]:
        """In the order they were read, from the one after `after_id` on."""
        return [Attempt(*row) for row in self._database.rows(statements.ATTEMPTS, (after_id, limit))]

    def attempts_since(self, time: float) -> list[Attempt]:
        """By the time of their log lines (seconds since the epoch, UTC); all of them, so ask for hours and not for days."""
        return [Attempt(*row) for row in self._database.rows(statements.ATTEMPTS_SINCE, (time,))]

    def prune(self, *, before: float, limit: int) -> int:
        """Delete attempts and messages older than `before`, at most `limit` of each; the number deleted, 0 when done.

        Raises StoreUnavailable.
        """
        with self._database.transaction():
            return sum(self.connection.execute(prune, (before, limit)).rowcount for prune in statements.PRUNE)

    def prune_audit(self, *, before: float, limit: int) -> int:
        """Delete changes older than `before`, with the messages they name, at most `limit`; the number deleted.

        Raises StoreUnavailable. Those of the last day stay, whatever is asked for.
        """
        with self._database.transaction():
            for statement in statements.PRUNE_AUDIT:
                deleted = self.connection.execute(statement, (before, limit)[: statement.count("?")]).rowcount
            return deleted

    def forget_sent_as(self, *, before_hour: int) -> None:
        """Delete counts of how mail was sent, of hours before this one. Raises StoreUnavailable."""
        with self._database.transaction():
            self.connection.execute(statements.PRUNE_SENT_AS, (before_hour,))

    def forget_canary_messages(self, *, before: float) -> None:
        """Delete which arms of canaries mail was in that was delivered before then. Raises StoreUnavailable."""
        with self._database.transaction():
            self.connection.execute(statements.PRUNE_CANARY_MESSAGES, (before,))

    def prune_history(self, *, hours_before: float, days_before: float, limit: int) -> int:
        """Delete sums of hours and days that begin before then, as `prune` does. Raises StoreUnavailable."""
        return prune_history(self._database, hours_before=hours_before, days_before=days_before, limit=limit)

    @property
    def outbox(self) -> Outbox:
        """Raises StoreUnavailable."""
        return Outbox(self._database)

    @property
    def fleet_warm_ups(self) -> WarmUpMemory:
        return WarmUpMemory(self._database)

    @property
    def fleet_part(self) -> PartStore:
        return PartStore(self._database)

    @property
    def taught(self) -> TaughtStore:
        return TaughtStore(self._database)

    @property
    def suppression(self) -> SuppressionTables:
        return SuppressionTables(self._database)

    @property
    def quotas(self) -> QuotaTable:
        return QuotaTable(self._database)

    def restore_steering(self, steering: Steering) -> None:
        """Give it back what was stored of warm-ups, reactions and canaries."""
        pool_rows.restore(steering, self._database)

    def close(self) -> None:
        self._database.close()

    def _write(self, commit: Commit) -> None:
        write = self.connection.executemany
        with self._history.undone_with_it(), self._database.transaction():
            if commit.checkpoint:
                write(statements.PUT_CHECKPOINT, (commit.checkpoint,))
            write(statements.ADD_MESSAGE, commit.received)
            write(statements.REMOVE_MESSAGE, commit.removed)
            attempts = self._history.settled(commit.attempts)
            write(statements.ADD_ATTEMPT, attempts)
            self._history.add(attempts)
            for change in commit.changes:
                number = self.connection.execute(statements.ADD_CHANGE, change[:-1]).lastrowid
                write(statements.ADD_CHANGE_MESSAGE, ((number, *message) for message in change.ids))
            write(statements.DROP_SUBQUEUE, ((key,) for key in commit.subqueues_gone))
            write(statements.PUT_SUBQUEUE, commit.subqueues)
            write(statements.DROP_HOLD, commit.holds_gone)
            write(statements.PUT_HOLD, (_hold_columns(row) for row in commit.holds))
            write(statements.PUT_LEARNED, commit.learned)
            write(statements.ADD_SENT_AS, commit.sent_as)
            write(statements.DROP_BROKEN, ((key,) for key in commit.repaired))
            write(statements.PUT_BROKEN, commit.broken)
            suppression_store.write(self.connection, commit.suppression)
            if commit.pools is not None:
                pool_rows.write(self.connection, commit.pools)


def open_read_only(path: Path) -> Store:
    """As Store.open_read_only."""
    return Store.open_read_only(path)


def _hold_columns(row: HoldRow) -> tuple[object, ...]:
    return (*row[:2], json.dumps(row.keys), *row[3:8], json.dumps(row.recipients), *row[9:])


def _hold(row: tuple[Any, ...]) -> HoldRow:
    instance, queue_id, keys, since, by, confirmed, in_core, sender, recipients, arrival = row
    return HoldRow(
        instance,
        queue_id,
        tuple(json.loads(keys)),
        since,
        HeldBy(by),
        bool(confirmed),
        bool(in_core),
        sender,
        tuple(json.loads(recipients)),
        arrival,
    )


def _without_surrogates(value: Any) -> Any:
    """Bytes of a log line that were no UTF-8 stand as lone surrogates, which SQLite cannot store: escape them."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(_without_surrogates(part) for part in value)
    if isinstance(value, tuple | list):
        return tuple(_without_surrogates(part) for part in value)
    return value

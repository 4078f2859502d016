"""The store of core: one SQLite file, in which events and the place they were read from change together.

The only SQL about it. Synchronous, and for one thread at a time; no rule about mail.
"""

import contextlib
import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from sidecar import statements
from sidecar.log_batch import Position
from sidecar.store_rows import AttemptRow, ChangeRow, Commit, HeldBy, HoldRow, LearnedRow, SubQueueRow

__all__ = [
    "AttemptRow",
    "ChangeRow",
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

LOCK_TIMEOUT = 2.0
"""Seconds that a write waits for another process; readers do not lock it out (WAL)."""

CHECKED_WHOLE = 32 << 20
"""Bytes up to which a store is checked whole when it is opened; of a larger one the tables that hold state."""


class StoreError(Exception):
    """The store cannot be used: says the file, what is wrong and what to do."""


class StoreUnavailable(StoreError):  # noqa: N818  # a state that passes
    """Not now: disk full, I/O error, locked. Nothing was written; the same commit may be tried again."""


class StoreDamaged(StoreError):  # noqa: N818  # a state of the file
    """The file is no sound database; `Store.replace` sets it aside."""


class Store:
    """Made by `open`, `replace` or `open_read_only`.

    After kill -9 it is as the last commit left it. After a power failure commits of the last moments
    may be missing (synchronous=NORMAL), each of them whole, and its part of the log is read again.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, recovered: str = "") -> None:
        self.path = path
        self.connection = connection
        """For plain SQL of readers."""
        self.recovered = recovered
        """What happened to a store that was there before and is not used; "" where nothing did."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open for writing; make it where there is none, bring it to the present schema, replace it if damaged.

        Raises StoreError; StoreUnavailable where that may pass.
        """
        emptied = path.exists() and path.stat().st_size == 0
        try:
            return cls(path, _prepare(path), recovered=f"{path} was empty, a new one was made" if emptied else "")
        except StoreDamaged as damage:
            return cls.replace(path, str(damage))

    @classmethod
    def replace(cls, path: Path, why: str) -> Self:
        """Set a damaged store, closed before, aside and open a new one in its place. Raises StoreError."""
        aside = _set_aside(path)
        return cls(path, _prepare(path), recovered=f"{why}; it was set aside as {aside}, a new one was made")

    @classmethod
    def open_read_only(cls, path: Path) -> Self:
        """Open beside the process that writes it. Raises StoreError, also where there is none yet."""
        if not path.exists():
            raise StoreError(f"{path}: there is no store yet; core makes it: start the sidecar first")
        try:
            return cls(path, _connect_to_read(path, "mode=ro"))
        except StoreUnavailable:
            # With no writer there is no -wal, and a user who may not write the directory cannot make one.
            if path.with_name(f"{path.name}-wal").exists():
                raise
            return cls(path, _connect_to_read(path, "immutable=1"))

    def commit(self, commit: Commit) -> None:
        """Write it in one transaction.

        Raises StoreUnavailable, and nothing is written; StoreDamaged.
        """
        try:
            self._write(commit)
        except UnicodeEncodeError:
            self._write(_without_surrogates(commit))

    def checkpoint(self, source: str) -> Position | None:
        rows = self._rows(statements.CHECKPOINT, (source,))
        return Position(source, rows[0][0]) if rows else None

    def subqueues(self) -> list[SubQueueRow]:
        return [SubQueueRow(*row) for row in self._rows(statements.SUBQUEUES)]

    def holds(self) -> list[HoldRow]:
        return [_hold(row) for row in self._rows(statements.HOLDS)]

    def learned(self) -> list[LearnedRow]:
        return [LearnedRow(*row) for row in self._rows(statements.LEARNED)]

    def changes(self, after_id: int, limit: int) -> list[ChangeRow]:
        """In the order they were made, from the one after `after_id` on."""
        return [ChangeRow(*row) for row in self._rows(statements.CHANGES, (after_id, limit))]

    def attempts(self, after_id: int, limit: int) -> list[AttemptRow]:
        """In the order they were read, from the one after `after_id` on."""
        return [AttemptRow(*row) for row in self._rows(statements.ATTEMPTS, (after_id, limit))]

    def attempts_since(self, time: float) -> list[AttemptRow]:
        """By the time of their log lines (seconds since the epoch, UTC); all of them, so ask for hours and not for days."""
        return [AttemptRow(*row) for row in self._rows(statements.ATTEMPTS_SINCE, (time,))]

    def prune(self, *, before: float, limit: int) -> int:
        """Delete attempts and changes older than `before`, at most `limit` of each; the number deleted, 0 when done.

        Raises StoreUnavailable.
        """
        with self._transaction():
            return sum(self.connection.execute(prune, (before, limit)).rowcount for prune in statements.PRUNE)

    def close(self) -> None:
        with _translated(self.path):
            self.connection.close()

    def _write(self, commit: Commit) -> None:
        write = self.connection.executemany
        with self._transaction():
            if commit.checkpoint:
                write(statements.PUT_CHECKPOINT, (commit.checkpoint,))
            write(statements.ADD_ATTEMPT, (row[:-1] for row in commit.attempts))
            write(statements.ADD_CHANGE, (row[:-1] for row in commit.changes))
            write(statements.DROP_SUBQUEUE, ((key,) for key in commit.subqueues_gone))
            write(statements.PUT_SUBQUEUE, commit.subqueues)
            write(statements.DROP_HOLD, commit.holds_gone)
            write(statements.PUT_HOLD, (_hold_columns(row) for row in commit.holds))
            write(statements.PUT_LEARNED, commit.learned)

    def _rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with _translated(self.path):
            return self.connection.execute(query, parameters).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back itself after some errors
                    self.connection.execute("ROLLBACK")
                raise


def open_read_only(path: Path) -> Store:
    """As Store.open_read_only."""
    return Store.open_read_only(path)


def _prepare(path: Path) -> sqlite3.Connection:
    """Open for writing, checked and brought to the present schema."""
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        # SQLite would have the umask decide; the file names correspondents.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640))
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            _set_up(path, connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _set_up(path: Path, connection: sqlite3.Connection) -> None:
    scripts = statements.migrations()
    version = _version(path, connection, known=len(scripts))
    if version:
        _check(path, connection)
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise StoreError(f"{path}: SQLite cannot keep a write-ahead log here; wanted store.path on a local disk")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    for number, script in enumerate(scripts[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(path: Path, connection: sqlite3.Connection, *, known: int) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > known:
        raise StoreError(
            f"{path}: written by a newer sidecar (schema {version}, this one knows {known}); "
            f"install that one again, or move the file away to begin anew"
        )
    return version


def _check(path: Path, connection: sqlite3.Connection) -> None:
    whole = path.stat().st_size <= CHECKED_WHOLE
    tables = {name for (name,) in connection.execute(statements.TABLES)}
    for part in ("1",) if whole else (f"'{table}'" for table in statements.STATE_TABLES & tables):
        found = connection.execute(f"PRAGMA quick_check({part})").fetchone()
        if found != ("ok",):
            raise StoreDamaged(f"{path}: damaged: {found[0]}")


def _set_aside(path: Path) -> Path:
    """Rename the file, and what belongs to it, to the first free name core.db.damaged-N."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with _translated(path):
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _connect_to_read(path: Path, how: str) -> sqlite3.Connection:
    with _translated(path):
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?{how}",
            uri=True,
            timeout=LOCK_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _must_be_current(path, connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _must_be_current(path: Path, connection: sqlite3.Connection) -> None:
    known = len(statements.migrations())
    version = _version(path, connection, known=known)
    if version < known:
        raise StoreError(f"{path}: still of schema {version}, wanted {known}; core brings it there: start it first")


UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "another process keeps it locked; is a second core running?",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked; is a second core running?",
    sqlite3.SQLITE_FULL: "free some space on its file system",
    sqlite3.SQLITE_IOERR: "look at the disk and its free space (dmesg, df)",
    sqlite3.SQLITE_CANTOPEN: "look at the directory's owner and its free space",
    sqlite3.SQLITE_READONLY: "the user of the sidecar must be able to write file and directory",
    sqlite3.SQLITE_PERM: "the user of the sidecar must be able to write file and directory",
    sqlite3.SQLITE_NOMEM: "memory is short",
}
"""Primary result codes that may pass, and what to do."""

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Say errors of SQLite and of the file system in ours; a mistake of our own SQL stays what it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in DAMAGED:
            raise StoreDamaged(f"{path}: damaged: {error}") from error
        if code in UNAVAILABLE:
            raise StoreUnavailable(f"{path}: {error}; {UNAVAILABLE[code]}") from error
        raise
    except OSError as error:
        kind = StoreUnavailable if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO} else StoreError
        raise kind(
            f"{error.filename or path}: {error.strerror}; wanted store.path in a directory the sidecar's user may write, with space left"
        ) from error


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

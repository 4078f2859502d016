"""An SQLite file of ours: opened, checked, brought to the present schema, set aside when damaged.

Knows no table: what is in them is for the stores, which are one file and one writing process each.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

LOCK_TIMEOUT = 2.0
"""Seconds that a write waits for another process; readers do not lock it out (WAL)."""

CHECKED_WHOLE = 32 << 20
"""Bytes up to which a store is checked whole when it is opened; of a larger one the tables that hold state."""


class StoreError(Exception):
    """The store cannot be used: says the file, what is wrong and what to do."""


class StoreUnavailable(StoreError):  # noqa: N818  # a state that passes
    """Not now: disk full, I/O error, locked. Nothing was written; the same commit may be tried again."""


class StoreDamaged(StoreError):  # noqa: N818  # a state of the file
    """The file is no sound database; `Database.replace` sets it aside."""


class Schema(NamedTuple):
    """What a file holds, and who writes it."""

    directory: str
    """Of the migrations, inside the package: the first script, by name, makes version 1 of an empty file."""
    writer: str
    """The process that makes and writes the file."""
    state_tables: frozenset[str]
    """Checked whatever the size of the file: what a start reads."""

    def migrations(self) -> list[str]:
        """Scripts in order."""
        directory = resources.files("sidecar") / self.directory
        scripts = {entry.name: entry for entry in directory.iterdir() if entry.name.endswith(".sql")}
        return [scripts[name].read_text(encoding="utf-8") for name in sorted(scripts)]


class Database:
    """Made by `open`, `replace` or `open_read_only`; for one thread at a time.

    After kill -9 it is as the last transaction left it. After a power failure transactions of the last
    moments may be missing (synchronous=NORMAL), each of them whole.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, recovered: str = "") -> None:
        self.path = path
        self.connection = connection
        """For plain SQL of readers."""
        self.recovered = recovered
        """What happened to a file that was there before and is not used; "" where nothing did."""

    @classmethod
    def open(cls, path: Path, schema: Schema) -> Self:
        """Open for writing; make it where there is none, bring it to the present schema, replace it if damaged.

        Raises StoreError; StoreUnavailable where that may pass.
        """
        emptied = path.exists() and path.stat().st_size == 0
        try:
            recovered = f"{path} was empty, a new one was made" if emptied else ""
            return cls(path, _prepare(path, schema), recovered=recovered)
        except StoreDamaged as damage:
            return cls.replace(path, schema, str(damage))

    @classmethod
    def replace(cls, path: Path, schema: Schema, why: str) -> Self:
        """Set a damaged file, closed before, aside and open a new one in its place. Raises StoreError."""
        aside = _set_aside(path)
        said = f"{why}; it was set aside as {aside}, a new one was made"
        return cls(path, _prepare(path, schema), recovered=said)

    @classmethod
    def open_read_only(cls, path: Path, schema: Schema) -> Self:
        """Open beside the process that writes it. Raises StoreError, also where there is none yet."""
        if not path.exists():
            made_by = f"{schema.writer} makes it: start the sidecar first"
            raise StoreError(f"{path}: there is no store yet; {made_by}")
        try:
            return cls(path, _connect_to_read(path, schema, "mode=ro"))
        except StoreUnavailable:
            # With no writer there is no -wal, and a user who may not write the directory cannot make one.
            if path.with_name(f"{path.name}-wal").exists():
                raise
            return cls(path, _connect_to_read(path, schema, "immutable=1"))

    def rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with _translated(self.path):
            return self.connection.execute(query, parameters).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Raises StoreUnavailable, and nothing is written; StoreDamaged."""
        with _translated(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back itself after some errors
                    self.connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with _translated(self.path):
            self.connection.close()


def _prepare(path: Path, schema: Schema) -> sqlite3.Connection:
    """Open for writing, checked and brought to the present schema."""
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        # SQLite would have the umask decide; the file names correspondents. One that is there is not opened but by SQLite: to
        # close a file gives up all locks on it of this process, and another that closes it then would take the log away.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640))
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            _set_up(path, connection, schema)
        except BaseException:
            connection.close()
            raise
        return connection


def _set_up(path: Path, connection: sqlite3.Connection, schema: Schema) -> None:
    scripts = schema.migrations()
    version = _version(path, connection, known=len(scripts))
    if version:
        _check(path, connection, schema)
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


def _check(path: Path, connection: sqlite3.Connection, schema: Schema) -> None:
    whole = path.stat().st_size <= CHECKED_WHOLE
    tables = {name for (name,) in connection.execute(_TABLES)}
    for part in ("1",) if whole else (f"'{table}'" for table in schema.state_tables & tables):
        found = connection.execute(f"PRAGMA quick_check({part})").fetchone()
        if found != ("ok",):
            raise StoreDamaged(f"{path}: damaged: {found[0]}")


def _set_aside(path: Path) -> Path:
    """Rename the file, and what belongs to it, to the first free name NAME.damaged-N."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with _translated(path):
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _connect_to_read(path: Path, schema: Schema, how: str) -> sqlite3.Connection:
    with _translated(path):
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?{how}",
            uri=True,
            timeout=LOCK_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _must_be_current(path, connection, schema)
        except BaseException:
            connection.close()
            raise
        return connection


def _must_be_current(path: Path, connection: sqlite3.Connection, schema: Schema) -> None:
    known = len(schema.migrations())
    version = _version(path, connection, known=known)
    if version < known:
        raise StoreError(
            f"{path}: still of schema {version}, wanted {known}; {schema.writer} brings it there: start it first"
        )


_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table'"

UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "another process keeps it locked; is a second sidecar running?",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked; is a second sidecar running?",
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

"""One person's address taken out of a store: every text in every table, whoever made the table.

Knows no table by name but those it is told to leave alone. It looks on a connection of its own, for that may take
minutes, and writes in small transactions, for others write as well.
"""

import hashlib
import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from sidecar.database import Database

ERASED = "[erased]"
_AT_ONCE = 100


class Found(NamedTuple):
    """One row that names the person."""

    table: str
    keys: tuple[tuple[str, object], ...]
    """(column, value) of its primary key."""
    columns: tuple[str, ...]
    """Where the name stands."""


def needles(address: str) -> list[str]:
    """What stands for a person in a store: the address, and the digest that report mail is kept under."""
    return [address, hashlib.sha256(address.lower().encode(errors="replace")).hexdigest()]


def find(connection: sqlite3.Connection, address: str, *, without: Collection[str] = ()) -> Iterator[Found]:
    """Look through all tables but those of `without`; reads only."""
    connection.create_function("names_them", 1, _pattern(address).search_in, deterministic=True)
    for table in _tables(connection):
        if table in without:
            continue
        columns = connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
        texts = [str(column[1]) for column in columns if str(column[2]).upper() in {"TEXT", "ANY", ""}]
        keys = [str(column[1]) for column in columns if column[5]] or ["rowid"]
        if not texts:
            continue
        where = " OR ".join(f"names_them({_quoted(each)})" for each in texts)
        wanted = ", ".join(_quoted(each) for each in (*keys, *texts))
        for row in connection.execute(f"SELECT {wanted} FROM {_quoted(table)} WHERE {where}"):  # noqa: S608  # names of our own schema, quoted
            key, values = row[: len(keys)], row[len(keys) :]
            search = _pattern(address).search_in
            named = tuple(each for each, value in zip(texts, values, strict=True) if search(value))
            yield Found(table, tuple(zip(keys, key, strict=True)), named)


def erase(database: Database, address: str, found: Sequence[Found]) -> int:
    """Write `[erased]` in the place of the person; how many rows. Raises StoreUnavailable."""
    pattern = _pattern(address)
    database.connection.create_function("without_them", 1, pattern.taken_out, deterministic=True)
    database.connection.execute("PRAGMA secure_delete = ON")  # the bytes of the old row as well
    erased = 0
    for start in range(0, len(found), _AT_ONCE):
        with database.transaction():
            for each in found[start : start + _AT_ONCE]:
                sets = ", ".join(f"{_quoted(name)} = without_them({_quoted(name)})" for name in each.columns)
                where = " AND ".join(f"{_quoted(name)} = ?" for name, _ in each.keys)
                statement = f"UPDATE OR REPLACE {_quoted(each.table)} SET {sets} WHERE {where}"  # noqa: S608  # as above
                erased += database.connection.execute(statement, [value for _, value in each.keys]).rowcount
    return erased


def settle(database: Database) -> None:
    """Have the write-ahead log written back and emptied, where nobody reads an old state just now."""
    database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class _Pattern:
    def __init__(self, address: str) -> None:
        # Not where it is only the end or the beginning of a longer address.
        exact = rf"(?<![\w.+-]){re.escape(address)}(?![\w-]|\.\w)"
        self._expression = re.compile("|".join([exact, needles(address)[1]]), re.IGNORECASE)

    def search_in(self, value: object) -> int:
        return int(isinstance(value, str) and self._expression.search(value) is not None)

    def taken_out(self, value: Any) -> Any:
        return self._expression.sub(ERASED, value) if isinstance(value, str) else value


def _pattern(address: str) -> _Pattern:
    return _Pattern(address)


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [str(name) for (name,) in rows.fetchall()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

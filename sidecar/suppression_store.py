"""The suppression list in core's store: entries with their history, counts, and what other processes told.

The only SQL about it. Called within the transaction that moves the log's checkpoint, so that neither can lie.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from policies.fleet.news import change_text
from policies.suppression import (
    Add,
    Confirm,
    Counted,
    Delivered,
    End,
    Engaged,
    Erase,
    Heard,
    Listed,
    Move,
    Reason,
    Told,
)
from sidecar.database import Database
from sidecar.erasure import Found, erase, settle


class Entry(NamedTuple):
    """One row, for people."""

    id: int
    digest: str
    """Hexadecimal."""
    address: str
    list: str
    reason: str
    evidence: str
    provider: str
    since: float
    until: float
    provisional_until: float
    by_whom: str
    ended_at: float
    ended_by: str
    ended_why: str


class Current(NamedTuple):
    """What the store says of some digests."""

    slots: dict[bytes, tuple[int, ...]]
    upto: int
    """All changes up to this one are in it."""
    names: dict[int, Listed]
    """Of all slots."""


class Probation(NamedTuple):
    who: bytes
    provider: str
    until: float


class Silent(NamedTuple):
    """Somebody who opened and clicked nothing for long."""

    who: bytes
    domain: str
    deliveries: int
    since: float


class SuppressionTables:
    def __init__(self, database: Database) -> None:
        self._database = database

    def identity(self, name: str) -> bytes:
        """Sixteen bytes that name this store for ever. Raises StoreUnavailable."""
        with self._database.transaction():
            self._database.connection.execute(_ADD_IDENTITY, (name, secrets.token_bytes(16)))
        (row,) = self._database.rows("SELECT value FROM suppression_identity WHERE name = ?", (name,))
        return bytes(row[0])

    def identify(self, name: str, value: bytes) -> bytes:
        """Keep a value under a name that has none yet; gives the one that is kept. Raises StoreUnavailable."""
        with self._database.transaction():
            self._database.connection.execute(_ADD_IDENTITY, (name, value))
        (row,) = self._database.rows("SELECT value FROM suppression_identity WHERE name = ?", (name,))
        return bytes(row[0])

    def count(self, limit: int) -> int:
        """Entries in force, counted up to `limit`."""
        (row,) = self._database.rows(_COUNT, (limit,))
        return int(row[0])

    def current_since(self, upto: int) -> Current:
        """What is in force of the digests that changed since."""
        slots: dict[bytes, tuple[int, ...]] = {}
        for who, slot in self._database.rows(_CHANGED_SINCE, (upto,)):
            slots[who] = (*slots.get(who, ()), *(() if slot is None else (slot,)))
        return Current(slots, self._last_change(), self._names())

    def current(self, whos: Iterable[bytes]) -> Current:
        """What is in force of these."""
        slots = {who: tuple(slot for (slot,) in self._database.rows(_SLOTS_OF, (who,))) for who in whos}
        return Current(slots, self._last_change(), self._names())

    def all_current(self) -> Current:
        slots: dict[bytes, tuple[int, ...]] = {}
        for who, slot in self._database.rows(_ALL):
            slots[who] = (*slots.get(who, ()), slot)
        return Current(slots, self._last_change(), self._names())

    def rows(self) -> tuple[Current, Iterator[tuple[bytes, int]]]:
        """Everything in order, and what goes with it, of one moment: on a connection of one's own."""
        connection = self._database.connection
        connection.execute("BEGIN")
        current = Current({}, self._last_change(), self._names())

        def each() -> Iterator[tuple[bytes, int]]:
            try:
                yield from connection.execute(_ALL)
            finally:
                connection.execute("ROLLBACK")

        return current, each()

    def forget_changes(self, upto: int) -> None:
        """A file has them. Raises StoreUnavailable."""
        deleted = 1
        while deleted:
            with self._database.transaction():
                deleted = self._database.connection.execute(_FORGET_CHANGES, (upto,)).rowcount

    def probations(self) -> list[Probation]:
        return [Probation(bytes(who), provider, until) for who, provider, until in self._database.rows(_PROBATIONS)]

    def counts(self) -> list[Counted]:
        return [
            Counted(bytes(who), Reason(reason), first, last, times)
            for who, reason, first, last, times in self._database.rows(_COUNTS)
        ]

    def heard(self) -> dict[str, int]:
        return dict(self._database.rows("SELECT source, number FROM suppression_heard"))

    def ended_by_now(self, now: float, limit: int) -> list[tuple[bytes, Listed]]:
        """Entries whose time is over."""
        return [
            (bytes(who), Listed(name, Reason(reason)))
            for who, name, reason in self._database.rows(_ENDED_BY, (now, limit))
        ]

    def entries(
        self, *, after: int, limit: int, listed: str = "", reason: str = "", ended: bool = False
    ) -> list[Entry]:
        """In the order they were made, from the one after `after` on."""
        asked = {"after": after, "limit": limit, "list": listed, "reason": reason, "ended": ended}
        return [Entry(*row) for row in self._database.connection.execute(_ENTRIES, asked)]

    def of(self, who: bytes) -> list[Entry]:
        """All of one address, those that ended as well."""
        return [Entry(*row) for row in self._database.rows(_OF, (who,))]

    def silent(self, *, deliveries: int, before: float, after: tuple[bytes, str], limit: int) -> list[Silent]:
        """Who got so many mails of a domain, and opened or clicked none of them since before then; a page of them."""
        rows = self._database.rows(_SILENT, (deliveries, before, *after, limit))
        return [Silent(bytes(who), domain, count, since) for who, domain, count, since in rows]

    def segments(self, *, now: float) -> list[tuple[str, str, int]]:
        """(sending domain, segment, people)."""
        return [tuple(row) for row in self._database.connection.execute(_SEGMENTS, {"now": now})]

    def erase(self, address: str, who: bytes, found: Sequence[Found], *, forget: bool) -> int:
        """Take a person out of all that was found, and out of the counts; how many rows.

        `forget`: the history of their entries, too. Raises StoreUnavailable.
        """
        rows = erase(self._database, address, found)
        with self._database.transaction():
            for table in ("suppression_count", "engagement", *(("suppression",) if forget else ())):
                rows += self._database.connection.execute(_ERASE[table], (who,)).rowcount
            if forget:
                self._database.connection.execute(_CHANGED, (who,))
            else:  # as an entry that never had one: an export is good for an import
                self._database.connection.execute("UPDATE suppression SET address = '' WHERE who = ?", (who,))
        settle(self._database)
        return rows

    def _last_change(self) -> int:
        rows = self._database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'suppression_delta'")
        return int(rows[0][0]) if rows else 0

    def _names(self) -> dict[int, Listed]:
        rows = self._database.rows("SELECT id, list, reason FROM suppression_slot")
        return {number: Listed(name, Reason(reason)) for number, name, reason in rows}


def write(connection: sqlite3.Connection, moves: Sequence[Move]) -> None:
    """Write moves, in order, within a transaction that is open."""
    execute = connection.execute
    for move in moves:
        _WRITERS[type(move)](execute, move)


Execute = Callable[..., sqlite3.Cursor]


def _slot(execute: Execute, listed: Listed) -> int:
    found = execute(_SLOT, listed).fetchone()
    return int(found[0]) if found else int(execute(_ADD_SLOT, listed).lastrowid or 0)


def _add(execute: Execute, move: Add) -> None:
    slot = _slot(execute, move.listed)
    row = (move.who, slot, move.address, move.evidence, move.provider, move.since, move.until, move.provisional_until)
    if execute(_ADD, (*row, move.by_whom)).rowcount:
        execute(_CHANGED, (move.who,))
    elif not move.provisional_until:
        execute(_CONFIRM, (move.who, slot))


def _end(execute: Execute, move: End) -> None:
    ended = (move.at, move.by_whom, move.why, move.who, _slot(execute, move.listed))
    if execute(_END, ended).rowcount:
        execute(_CHANGED, (move.who,))


def _confirm(execute: Execute, move: Confirm) -> None:
    execute(_CONFIRM, (move.who, _slot(execute, move.listed)))


def _counted(execute: Execute, move: Counted) -> None:
    if move.times:
        execute(_PUT_COUNT, move)
    else:
        execute("DELETE FROM suppression_count WHERE who = ? AND reason = ?", move[:2])


def _heard(execute: Execute, move: Heard) -> None:
    execute("INSERT OR REPLACE INTO suppression_heard (source, number) VALUES (?, ?)", move)


def _delivered(execute: Execute, move: Delivered) -> None:
    execute(_DELIVERED, move)


def _engaged(execute: Execute, move: Engaged) -> None:
    execute(_ENGAGED, move)


def _told(execute: Execute, move: Told) -> None:
    execute(_TELL, (change_text(move.change),))


def _to_erase(execute: Execute, move: Erase) -> None:
    execute(
        "INSERT INTO fleet_erasure (address, forget, by_whom) VALUES (?, ?, ?)",
        (move.address, int(move.forget), move.by_whom),
    )


_WRITERS: dict[type[Move], Callable[[Execute, Any], None]] = {
    Add: _add,
    End: _end,
    Confirm: _confirm,
    Counted: _counted,
    Heard: _heard,
    Delivered: _delivered,
    Engaged: _engaged,
    Told: _told,
    Erase: _to_erase,
}

_ADD_IDENTITY = "INSERT OR IGNORE INTO suppression_identity (name, value) VALUES (?, ?)"
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM suppression WHERE ended_at = 0 LIMIT ?)"
_CHANGED_SINCE = """
    SELECT changed.who, slot FROM (SELECT DISTINCT who FROM suppression_delta WHERE id > ?) AS changed
    LEFT JOIN suppression ON suppression.who = changed.who AND ended_at = 0 ORDER BY changed.who, slot
"""
_SLOTS_OF = "SELECT slot FROM suppression WHERE who = ? AND ended_at = 0 ORDER BY slot"
_ALL = "SELECT who, slot FROM suppression WHERE ended_at = 0 ORDER BY who, slot"
_FORGET_CHANGES = (
    "DELETE FROM suppression_delta WHERE id IN (SELECT id FROM suppression_delta WHERE id <= ? LIMIT 5000)"
)
_PROBATIONS = (
    "SELECT who, provider, provisional_until FROM suppression WHERE ended_at = 0 AND provisional_until > 0"
    " ORDER BY provisional_until"
)
_COUNTS = "SELECT who, reason, first, last, times FROM suppression_count ORDER BY last"
_ENDED_BY = (
    "SELECT who, list, reason FROM suppression JOIN suppression_slot ON suppression_slot.id = slot"
    " WHERE ended_at = 0 AND until > 0 AND until <= ? LIMIT ?"
)
_JOINED = (
    "SELECT suppression.id, lower(hex(who)), address, list, reason, evidence, provider, since, until, provisional_until, by_whom,"
    " ended_at, ended_by, ended_why FROM suppression JOIN suppression_slot ON suppression_slot.id = slot"
)
_ENTRIES = (
    f"{_JOINED} WHERE suppression.id > :after AND (:list = '' OR list = :list) AND (:reason = '' OR reason = :reason)"
    " AND (:ended OR ended_at = 0) ORDER BY suppression.id LIMIT :limit"
)
_OF = f"{_JOINED} WHERE who = ? AND (ended_at = 0 OR ended_at > 0) ORDER BY suppression.id"  # each has an index
_SILENT = (
    "SELECT who, domain, deliveries, max(first_at, engaged_at) FROM engagement"
    " WHERE deliveries >= ? AND max(first_at, engaged_at) < ? AND (who, domain) > (?, ?) ORDER BY who, domain LIMIT ?"
)
_SEGMENTS = """
    SELECT domain, CASE
        WHEN engaged_at = 0 THEN 'never'
        WHEN engaged_at > :now - 30 * 86400.0 THEN '30 days'
        WHEN engaged_at > :now - 90 * 86400.0 THEN '90 days'
        WHEN engaged_at > :now - 365 * 86400.0 THEN 'a year'
        ELSE 'longer' END AS segment, count(*)
    FROM engagement GROUP BY domain, segment ORDER BY domain, segment
"""
_ERASE = {
    "suppression_count": "DELETE FROM suppression_count WHERE who = ?",
    "engagement": "DELETE FROM engagement WHERE who = ?",
    "suppression": "DELETE FROM suppression WHERE who = ?",
}
_SLOT = "SELECT id FROM suppression_slot WHERE list = ? AND reason = ?"
_ADD_SLOT = "INSERT INTO suppression_slot (list, reason) VALUES (?, ?)"
_ADD = (
    "INSERT OR IGNORE INTO suppression (who, slot, address, evidence, provider, since, until, provisional_until,"
    " by_whom, ended_at, ended_by, ended_why) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', '')"
)
_CHANGED = "INSERT INTO suppression_delta (who) VALUES (?)"
_CONFIRM = "UPDATE suppression SET provisional_until = 0 WHERE who = ? AND slot = ? AND ended_at = 0"
_END = "UPDATE suppression SET ended_at = ?, ended_by = ?, ended_why = ? WHERE who = ? AND slot = ? AND ended_at = 0"
_TELL = "INSERT INTO fleet_told (at, change, heard) VALUES (CAST(strftime('%s', 'now') AS REAL), ?, 0)"
_PUT_COUNT = "INSERT OR REPLACE INTO suppression_count (who, reason, first, last, times) VALUES (?, ?, ?, ?, ?)"
# A mail that was opened is not counted; and one whose opening came to us before its delivery does no harm.
_DELIVERED = (
    "INSERT INTO engagement VALUES (?1, ?2, 1, ?3, 0)"
    " ON CONFLICT (who, domain) DO UPDATE SET deliveries = deliveries + 1"
)
_ENGAGED = (
    "INSERT INTO engagement VALUES (?1, ?2, 0, ?3, ?3)"
    " ON CONFLICT (who, domain) DO UPDATE SET deliveries = 0, engaged_at = max(engaged_at, excluded.engaged_at)"
)

"""Sends core's events to a ClickHouse server, each once, in the order of their ids.

Knows that core.db is the spool: what was not sent yet is what is there and the server does not have, so there is no
other record of it to lose, and a server that is gone costs core nothing.
"""

import math
from collections.abc import Sequence
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

from sidecar import clickhouse_schema, own_log, shipping_audit
from sidecar.clickhouse import ClickHouse, ServerError
from sidecar.database import Database
from sidecar.shipped_tables import ATTEMPT, CHANGE, MESSAGE, TABLES, Table, begin_of, day_of, ready
from sidecar.shipping_audit import Place
from sidecar.shipping_name import Claim
from sidecar.statements import SCHEMA

BATCH: Final = 20_000
"""Rows of one insert: some ten megabytes, and far below what ClickHouse takes as one block."""
LATER: Final = 90.0
"""Seconds after trouble in which an insert that failed may still take place: longer than we wait for an answer."""
_SLACK: Final = 60.0
"""Seconds by which removals are stored out of order."""
_AGAIN: Final = 600.0
"""Seconds of removals that are sent once more after a start."""

Mark = tuple[float, str]
"""Time and queue id of an attempt: with its id they tell whether it is the same one."""


class Sent(NamedTuple):
    """What one round did."""

    rows: int
    waiting: int
    """Attempts that are not sent yet, by their ids."""
    behind: float
    """Seconds since the oldest of them was logged; 0 where there is none."""
    doubts: int
    """Days that are still to be compared."""


class Standing(NamedTuple):
    """What the server has of a store."""

    life: int
    last: int
    """Id of the newest attempt of it, or below which none is to be sent."""
    first: int
    """Id up to which attempts do not belong to this life."""
    begin: float
    """Time of the log before which messages and changes do not belong to this life."""
    mark: Mark | None
    """Of the newest attempt."""


class Shipper:
    """Blocking, for one thread at a time. After an error it may be asked again, and finds out where it stood."""

    def __init__(
        self, core: Path, server: ClickHouse, name: str, *, days: int, batch: int = BATCH, host: str = ""
    ) -> None:
        """`name`: of this core's store, no other's on that server. `days`: how long events stay there.

        `host`: what tells this host from another one that has been given the same name; "": it is not looked for.
        """
        self._core = core
        self._server = server
        self._name = name
        self._claim = Claim(name, host) if host else None
        self._days = days
        self._batch = batch
        self._store = ""
        """`name` and which life of it: a store that begins anew has other events under the same ids. "": not known."""
        self._last: dict[str, int] = {}
        """Table -> id up to which all was sent."""
        self._first: dict[str, int] = {}
        """Table -> id up to which rows do not belong to this life."""
        self._mark: Mark | None = None
        """Of the last attempt that was sent."""
        self._removed = 0.0
        """Up to when removals were sent."""
        self._left: dict[int, float] = {}
        """Messages that were sent with their removal, as far back as those may come again."""
        self._started = 0
        """When the server was, by its own clock."""
        self._doubts: dict[date, float] = {}
        """Days of which the server may have too little, or sums too much, and when to look."""

    def step(self, *, now: float) -> Sent:
        """Send one batch of each table, and look into one day that is in doubt.

        Raises ServerError (NameTaken where another host sends under our name), and then nothing of the batch counts as
        sent; StoreError.
        """
        core = Database.open_read_only(self._core, SCHEMA)
        try:
            self._find_out(core, now=now)
            if self._claim is not None:
                self._claim.hold(self._server, now=now)
            rows = sum(self._send(core, table) for table in TABLES) + self._send_removed(core)
            self._settle(core, now=now)
            return self._sent(core, rows, now=now)
        except ServerError:
            self._store = ""
            raise
        finally:
            core.close()

    # Where it stands.

    def _find_out(self, core: Database, *, now: float) -> None:
        """Ask the server what it has, unless both stores are the ones that we know."""
        started = int(self._server.rows("SELECT toInt64(toUnixTimestamp(now())) - uptime()")[0][0])
        same = self._store and abs(started - self._started) <= 1  # of whole seconds
        if same and _continues(core, self._last["attempt"], self._mark):
            return
        clickhouse_schema.make(self._server)
        since = self._since(core, now=now)
        standing = self._standing(core, since)
        store = f"{self._name}/{standing.life}"
        for table in (MESSAGE, CHANGE):
            query = f"SELECT max(id) FROM {table.name} WHERE day >= ? AND store = ?"  # noqa: S608  # our own name
            first = self._first[table.name] = _before(core, table, standing.begin)
            self._last[table.name] = max(first, int(self._server.rows(query, (since, store))[0][0]))
        self._last["attempt"], self._first["attempt"], self._mark = standing.last, standing.first, standing.mark
        self._removed = float(self._server.rows(_REMOVED, (since, store))[0][0]) - _AGAIN
        self._left.clear()
        # What was under way when we, or the server, came to an end may still arrive, or not be in every view.
        self._doubts = dict.fromkeys(shipping_audit.whole_days(core, since=since, now=now), now + LATER)
        self._started, self._store = started, store

    def _since(self, core: Database, *, now: float) -> date:
        """The first day that the server is to have: what is older is dropped there."""
        oldest = core.rows("SELECT min(time) FROM attempt")[0][0]
        first = day_of(now - self._days * 86_400.0)
        return first if oldest is None else max(first, day_of(oldest))

    def _standing(self, core: Database, since: date) -> "Standing":
        names = f"{self._name}/", f"{self._name}0"  # the character after the slash
        lives = [_life(store) for (store,) in self._server.rows(_LIVES, names)]
        rows = self._server.rows(_STANDING, (since, *names))
        old = _before(core, ATTEMPT, begin_of(since))
        if not rows:
            return Standing(max(lives, default=0) + 1, old, old, begin_of(since), None)
        life, first, last, *mark = max(
            (_life(store), int(first), int(last), *rest) for store, first, last, *rest in rows
        )
        newest = life == max(lives, default=life)
        if newest and _continues(core, last, (mark[0], mark[1])):
            first = 0 if life == 1 else first - 1
            begin = core.rows("SELECT coalesce(max(time), 0.0) FROM attempt WHERE id = ?", (first + 1,))[0][0]
            known = (mark[0], mark[1]) if last >= old else None
            return Standing(life, max(last, old), first, 0.0 if life == 1 else begin, known)
        # Another file, or the same as it was some time ago: what it has of that time was sent in the life before.
        own_log.history_begins_anew(self._name)
        begin = math.nextafter(mark[0], math.inf)
        sent = max(old, _before(core, ATTEMPT, begin))
        return Standing(max([*lives, life]) + 1, sent, sent, begin, None)

    # What is sent.

    def _send(self, core: Database, table: Table) -> int:
        rows = core.rows(f"{table.select} WHERE id > ? ORDER BY id LIMIT ?", (self._last[table.name], self._batch))
        if rows:
            self._insert(core, table, rows)
            self._last[table.name] = rows[-1][0]
            if table is ATTEMPT:
                self._mark = table.value(rows[-1], "time"), table.value(rows[-1], "queue_id")
            if table is MESSAGE:
                self._left.update((row[0], row[-1]) for row in rows if row[-1])
        return len(rows)

    def _send_removed(self, core: Database) -> int:
        """Send messages again that left the queue: the server keeps the row that says so."""
        limit = self._batch + len(self._left)
        rows = core.rows(LEFT_QUEUE, (self._removed - _SLACK, self._last["message"], limit))
        fresh = [row for row in rows if row[0] not in self._left]
        if fresh:
            self._insert(core, MESSAGE, fresh)
        if rows:
            self._removed = max(self._removed, rows[-1][-1])
            self._left.update((row[0], row[-1]) for row in fresh)
            oldest = self._removed - _SLACK
            self._left = {number: removed for number, removed in self._left.items() if removed >= oldest}
        return len(fresh)

    def _insert(self, core: Database, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """One insert for each day, so that each is whole or not there at all."""
        listed = sorted(ready(core, table, self._store, rows), key=lambda row: str(row[0]))
        for _day, some in groupby(listed, key=lambda row: row[0]):
            self._server.insert(table.name, table.shipped, list(some))

    def _sent(self, core: Database, rows: int, *, now: float) -> Sent:
        waiting = core.rows(_WAITING, (self._last["attempt"],))
        number, oldest = waiting[0] if waiting else (0, now)
        return Sent(rows, number, max(0.0, now - oldest), len(self._doubts))

    # What is in doubt.

    def _settle(self, core: Database, *, now: float) -> None:
        """Compare the newest day whose time has come: send what lacks, put sums right that do not agree."""
        due = [day for day, at in self._doubts.items() if at <= now]
        if not due:
            return
        day = max(due)
        for table in TABLES:
            ids = self._first[table.name], self._last[table.name]
            place = Place(table, self._store, day)
            for rows in shipping_audit.lacking(core, self._server, place, ids):
                if rows:
                    own_log.history_lacked(day.isoformat(), table.name, len(rows))
                    self._insert(core, table, rows)
        for sums in shipping_audit.put_right(self._server, Place(ATTEMPT, self._store, day)):
            own_log.history_put_right(day.isoformat(), sums)
        del self._doubts[day]


def _life(store: str) -> int:
    return int(store.rpartition("/")[2])


def _continues(core: Database, last: int, mark: Mark | None) -> bool:
    """Whether core's store is the one whose attempt `last` has that mark: it is there, or was and is too old now."""
    if mark is None:
        return True
    rows = core.rows("SELECT time, queue_id FROM attempt WHERE id = ?", (last,))
    if rows:
        time, queue_id = rows[0]
        return bool(abs(time - mark[0]) < 0.001 and queue_id == mark[1])
    return bool(core.rows("SELECT 1 FROM sqlite_sequence WHERE name = 'attempt' AND seq >= ?", (last,)))


def _before(core: Database, table: Table, time: float) -> int:
    """The newest row of a time before."""
    query = f"SELECT coalesce(max(id), 0) FROM {table.name} WHERE time < ?"  # noqa: S608  # our own name
    return int(core.rows(query, (time,))[0][0])


_LIVES: Final = "SELECT DISTINCT store FROM daily WHERE store >= ? AND store < ?"
_STANDING: Final = """
    SELECT store, min(id), max(id), argMax(time, id), argMax(queue_id, id) FROM attempt
    WHERE day >= ? AND store >= ? AND store < ? GROUP BY store
"""
_REMOVED: Final = "SELECT max(removed) FROM message WHERE day >= ? AND store = ?"
_WAITING: Final = """
    SELECT (SELECT max(id) FROM attempt) - id + 1, time FROM attempt WHERE id > ? ORDER BY id LIMIT 1
"""
LEFT_QUEUE: Final = f"{MESSAGE.select} WHERE removed > 0 AND removed > ? AND id <= ? ORDER BY removed LIMIT ?"
"""The first condition is that of the index."""

# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""Counts of core's delivery attempts, taken from core.db as they come and kept by five minutes and by the hour.

The only SQL about them. Reads on from the last row that was counted, so that a look costs what came since.
"""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from policies.figures import Figure, Kind
from policies.reported import objects
from policies.seasons import WEEK, hours_like, steady_hours, surge, unusual
from policies.windows import ALL, BASELINE, DAY, HOUR, MINUTE, WINDOWS, Counts, Object, Window, expected, shares
from sidecar.database import Database
from sidecar.incident_store import IncidentStore
from sidecar.statements import SCHEMA

ROWS: Final = 50_000
"""Attempts that are counted in one piece."""
LOOK_SECONDS: Final = 2.0
"""For which one look counts what is old; the next one goes on."""
_FINE: Final = 300
_KEPT: Final = {_FINE: 26 * HOUR, HOUR: 31 * DAY, DAY: 32 * DAY}
_STREAM_KEPT: Final = 9 * DAY
"""Of what one domain sends to one provider: there are many such, and only by the day."""


class LogTally:
    def __init__(self, store: IncidentStore, core: Path) -> None:
        self._store = store
        self._core = core
        self._looked_at: dict[str, float] = {}
        self._usual: dict[Object, Counts] = {}
        self._greatest: dict[Object, int] = {}
        self._hours: tuple[int, ...] = ()
        self._counts_like: defaultdict[Object, list[Counts]] = defaultdict(list)

    def figures(self, watched: set[Object], *, now: float) -> list[Figure] | None:
        """Give the shares that are due, also of what is watched and had no mail; None while there is more to count.

        Raises StoreError.
        """
        if not self.count(now=now):
            return None
        found: list[Figure] = []
        first = self._first()
        if self._due(next(window for window in WINDOWS if window.name == BASELINE), now=now):
            # What is happening now is not what is usual.
            self._usual = self._sums(HOUR, now - 7 * DAY, until=now - HOUR)
            self._greatest = self._greatest_hours(now=now)
        for window in WINDOWS:
            if self._due(window, now=now):
                self._looked_at[window.name] = now
                counted = self._sums(window.width, now - window.seconds)
                found += shares(window, counted, self._usual, watched, now=now)
        if now - self._looked_at.get("hour", 0.0) >= MINUTE * 0.9:
            self._looked_at["hour"] = now
            found += self._of_the_hour(watched, first=first, now=now)
        return found

    def _due(self, window: Window, *, now: float) -> bool:
        return now - self._looked_at.get(window.name, 0.0) >= window.every * 0.9

    def _of_the_hour(self, watched: set[Object], *, first: float, now: float) -> list[Figure]:
        """Compare the last hour with the hours that are like it."""
        sent = self._attempts(now - HOUR, now)
        steady = [self._attempts(*hour, width) for hour, width in self._steady(first=first, now=now)]
        return [
            *expected(sent, steady, watched, now=now),
            *unusual(self._sums(_FINE, now - HOUR), self._like(first=first, now=now), watched, now=now),
            *surge(sent, self._greatest, watched, now=now),
        ]

    def _steady(self, *, first: float, now: float) -> list[tuple[tuple[float, float], int]]:
        hours = steady_hours(now, first=first)
        return [(hour, _FINE if hour[0] >= now - _KEPT[_FINE] + HOUR else HOUR) for hour in hours]

    def _like(self, *, first: float, now: float) -> dict[Object, list[Counts]]:
        """Counts of the hours that this one is compared with; looked up once for each."""
        hours = hours_like(now, first=first)
        if hours != self._hours:
            with self._store.lock:
                rows = self._store.database.rows(_HOURS.format(hours=", ".join("?" * len(hours))), (HOUR, *hours))
            self._hours, self._counts_like = hours, defaultdict(list)
            for kind, name, *numbers in rows:
                self._counts_like[kind, name].append(Counts(*numbers))
        return self._counts_like

    def _first(self) -> float:
        """When counts by the hour begin; in the far future where there are none."""
        with self._store.lock:
            return float(self._store.database.rows(_FIRST, (HOUR,))[0][0])

    def _greatest_hours(self, *, now: float) -> dict[Object, int]:
        """The most that each domain sent in an hour of the last month, this one and the last left out.

        One that began to send within the week is still finding its pace.
        """
        with self._store.lock:
            rows = self._store.database.rows(_GREATEST, (HOUR, now - 2 * HOUR, now - WEEK))
        return {(kind, name): int(number) for kind, name, number in rows}

    def count(self, *, now: float) -> bool:
        """Count what came since the last time; whether that was all. Raises StoreError."""
        if not self._core.exists():
            return False
        until = time.monotonic() + LOOK_SECONDS
        core = Database.open_read_only(self._core, SCHEMA)
        try:
            mark = self._begin(core, now=now)
            known = {name for _, name, *_ in core.rows("PRAGMA table_info(attempt)")}
            # Who submitted it, and for which campaign, where core keeps that.
            count = _COUNT.format(*(name if name in known else "''" for name in ("tenant", "campaign")))
            last = int(core.rows("SELECT coalesce(max(id), 0) FROM attempt")[0][0])
            while mark < last and time.monotonic() < until:
                upto = min(mark + ROWS, last)
                self._add(core.rows(count, (mark, upto, now - _KEPT[HOUR])), upto, now=now)
                mark = upto
            return mark >= last
        finally:
            core.close()

    def _begin(self, core: Database, *, now: float) -> int:
        """Tell up to which attempt they are counted. A store of core that was made anew is counted anew."""
        with self._store.lock:
            known = self._store.database.rows("SELECT value FROM mark WHERE name = 'attempt'")
            # AUTOINCREMENT: ids only grow, and what is deleted is the oldest.
            highest = core.rows("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'attempt'")[0][0]
            if known and known[0][0] <= highest:
                return int(known[0][0])
            with self._store.database.transaction():
                self._store.database.connection.execute("DELETE FROM tally")
        first = core.rows("SELECT min(id) FROM attempt WHERE time >= ?", (now - _KEPT[HOUR],))[0][0]
        return int(first or 1) - 1

    def _add(self, rows: list[tuple[Any, ...]], upto: int, *, now: float) -> None:
        cells: defaultdict[tuple[int, int, str, str], Counts] = defaultdict(Counts)
        for begin, provider, domain, tenant, campaign, *numbers in rows:
            counts = Counts(*map(int, numbers))
            fine = int(begin)
            for width in _KEPT:
                if fine < now - _KEPT[width]:
                    continue
                start = fine // width * width
                for kind, name in ((str(Kind.HOST), ALL), *objects(domain, provider, tenant, campaign)):
                    if width == DAY or kind != Kind.STREAM:
                        cell = (width, start, kind, name)
                        cells[cell] = cells[cell].plus(counts)
        with self._store.lock, self._store.database.transaction():
            write = self._store.database.connection.executemany
            write(_ADD, [(*cell, *counts) for cell, counts in cells.items()])
            write("INSERT OR REPLACE INTO mark VALUES ('attempt', ?)", [(upto,)])
            write(
                "DELETE FROM tally WHERE width = ? AND begin < ?",
                [(width, now - kept) for width, kept in _KEPT.items()],
            )
            write(
                "DELETE FROM tally WHERE width = ? AND kind = ? AND begin < ?", [(DAY, Kind.STREAM, now - _STREAM_KEPT)]
            )

    def last_day(self, *, now: float) -> dict[Object, Counts]:
        """What was counted in the last 24 hours."""
        return self._sums(HOUR, now - DAY)

    def busiest_day(self, *, now: float) -> dict[Object, int]:
        """Messages that were delivered on the busiest of the last eight days (UTC), today among them."""
        with self._store.lock:
            rows = self._store.database.rows(_BUSIEST, (DAY, now - 8 * DAY))
        return {(kind, name): int(number) for kind, name, number in rows}

    def sent(self, *, since: float, until: float) -> dict[Object, int]:
        """Messages that were delivered, by whole days; of what has mail at least since the day after `since`."""
        with self._store.lock:
            rows = self._store.database.rows(_SENT, (DAY, since // DAY * DAY, until // DAY * DAY, since + DAY))
        return {(kind, name): int(number) for kind, name, number in rows}

    def _sums(self, width: int, since: float, *, until: float = 1e18) -> dict[Object, Counts]:
        with self._store.lock:
            rows = self._store.database.rows(_SUM, (width, since // width * width, until // width * width))
        return {(kind, name): Counts(*numbers) for kind, name, *numbers in rows}

    def _attempts(self, since: float, until: float, width: int = _FINE) -> dict[Object, int]:
        with self._store.lock:
            rows = self._store.database.rows(_ATTEMPTS, (width, since // width * width, until // width * width))
        return {(kind, name): int(number) for kind, name, number in rows}


_COUNT = f"""
    SELECT CAST(time / {_FINE} AS INTEGER) * {_FINE} AS begin, provider, sender_domain, {{}}, {{}}, count(*),
        sum(status = 'sent'), sum(status = 'deferred'), sum(status IN ('bounced', 'expired')),
        sum(status = 'bounced' AND bounce = 'hard'),
        sum(detail IN ('infrastructure.connect', 'infrastructure.timeout')),
        sum(detail = 'infrastructure.tls'), sum(status != 'sent' AND detail LIKE 'authentication.%')
    FROM attempt WHERE id > ? AND id <= ? AND time >= ? GROUP BY 1, 2, 3, 4, 5
"""
_FIELDS = ", ".join(Counts._fields)
_ADD = (
    f"INSERT INTO tally (width, begin, kind, object, {_FIELDS}) VALUES (?, ?, ?, ?, {', '.join('?' * len(Counts._fields))})"
    f" ON CONFLICT (width, begin, kind, object) DO UPDATE SET {', '.join(f'{f} = {f} + excluded.{f}' for f in Counts._fields)}"
)
_SUM = (
    f"SELECT kind, object, {', '.join(f'sum({f})' for f in Counts._fields)} FROM tally"
    " WHERE width = ? AND begin >= ? AND begin < ? GROUP BY kind, object"
)
_BUSIEST = "SELECT kind, object, max(sent) FROM tally WHERE width = ? AND begin >= ? GROUP BY kind, object"
_HOURS = f"SELECT kind, object, {_FIELDS} FROM tally WHERE width = ? AND begin IN ({{hours}})"
_FIRST = "SELECT coalesce(min(begin), 1e18) FROM tally WHERE width = ?"
_GREATEST = (
    "SELECT kind, object, max(attempts) FROM tally WHERE width = ? AND begin < ? AND kind = 'domain'"
    " GROUP BY kind, object HAVING min(begin) <= ?"
)
_SENT = (
    "SELECT kind, object, sum(sent) FROM tally WHERE width = ? AND begin >= ? AND begin < ?"
    " GROUP BY kind, object HAVING min(begin) <= ?"
)
_ATTEMPTS = (
    "SELECT kind, object, sum(attempts) FROM tally WHERE width = ? AND begin >= ? AND begin < ? AND kind IN ('domain', 'tenant', 'campaign')"
    " GROUP BY kind, object"
)

# statements are put together from names in this module alone; values are always parameters
"""Alerts, incidents and the outbox in the store of the outside process: a connection of its own to the same file.

The only SQL about them. Any thread may call: calls wait for each other.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from policies.conditions import Alert
from policies.incidents import DAY, Incident
from policies.note import Note, NoteKind
from policies.queue_age import QueueAge
from sidecar import incident_rows
from sidecar.database import Database
from sidecar.outside_store import SCHEMA, OutsideStore

KEPT = 400 * 86_400.0
"""Seconds for which ended incidents stay."""


class Posted(NamedTuple):
    """One note for one channel."""

    id: int
    note_number: int
    channel: str
    incident: int
    kind: NoteKind
    note: Note
    state: str
    attempts: int
    made_at: float
    next_at: float
    done_at: float
    handed: bool
    why: str
    page: str = ""
    """Where the fleet says it once for all hosts: the dedup key of its incident."""


class ChannelState(NamedTuple):
    broken_since: float = 0.0
    """0: it works, as far as is known."""
    tried_at: float = 0.0
    why: str = ""


class Looked(NamedTuple):
    """What one look changed: stored whole or not at all."""

    alerts: Sequence[Alert] = ()
    alerts_gone: Sequence[str] = ()
    incidents: Sequence[Incident] = ()
    events: Sequence[tuple[int, float, str]] = ()
    posts: Sequence[tuple[Note, Sequence[str]]] = ()
    """Notes with the channels that they go to."""
    marks: Sequence[tuple[str, int]] = ()
    """How far something came: (name, value)."""


class IncidentStore:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.polls = OutsideStore(database)
        """To be read while `lock` is held."""
        self.lock = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises StoreError."""
        store = cls(Database.open(path, SCHEMA))
        # A message that was sent must be known as sent even after the power failed.
        store.database.connection.execute("PRAGMA synchronous = FULL")
        return store

    @classmethod
    def open_read_only(cls, path: Path) -> Self:
        """Raises StoreError."""
        return cls(Database.open_read_only(path, SCHEMA))

    def close(self) -> None:
        with self.lock:
            self.database.close()

    # Alerts and incidents.

    def alerts(self) -> list[Alert]:
        with self.lock:
            return [incident_rows.alert(body) for (body,) in self.database.rows("SELECT body FROM alert ORDER BY key")]

    def incidents(self, *, since: float) -> list[Incident]:
        """Those that are live, and those that ended since."""
        with self.lock:
            rows = self.database.rows(_INCIDENTS, (since,))
        return [incident_rows.incident(body) for (body,) in rows]

    def incident(self, number: int) -> Incident | None:
        with self.lock:
            rows = self.database.rows("SELECT body FROM incident WHERE id = ?", (number,))
        return incident_rows.incident(rows[0][0]) if rows else None

    def last_incident(self) -> int:
        with self.lock:
            return int(self.database.rows("SELECT coalesce(max(id), 0) FROM incident")[0][0])

    def events(self, number: int) -> list[tuple[float, str]]:
        with self.lock:
            return [(time, what) for time, what in self.database.rows(_EVENTS, (number,))]

    def mark(self, name: str) -> int | None:
        """How far something came; None where it never was."""
        with self.lock:
            rows = self.database.rows("SELECT value FROM mark WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else None

    def looked(self, changed: Looked, *, now: float) -> None:
        """Write down what a look changed. Raises StoreUnavailable, and nothing is written."""
        write = self.database.connection.executemany
        with self.lock, self.database.transaction():
            write(
                "INSERT OR REPLACE INTO alert VALUES (?, ?)",
                [(a.key, incident_rows.alert_text(a)) for a in changed.alerts],
            )
            write("DELETE FROM alert WHERE key = ?", [(key,) for key in changed.alerts_gone])
            write(_PUT_INCIDENT, [_incident_row(each) for each in changed.incidents])
            write("INSERT INTO incident_event (incident, time, what) VALUES (?, ?, ?)", changed.events)
            for note, channels in changed.posts:
                self._post(note, channels, now=now)
            write("INSERT OR REPLACE INTO mark VALUES (?, ?)", changed.marks)

    def prune(self, *, now: float) -> None:
        """Raises StoreUnavailable."""
        with self.lock, self.database.transaction():
            for statement in _PRUNE:
                self.database.connection.execute(statement, (now - KEPT,))
            self.database.connection.execute("DELETE FROM queue_sample WHERE time < ?", (now - 32 * DAY,))

    # The outbox.

    def _post(
        self,
        note: Note,
        channels: Iterable[str],
        *,
        now: float,
        number: int = 0,
        next_at: float = 0.0,
        page: str = "",
    ) -> None:
        number = number or 1 + int(self.database.rows("SELECT coalesce(max(note), 0) FROM outbox")[0][0])
        rows = [
            (number, channel, note.incident, note.kind, incident_rows.note_text(note), now, next_at, page)
            for channel in channels
        ]
        self.database.connection.executemany(_POST, rows)

    def due(self, channel: str, *, now: float) -> Posted | None:
        """Give the oldest that waits for a channel, whether or not its time has come: none overtakes another.

        But one that is made for later stands behind until then.
        """
        with self.lock:
            rows = self.database.rows(f"{_POSTED} {_DUE}", (channel, now))
        return _posted(rows[0]) if rows else None

    def posted(self, *, number: int = 0, state: str = "", limit: int = 1000) -> list[Posted]:
        """List notes, newest first: of one number, in one state, or all."""
        where = "WHERE (?1 = 0 OR note = ?1) AND (?2 = '' OR state = ?2) ORDER BY id DESC LIMIT ?3"
        with self.lock:
            return [_posted(row) for row in self.database.rows(f"{_POSTED} {where}", (number, state, limit))]

    def of_incident(self, number: int) -> list[Posted]:
        with self.lock:
            return [_posted(row) for row in self.database.rows(f"{_POSTED} WHERE incident = ? ORDER BY id", (number,))]

    def waiting(self, channel: str) -> int:
        """How many wait for a channel."""
        with self.lock:
            return int(
                self.database.rows("SELECT count(*) FROM outbox WHERE state = 'queued' AND channel = ?", (channel,))[0][
                    0
                ]
            )

    def sending(self, id_: int) -> bool:
        """Whether it still waits to be sent. Raises StoreUnavailable: then it must not be sent either."""
        with self.lock, self.database.transaction():
            return self.database.connection.execute(_SENDING, (id_,)).rowcount > 0

    def done(self, id_: int, state: str, *, why: str = "", now: float) -> None:
        """Raises StoreUnavailable."""
        self._write("UPDATE outbox SET state = ?, why = ?, done_at = ? WHERE id = ?", (state, why, now, id_))

    def later(self, id_: int, *, why: str, at: float) -> None:
        """Raises StoreUnavailable."""
        self._write("UPDATE outbox SET state = 'queued', why = ?, next_at = ? WHERE id = ?", (why, at, id_))

    def hurry(self, channel: str) -> None:
        """Have what waits for a channel tried now. Raises StoreUnavailable."""
        self._write(
            "UPDATE outbox SET next_at = 0 WHERE state = 'queued' AND channel = ? AND kind != 'unsure'", (channel,)
        )

    def queue_sample(self, sample: QueueAge, *, now: float) -> QueueAge | None:
        """Write down the state of the queue; that of an hour ago, None where it is not known. Raises StoreUnavailable."""
        self._write("INSERT OR REPLACE INTO queue_sample (time, messages, old) VALUES (?, ?, ?)", (now, *sample))
        with self.lock:
            found = self.database.rows(
                "SELECT messages, old FROM queue_sample WHERE time BETWEEN ? AND ? ORDER BY time DESC LIMIT 1",
                (now - 5400.0, now - 3300.0),
            )
        return QueueAge(*found[0]) if found else None

    def queue_peaks(self, *, now: float) -> list[QueueAge]:
        """Give the greatest values of each day before today (UTC) of which there are samples."""
        with self.lock:
            rows = self.database.rows(_PEAKS, (now // DAY * DAY,))
        return [QueueAge(*row) for row in rows]

    def hand_on(self, posted: Posted, channel: str, note: Note, *, now: float) -> None:
        """Have another channel say the same. Raises StoreUnavailable."""
        with self.lock, self.database.transaction():
            self._post(note, [channel], now=now, number=posted.note_number, page=posted.page)
            self.database.connection.execute("UPDATE outbox SET handed = 1 WHERE id = ?", (posted.id,))

    def post_later(self, note: Note, channel: str, *, now: float, at: float) -> None:
        """Raises StoreUnavailable."""
        with self.lock, self.database.transaction():
            self._post(note, [channel], now=now, next_at=at)

    # What the fleet says once.

    def post_page(self, note: Note, channel: str, *, page: str, now: float) -> int:
        """Have a channel say what the fleet says once; its id. Raises StoreUnavailable."""
        with self.lock, self.database.transaction():
            self._post(note, [channel], now=now, page=page)
            return int(self.database.rows("SELECT max(id) FROM outbox")[0][0])

    def unsettled(self) -> list[Posted]:
        """List notes of the fleet of which it does not know what became of them."""
        with self.lock:
            return [_posted(row) for row in self.database.rows(f"{_POSTED} WHERE page != '' AND page_known = 0")]

    def settled(self, ids: Iterable[int]) -> None:
        """Raises StoreUnavailable."""
        with self.lock, self.database.transaction():
            self.database.connection.executemany(
                "UPDATE outbox SET page_known = 1 WHERE id = ?", [(id_,) for id_ in ids]
            )

    def withdraw(self, id_: int, *, why: str, now: float) -> None:
        """Drop a note unless it is being sent, or was. Raises StoreUnavailable."""
        self._write(
            "UPDATE outbox SET state = 'dropped', why = ?, done_at = ? WHERE id = ? AND state = 'queued'",
            (why, now, id_),
        )

    def pages(self) -> dict[str, str]:
        """By dedup key, this host's copies of what the fleet has."""
        with self.lock:
            return dict(self.database.rows("SELECT key, body FROM fleet_page"))

    def put_pages(self, texts: Mapping[str, str], gone: Iterable[str] = ()) -> None:
        """Raises StoreUnavailable."""
        with self.lock, self.database.transaction():
            self.database.connection.executemany("INSERT OR REPLACE INTO fleet_page VALUES (?, ?)", texts.items())
            self.database.connection.executemany("DELETE FROM fleet_page WHERE key = ?", [(key,) for key in gone])

    def pages_of(self) -> dict[int, str]:
        """By incident, the page of the fleet that it belongs to."""
        with self.lock:
            return dict(self.database.rows("SELECT incident, page FROM fleet_page_of"))

    def put_pages_of(self, pages: Mapping[int, str], gone: Iterable[int] = ()) -> None:
        """Raises StoreUnavailable."""
        with self.lock, self.database.transaction():
            self.database.connection.executemany("INSERT OR REPLACE INTO fleet_page_of VALUES (?, ?)", pages.items())
            self.database.connection.executemany(
                "DELETE FROM fleet_page_of WHERE incident = ?", [(each,) for each in gone]
            )

    def thread(self, channel: str, incident: int) -> str:
        with self.lock:
            rows = self.database.rows(
                "SELECT thread FROM thread WHERE channel = ? AND incident = ?", (channel, incident)
            )
        return str(rows[0][0]) if rows else ""

    def put_thread(self, channel: str, incident: int, thread: str) -> None:
        """Raises StoreUnavailable."""
        self._write("INSERT OR IGNORE INTO thread VALUES (?, ?, ?)", (channel, incident, thread))

    def channel(self, name: str) -> ChannelState:
        with self.lock:
            rows = self.database.rows("SELECT broken_since, tried_at, why FROM channel WHERE name = ?", (name,))
        return ChannelState(*rows[0]) if rows else ChannelState()

    def put_channel(self, name: str, state: ChannelState) -> None:
        """Raises StoreUnavailable."""
        self._write("INSERT OR REPLACE INTO channel VALUES (?, ?, ?, ?)", (name, *state))

    def _write(self, statement: str, parameters: tuple[object, ...]) -> None:
        with self.lock, self.database.transaction():
            self.database.connection.execute(statement, parameters)


def _incident_row(incident: Incident) -> tuple[object, ...]:
    return (incident.id, incident.phase, incident.severity, incident.opened_at, 0.0 if incident.live else incident.ended_at,
            incident_rows.incident_text(incident))  # fmt: skip


def _posted(row: tuple[Any, ...]) -> Posted:
    id_, number, channel, incident, kind, body, state, attempts, made_at, next_at, done_at, handed, why, page = row
    return Posted(
        id_,
        number,
        channel,
        incident,
        NoteKind(kind),
        incident_rows.note(body),
        state,
        attempts,
        made_at,
        next_at,
        done_at,
        bool(handed),
        why,
        page,
    )


_PEAKS = """
    SELECT max(messages), max(old) FROM queue_sample WHERE time < ?1 GROUP BY CAST(time / 86400 AS INTEGER)
"""
_INCIDENTS = "SELECT body FROM incident WHERE ended_at = 0 OR ended_at >= ? ORDER BY id"
_EVENTS = "SELECT time, what FROM incident_event WHERE incident = ? ORDER BY id"
_PUT_INCIDENT = (
    "INSERT OR REPLACE INTO incident (id, phase, severity, opened_at, ended_at, body) VALUES (?, ?, ?, ?, ?, ?)"
)
_POST = (
    "INSERT INTO outbox (note, channel, incident, kind, body, state, attempts, made_at, next_at, done_at, handed, why, page)"
    " VALUES (?, ?, ?, ?, ?, 'queued', 0, ?, ?, 0, 0, '', ?)"
)
_POSTED = (
    "SELECT id, note, channel, incident, kind, body, state, attempts, made_at, next_at, done_at, handed, why, page"
    " FROM outbox"
)
_SENDING = "UPDATE outbox SET state = 'sending', attempts = attempts + 1 WHERE id = ? AND state = 'queued'"
_DUE = "WHERE state = 'queued' AND channel = ?1 ORDER BY (kind = 'unsure' AND next_at > ?2), id LIMIT 1"
_PRUNE = (
    "DELETE FROM incident WHERE ended_at > 0 AND ended_at < ?",
    "DELETE FROM incident_event WHERE time < ? AND incident NOT IN (SELECT id FROM incident)",
    "DELETE FROM outbox WHERE made_at < ? AND state NOT IN ('queued', 'sending')",
)

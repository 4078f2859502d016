"""The store of the outside process: what the feeds told, and where each of them stands.

The only SQL about it. Synchronous, and for one thread at a time; what a value means is not known here.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

from parsers.feeds.asking import Trouble
from parsers.observation import Observation, Outcome
from policies.cadence import Standing
from sidecar.database import Database, Schema

SCHEMA = Schema(
    "schema_outside", "outside", frozenset({"feed", "measure", "alert", "incident", "outbox", "thread", "channel"})
)

ANSWERS_KEPT = 500
"""Answers of one feed that are kept as they came; the oldest go first."""
ANSWERS_SECONDS = 30 * 86_400.0
HISTORY_SECONDS = 400 * 86_400.0
"""A year and a month: what happened this time last year is a fair question."""
ANSWER_MAX = 1 << 20
"""Bytes of one answer that are kept."""


class RawAnswer(NamedTuple):
    asked: str
    """The question, without secrets, and how it was answered."""
    body: bytes
    at: float = 0.0
    """When it was written down; 0: not yet."""


class Known(NamedTuple):
    """What is known of one measure."""

    feed: str
    object: str
    measure: str
    outcome: Outcome
    """Of the last poll."""
    why: str
    polled_at: float
    value: float | None
    """Of the last poll that told one; still the last known value when the newest poll told none."""
    text: str
    at: float
    told_at: float
    """0 where none was ever told."""


class OutsideStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises StoreError; StoreUnavailable where that may pass."""
        return cls(Database.open(path, SCHEMA))

    @classmethod
    def open_read_only(cls, path: Path) -> Self:
        """Raises StoreError, also where there is none yet."""
        return cls(Database.open_read_only(path, SCHEMA))

    @property
    def recovered(self) -> str:
        """What happened to a store that was there before and is not used; "" where nothing did."""
        return self._database.recovered

    def close(self) -> None:
        self._database.close()

    def polled(
        self,
        feed: str,
        standing: Standing,
        observations: Iterable[Observation],
        answers: Iterable[RawAnswer],
        *,
        now: float,
    ) -> None:
        """Write down one poll, whole. Raises StoreUnavailable, and nothing is written; StoreDamaged."""
        write = self._database.connection.executemany
        with self._database.transaction():
            write(_PUT_STANDING, [_standing_row(feed, standing)])
            # In the order of the tables' keys: with thousands of objects each page is then read once a poll.
            seen = sorted(observations, key=lambda each: each[:3])
            told = [each for each in seen if each.outcome is Outcome.OK]
            write(_ADD_NEWS, [_history_row(each, now=now) for each in told if not each.at])  # as known before this poll
            write(_PUT_MEASURE, [_measure_row(each, now=now) for each in seen])
            write(_ADD_HISTORY, [_history_row(each, now=now) for each in told if each.at])
            kept = [(feed, now, each.asked, zlib.compress(each.body[:ANSWER_MAX])) for each in answers]
            write(_ADD_ANSWER, kept)
            write(_PRUNE_ANSWERS, [(feed, ANSWERS_KEPT)])

    def standing(self, feed: str) -> Standing:
        """Where a feed stands; the default where it was never asked."""
        rows = self._database.rows(_STANDING, (feed,))
        return _standing(*rows[0]) if rows else Standing()

    def known(self, feed: str | None = None) -> list[Known]:
        """What is known of every measure of a feed, or of all."""
        return [Known(*row)._replace(outcome=Outcome(row[3])) for row in self._database.rows(_KNOWN, (feed,))]

    def lasting(self, feed: str) -> set[tuple[str, str]]:
        """Tell (object, measure) of a feed whose last known value is other than 0."""
        return set(self._database.rows(_LASTING, (feed,)))

    def newest(self, feed: str, measures: Iterable[str]) -> list[Known]:
        """What is known of some measures of a feed; one that ends in a dot is a begin."""
        begins = [(feed, f"{measure}*" if measure.endswith(".") else measure) for measure in measures]
        rows = [row for begin in begins for row in self._database.rows(_NEWEST, begin)]
        return [Known(*row)._replace(outcome=Outcome(row[3])) for row in rows]

    def was(self, feed: str, object_: str, measure: str, value: float) -> bool:
        """Whether a measure ever had this value, as far as history goes back."""
        return bool(self._database.rows(_WAS, (feed, object_, measure, value)))

    def history(self, feed: str, object_: str, measure: str, *, since: float) -> list[tuple[float, float | None, str]]:
        """(time, value, text) of one measure, oldest first."""
        rows = self._database.rows(_HISTORY, (feed, object_, measure, since))
        return [(at, value, text) for at, value, text in rows]

    def keys_first_told(self) -> dict[tuple[str, str, str], float]:
        """(domain, measure, fingerprint) of DKIM keys -> since when, as far as history goes back."""
        return {(domain, measure, text): at for domain, measure, text, at in self._database.rows(_KEYS_FIRST_TOLD, ())}

    def answers(self, feed: str, limit: int) -> list[RawAnswer]:
        """The newest answers as they came, newest first."""
        rows = self._database.rows(_ANSWERS, (feed, limit))
        return [RawAnswer(asked, zlib.decompress(body), at) for asked, body, at in rows]

    def prune(self, *, now: float) -> int:
        """Delete what is too old; how many rows. Raises StoreUnavailable."""
        delete = self._database.connection.execute
        with self._database.transaction():
            answers = delete("DELETE FROM answer WHERE time < ?", (now - ANSWERS_SECONDS,)).rowcount
            return answers + delete("DELETE FROM history WHERE at < ?", (now - HISTORY_SECONDS,)).rowcount


def _standing_row(feed: str, standing: Standing) -> tuple[object, ...]:
    asked_at, told_at, next_at, failures, trouble, why, since = standing
    return (feed, asked_at, told_at, next_at, failures, trouble or "", why, since)


def _standing(asked_at: float, told_at: float, next_at: float, failures: int, *words: Any) -> Standing:
    trouble, why, since = words
    return Standing(asked_at, told_at, next_at, failures, Trouble(trouble) if trouble else None, why, since)


def _measure_row(seen: Observation, *, now: float) -> tuple[object, ...]:
    """Of what was not told only the outcome: the value known before still stands."""
    if seen.outcome is Outcome.OK:
        return (*seen[:3], seen.outcome, "", now, seen.value, seen.text, seen.at or now, now)
    return (*seen[:3], seen.outcome, seen.text, now, None, "", 0.0, 0.0)


def _history_row(seen: Observation, *, now: float) -> tuple[object, ...]:
    return (*seen[:3], seen.at or now, seen.value, seen.text)


_STANDING = "SELECT asked_at, told_at, next_at, failures, trouble, why, since FROM feed WHERE name = ?"
_PUT_STANDING = (
    "INSERT OR REPLACE INTO feed (name, asked_at, told_at, next_at, failures, trouble, why, since)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_KNOWN = (
    "SELECT feed, object, measure, outcome, why, polled_at, value, text, at, told_at FROM measure"
    " WHERE ?1 IS NULL OR feed = ?1 ORDER BY feed, object, measure"
)
_LASTING = "SELECT object, measure FROM measure WHERE feed = ? AND value <> 0"
_NEWEST = (
    "SELECT feed, object, measure, outcome, why, polled_at, value, text, at, told_at FROM measure"
    " WHERE feed = ? AND measure GLOB ?"
)
_WAS = "SELECT 1 FROM history WHERE feed = ? AND object = ? AND measure = ? AND value = ? LIMIT 1"
# A poll that is older than what is known already (a late day of a daily figure) changes nothing here.
_PUT_MEASURE = """
    INSERT INTO measure (feed, object, measure, outcome, why, polled_at, value, text, at, told_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (feed, object, measure) DO UPDATE SET
        outcome = excluded.outcome, why = excluded.why, polled_at = excluded.polled_at,
        value = iif(excluded.told_at > 0 AND excluded.at >= at, excluded.value, value),
        text = iif(excluded.told_at > 0 AND excluded.at >= at, excluded.text, text),
        told_at = iif(excluded.told_at > 0, excluded.told_at, told_at),
        at = max(at, excluded.at)
"""
# Of what is so now: when it changed, and once a day (UTC). The small table of what is known tells that.
_ADD_NEWS = """
    INSERT OR REPLACE INTO history (feed, object, measure, at, value, text)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (
        SELECT 1 FROM measure WHERE feed = ?1 AND object = ?2 AND measure = ?3 AND told_at > 0
        AND at <= ?4 AND at >= CAST(?4 / 86400 AS INTEGER) * 86400 AND value IS ?5 AND text = ?6
    )
"""
# Of a day that is told later, perhaps again: what history says of the time before it.
_ADD_HISTORY = """
    INSERT OR REPLACE INTO history (feed, object, measure, at, value, text)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (
        SELECT 1 FROM (
            SELECT at, value, text FROM history WHERE feed = ?1 AND object = ?2 AND measure = ?3 AND at <= ?4
            ORDER BY at DESC LIMIT 1
        ) WHERE at > ?4 - 86400.0 AND value IS ?5 AND text = ?6
    )
"""
_HISTORY = "SELECT at, value, text FROM history WHERE feed = ? AND object = ? AND measure = ? AND at >= ? ORDER BY at"
# The same words as in the index, which is used for nothing else.
_KEYS_FIRST_TOLD = (
    "SELECT object, measure, text, min(at) FROM history WHERE measure GLOB 'dkim-key-bits.*'"
    " GROUP BY object, measure, text"
)
_ADD_ANSWER = "INSERT INTO answer (feed, time, asked, body) VALUES (?, ?, ?, ?)"
_ANSWERS = "SELECT asked, body, time FROM answer WHERE feed = ? ORDER BY id DESC LIMIT ?"
_PRUNE_ANSWERS = (
    "DELETE FROM answer WHERE feed = ?1 AND id <= ("
    "SELECT id FROM answer WHERE feed = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"
)

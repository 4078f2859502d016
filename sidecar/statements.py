# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""Every statement about the store of core, and the migrations that make its tables.

The tables and columns are explained where they are made, in schema/.
"""

from typing import NamedTuple

from policies.commands import CHANGE_COLUMNS, Attempt, Received
from policies.sent_as import SentAs
from sidecar.database import Schema
from sidecar.store_rows import BrokenRow, LearnedRow, SubQueueRow


def _columns(row: type[NamedTuple]) -> str:
    return ", ".join(row._fields)


def _insert(table: str, columns: str, *, verb: str = "INSERT") -> str:
    return f"{verb} INTO {table} ({columns}) VALUES ({', '.join('?' * len(columns.split(', ')))})"


_HOLD_COLUMNS = "instance, queue_id, keys, since, by_way, confirmed, in_core, sender, recipients, arrival"

ADD_ATTEMPT = _insert("attempt", _columns(Attempt))
ADD_MESSAGE = _insert("message", _columns(Received))
REMOVE_MESSAGE = "UPDATE message SET removed = ? WHERE instance = ? AND queue_id = ? AND removed = 0"
ADD_CHANGE = _insert("change", ", ".join(CHANGE_COLUMNS))
ADD_CHANGE_MESSAGE = _insert("change_message", "change, instance, queue_id", verb="INSERT OR IGNORE")
PUT_CHECKPOINT = _insert("checkpoint", "source, token", verb="INSERT OR REPLACE")
PUT_SUBQUEUE = _insert("subqueue", _columns(SubQueueRow), verb="INSERT OR REPLACE")
PUT_HOLD = _insert("hold", _HOLD_COLUMNS, verb="INSERT OR REPLACE")
PUT_LEARNED = _insert("learned", _columns(LearnedRow), verb="INSERT OR REPLACE")

ADD_SENT_AS = (
    _insert("sent_as", _columns(SentAs)) + " ON CONFLICT DO UPDATE SET messages = messages + excluded.messages,"
    " mailings = mailings + excluded.mailings, one_click = one_click + excluded.one_click"
)
PUT_BROKEN = _insert("broken_authentication", _columns(BrokenRow), verb="INSERT OR REPLACE")

DROP_BROKEN = "DELETE FROM broken_authentication WHERE key = ?"
DROP_SUBQUEUE = "DELETE FROM subqueue WHERE key = ?"
DROP_HOLD = "DELETE FROM hold WHERE instance = ? AND queue_id = ?"

CHECKPOINT = "SELECT token FROM checkpoint WHERE source = ?"
SUBQUEUES = f"SELECT {_columns(SubQueueRow)} FROM subqueue"
HOLDS = f"SELECT {_HOLD_COLUMNS} FROM hold ORDER BY since"
LEARNED = f"SELECT {_columns(LearnedRow)} FROM learned"
BROKEN = f"SELECT {_columns(BrokenRow)} FROM broken_authentication ORDER BY since"
SENT_AS = f"SELECT {_columns(SentAs)} FROM sent_as WHERE hour >= ? ORDER BY hour DESC"
CHANGES = f"SELECT id, {', '.join(CHANGE_COLUMNS)} FROM change WHERE id > ? ORDER BY id LIMIT ?"
ATTEMPTS = f"SELECT {_columns(Attempt)} FROM attempt WHERE id > ? ORDER BY id LIMIT ?"
ATTEMPTS_SINCE = f"SELECT {_columns(Attempt)} FROM attempt WHERE time >= ? ORDER BY time, id"

PRUNE = tuple(
    f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE time < ? ORDER BY time LIMIT ?)"
    for table in ("attempt", "message")
)
PRUNE_AUDIT = (
    "UPDATE audit_retention SET kept_from = max(kept_from, ?1)",
    "DELETE FROM change_message WHERE change IN (SELECT id FROM change WHERE time < ?1 ORDER BY time LIMIT ?2)",
    "DELETE FROM change WHERE id IN (SELECT id FROM change WHERE time < ?1 ORDER BY time LIMIT ?2)",
)
"""In this order; the triggers of 0090-audit.sql let nothing else be deleted."""
PRUNE_CANARY_MESSAGES = "DELETE FROM canary_message WHERE at < ?"
PRUNE_SENT_AS = "DELETE FROM sent_as WHERE hour < ?"

SCHEMA = Schema(
    "schema", "core", frozenset({"checkpoint", "subqueue", "hold", "learned", "broken_authentication", "quota"})
)
"""The state of the engine is read from these tables at its start."""

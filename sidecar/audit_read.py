# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""What core's store says of what was done to mail: by time, by key, by kind, by whom, and of one message.

Reads in slices by number, so that an export of millions of rows takes no more memory than a page of them.
"""

import json
from collections.abc import Iterator
from typing import Final, NamedTuple

from policies.commands import CHANGE_COLUMNS, Change
from policies.stored_address import AddressForm
from sidecar import message_search
from sidecar.database import Database
from sidecar.message_search import Life

_AT_ONCE: Final = 1_000


class Wanted(NamedTuple):
    """Which rows; "" and 0 for all."""

    key: str = ""
    kind: str = ""
    by: str = ""
    """Of whom; "hand" is everybody but the engine and the policy service."""
    queue_id: str = ""
    since: float = 0.0
    """Seconds since the epoch, UTC."""


class Row(NamedTuple):
    id: int
    change: Change
    """With its messages, where it names any. What was done to messages has the log line that opened, or paused again,
    their sub-queue.
    """


class Story(NamedTuple):
    """All that is known of one queue id, which may have been used by several messages."""

    rows: list[Row]
    """What was done to it, in order."""
    lives: list[Life]
    """What the log says of it, newest first."""
    held_since: float
    """0: not on hold by us."""
    held_under: tuple[str, ...]


def newest(database: Database, wanted: Wanted, limit: int) -> list[Row]:
    """Give the last `limit` rows, oldest first. Raises StoreError."""
    return _slice(database, wanted, limit)[::-1]


def every(database: Database, wanted: Wanted) -> Iterator[Row]:
    """Give all rows, oldest first. Raises StoreError."""
    after = 0
    while rows := _slice(database, wanted, _AT_ONCE, after=after):
        yield from rows
        after = rows[-1].id


def of_message(database: Database, queue_id: str) -> Story:
    """Tell what was done to a message, and what the log says of it. Raises StoreError."""
    held = database.rows("SELECT since, keys FROM hold WHERE queue_id = ?", (queue_id,))
    since, keys = held[0] if held else (0.0, "[]")
    return Story(
        list(every(database, Wanted(queue_id=queue_id))),
        message_search.search(database, queue_id, addresses=AddressForm.NONE),
        since,
        tuple(json.loads(keys)),
    )


def _slice(database: Database, wanted: Wanted, limit: int, *, after: int | None = None) -> list[Row]:
    """The first after a number; without one the last, backwards."""
    where, values = ["id > ?"], list[object]([after or 0])
    order = "DESC" if after is None else "ASC"
    for condition, value in _conditions(wanted):
        where.append(condition)
        values += value
    columns = ", ".join(CHANGE_COLUMNS)
    query = f"SELECT id, {columns} FROM change WHERE {' AND '.join(where)} ORDER BY id {order} LIMIT ?"
    found = database.rows(query, (*values, limit))
    return [_row(database, number, Change(*columns)) for number, *columns in found]


def _conditions(wanted: Wanted) -> Iterator[tuple[str, list[object]]]:
    if wanted.key:
        yield "key = ?", [wanted.key]
    if wanted.kind:
        yield "kind = ?", [wanted.kind]
    if wanted.by == "hand":
        yield "by_whom NOT IN ('engine', 'policy')", []
    elif wanted.by:
        yield "by_whom = ?", [wanted.by]
    if wanted.queue_id:
        yield "id IN (SELECT change FROM change_message WHERE queue_id = ?)", [wanted.queue_id]
    if wanted.since:
        yield "time >= ?", [wanted.since]


def _row(database: Database, number: int, change: Change) -> Row:
    evidence = database.rows(_EVIDENCE, (change.key, number)) if change.key and not change.line else []
    line = evidence[0][0] if evidence else change.line
    return Row(number, change._replace(line=line, ids=_messages(database, number)))


# Of the same episode: what was opened by hand has no line, and must not get that of last month.
_EVIDENCE: Final = """
    SELECT line FROM change WHERE key = ?1 AND id < ?2 AND line != ''
    AND id >= (SELECT max(id) FROM change WHERE key = ?1 AND id < ?2 AND kind = 'opened') ORDER BY id DESC LIMIT 1
"""


def _messages(database: Database, number: int) -> tuple[tuple[str, str], ...]:
    rows = database.rows("SELECT instance, queue_id FROM change_message WHERE change = ?", (number,))
    return tuple((instance, queue_id) for instance, queue_id in rows)

# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""The events of a fleet's messages on a ClickHouse server, as message_search asks for them.

Knows that rows may be there twice until the server merges them, and that what is on hold now only its own host knows.
"""

from collections.abc import Sequence
from typing import Any, Final

from policies.commands import CHANGE_COLUMNS, Attempt, Change
from sidecar.clickhouse import ClickHouse, Value
from sidecar.message_search import CHANGES, Name, Place
from sidecar.shipped_tables import day_of

_KINDS: Final = {
    Name.QUEUE_ID: (("attempt", "attempt"), ("message", "message")),
    Name.MESSAGE_ID: (("message", "message_id"),),
    Name.SENDER: (("message", "sender"),),
    Name.RECIPIENT: (("attempt", "recipient"),),
    Name.PASSED_ON: (("attempt", "passed_on"),),
}
"""The tables in which a name occurs, and how `named` calls it there."""
_ROWS: Final = 10_000
"""Events of one queue id that are looked at."""

Row = tuple[str, str, int]
"""Day, store, id."""


class ServerEvents:
    """For one thread at a time."""

    def __init__(self, server: ClickHouse) -> None:
        self._server = server

    def places(self, name: Name, value: str, limit: int) -> list[Place]:
        newest: dict[Place, float] = {}
        for table, kind in _KINDS[name]:
            rows = self._named(value, kind, limit)
            for host, instance, queue_id, time in self._of(_PLACES.replace("{table}", table), rows):
                newest[host, instance, queue_id] = max(time, newest.get((host, instance, queue_id), 0.0))
        return sorted(newest, key=lambda place: newest[place], reverse=True)[:limit]

    def attempts(self, place: Place) -> list[Attempt]:
        host, instance, queue_id = place
        found = self._of(_ATTEMPTS, self._named(queue_id, "attempt", _ROWS))
        attempts = [Attempt(*row) for row in found]
        return [each for each in attempts if (each.host, each.instance) == (host, instance)]

    def messages(self, place: Place) -> list[tuple[Any, ...]]:
        host, instance, queue_id = place
        found = self._of(_MESSAGES, self._named(queue_id, "message", _ROWS))
        return sorted((row[2:] for row in found if row[:2] == (host, instance)), key=lambda row: row[0])

    def held_under(self, instance: str, queue_id: str) -> tuple[str, ...]:  # noqa: ARG002  # nobody told the server
        return ()

    def changes(self, place: Place, since: float, until: float) -> list[Change]:
        _host, instance, queue_id = place
        stores = sorted({store for _day, store, _id in self._named(queue_id, "attempt", _ROWS)})
        stores = stores or sorted({store for _day, store, _id in self._named(queue_id, "message", _ROWS)})
        if not stores:
            return []
        values: list[Value] = [
            day_of(since),
            day_of(until),
            since,
            until,
            *stores,
            queue_id,
            queue_id,
            instance,
            queue_id,
        ]
        return [Change(*row) for row in self._server.rows(_CHANGES.format(stores=_marks(stores)), values)]

    def _named(self, word: str, kind: str, limit: int) -> list[Row]:
        return [
            (str(day), str(store), int(number)) for day, store, number in self._server.rows(_NAMED, (word, kind, limit))
        ]

    def _of(self, statement: str, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
        """Ask for some rows: their days find the partitions, store and id the place in them."""
        if not rows:
            return []
        days = sorted({day for day, _, _ in rows})
        pairs = ", ".join("(?, ?)" for _ in rows)
        where = f"day IN ({_marks(days)}) AND (store, id) IN ({pairs})"
        return self._server.rows(statement.format(rows=where), [*days, *(value for row in rows for value in row[1:])])


def _marks(values: Sequence[Value]) -> str:
    return ", ".join("?" * len(values))


_NAMED: Final = """
    SELECT day, store, id FROM named WHERE word = ? AND kind = ? ORDER BY time DESC, id DESC LIMIT 1 BY store, id LIMIT ?
"""
_PLACES: Final = """
    SELECT host, instance, queue_id, max(time) FROM {table} WHERE {rows} GROUP BY host, instance, queue_id
"""
_ATTEMPTS: Final = f"""
    SELECT {", ".join(Attempt._fields)} FROM attempt WHERE {{rows}} ORDER BY store, id LIMIT 1 BY store, id
"""
_MESSAGES: Final = """
    SELECT host, instance, time, removed, message_id, sender, size, nrcpt, client, tenant FROM message
    WHERE {rows} ORDER BY removed DESC LIMIT 1 BY store, id
"""
_CHANGES: Final = f"""
    SELECT {", ".join(CHANGE_COLUMNS)} FROM change
    WHERE day >= ? AND day <= ? AND time >= ? AND time <= ? AND store IN ({{stores}}) AND (
        positionCaseInsensitive(line, ?) > 0 OR positionCaseInsensitive(why, ?) > 0
        OR arrayExists((one, id_there) -> one = ? AND id_there = ?, instances, queue_ids)
    ) ORDER BY store, id LIMIT 1 BY store, id LIMIT {CHANGES}
"""

# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""The sums of a fleet on a ClickHouse server as tables: the same words, and the same numbers, as history_read has of
core's store, but that every value has its name and "(other)" does not occur.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

import pandas as pd

from parsers.expression import Expression, fields_of
from policies.rollup import MEASURES
from sidecar.clickhouse import ClickHouse, Value
from sidecar.history_read import ALIASES, FLOW_COLUMNS, REFUSAL_COLUMNS, TIMES, Selection, fits
from sidecar.shipped_tables import day_of

_COLUMNS: Final[Mapping[str, str]] = {
    **{name: column.removeprefix("flow.") for name, column in FLOW_COLUMNS.items()},
    **REFUSAL_COLUMNS,
    "category": "substring(detail, 1, position(concat(detail, '.'), '.') - 1)",
}
_REFUSED: Final = ("attempts", "deferred", "bounced", "hard", "block", "expired")


class ServerHistory:
    """For one thread at a time."""

    def __init__(self, server: ClickHouse) -> None:
        self._server = server

    def sums(self, selection: Selection) -> pd.DataFrame:
        by = tuple(dict.fromkeys(ALIASES.get(name, name) for name in selection.by if name not in TIMES))
        measures = _REFUSED if selection.of_refusals else MEASURES
        where, parameters = self._where(selection)
        keys = ", ".join(["begin_", *(f"{name}_" for name in by)])
        columns = [f"{selection.begin} AS begin_", *(f"{_COLUMNS[name]} AS {name}_" for name in by)]
        summed = ", ".join(f"sum({name})" for name in measures)
        rows = self._server.rows(
            f"SELECT {', '.join(columns)}, {summed} FROM {selection.table} WHERE {where}"
            f" GROUP BY {keys} HAVING sum(attempts) + sum(expired) != 0 ORDER BY {keys}",
            parameters,
        )
        return pd.DataFrame(rows, columns=["begin", *by, *measures])

    def flow_of(self, queue_id: str, message_id: str) -> tuple[str, ...]:
        forms = (message_id, f"<{message_id.strip('<>')}>")
        known = self._server.rows(_QUEUE_IDS, forms) if message_id else []
        queue_ids = [each for each in {queue_id, *(str(row[0]) for row in known)} if each]
        rows = self._server.rows(_FLOW_OF.format(words=_marks(queue_ids)), queue_ids) if queue_ids else []
        return tuple(map(str, rows[0])) if rows else ()

    def changes(self, since: float, until: float) -> list[tuple[float, str, str, str]]:
        days = day_of(since), day_of(until)
        rows = self._server.rows(_CHANGES, (*days, since, until))
        return [(float(time), str(kind), str(key), str(why)) for time, kind, key, why in rows]

    def _where(self, selection: Selection) -> tuple[str, list[Value]]:
        """As SQL. What fits is asked of the values that there are, so that a condition means the same everywhere."""
        where = "day >= ? AND day <= ? AND begin >= ? AND begin < ?"
        parameters: list[Value] = [day_of(selection.since), day_of(selection.until), selection.since, selection.until]
        if selection.of_refusals:
            where += " AND status != 'sent'"
        if selection.where is not None:
            chosen, values = self._chosen(selection, selection.where, where, parameters)
            return f"{where} AND {chosen}", [*parameters, *values]
        return where, parameters

    def _chosen(
        self, selection: Selection, expression: Expression, where: str, parameters: Sequence[Value]
    ) -> tuple[str, list[Value]]:
        named = {ALIASES.get(name, name) for name in fields_of(expression)}
        names = [name for name in _COLUMNS if name in named]
        columns = ", ".join(_COLUMNS[name] for name in names)
        condition = cache(fits(expression, names))
        rows = self._server.rows(f"SELECT DISTINCT {columns} FROM {selection.table} WHERE {where}", parameters)
        chosen = [tuple(map(str, row)) for row in rows if condition(row)]
        if not chosen:
            return "0", []
        values = ", ".join(f"({_marks(names)})" for _ in chosen)
        return f"({columns}) IN ({values})", [value for row in chosen for value in row]


def _marks(values: Sequence[Value]) -> str:
    return ", ".join("?" * len(values))


_QUEUE_IDS: Final = """
    SELECT DISTINCT queue_id FROM message WHERE (store, id) IN (
        SELECT store, id FROM named WHERE kind = 'message_id' AND word IN (?, ?)
    )
"""
_FLOW_OF: Final = """
    SELECT provider, sender_domain, service, host, tenant, campaign, segment FROM attempt
    WHERE passed_on = '' AND (store, id) IN (SELECT store, id FROM named WHERE kind = 'attempt' AND word IN ({words}))
    ORDER BY time DESC, id DESC LIMIT 1
"""
_CHANGES: Final = """
    SELECT time, kind, key, why FROM (SELECT DISTINCT store, id, time, kind, key, why FROM change
    WHERE day >= ? AND day <= ? AND kind IN ('opened', 'postfix') AND time >= ? AND time < ?) ORDER BY time, store, id
"""

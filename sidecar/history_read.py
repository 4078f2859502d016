# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""The sums of core's store as tables: which mail, over which time, by what.

The only SQL that reads them from SQLite; history_server has the same of a fleet. Days are those of UTC; what spans at
most a week is read by the hour.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Protocol

import pandas as pd

from parsers.condition import Condition, by_key, compile_expression
from parsers.expression import Expression, Field, Fields, FieldType, fields_of, parse
from policies.rollup import ALL, DAY, HOUR, MEASURES
from policies.stream import header_word
from sidecar.database import Database

FLOW_COLUMNS: Final[Mapping[str, str]] = {
    "provider": "flow.provider",
    "domain": "flow.sending_domain",
    "transport": "flow.transport",
    "host": "flow.host",
    "tenant": "flow.tenant",
    "campaign": "flow.campaign",
    "segment": "flow.segment",
}
REFUSAL_COLUMNS: Final[Mapping[str, str]] = {
    "category": "iif(instr(detail, '.'), substr(detail, 1, instr(detail, '.') - 1), detail)",
    "detail": "detail",
    "rule": "rule",
    "bounce": "bounce",
    "status": "status",
}
TIMES: Final = {"hour": HOUR, "day": DAY}
DIMENSIONS: Final = (*FLOW_COLUMNS, *REFUSAL_COLUMNS, *TIMES)
"""Words that a report can be made by."""
ALIASES: Final = {"sasl_username": "tenant", "sending_domain": "domain", "ip": "transport", "template": "rule"}
FIELDS: Final[Fields] = {name: Field(FieldType.TEXT) for name in (*FLOW_COLUMNS, *REFUSAL_COLUMNS, *ALIASES)}
"""Fields of `--where`."""
BY_HOUR_MAX: Final = 7 * DAY + HOUR
"""Seconds up to which a span is read by the hour."""


class Selection(NamedTuple):
    """Which mail."""

    since: int
    """Seconds since the epoch, the begin of an hour, of a day in a longer span."""
    until: int
    by: tuple[str, ...] = ()
    """Of DIMENSIONS."""
    where: Expression | None = None
    by_day: bool | None = None
    """Read the sums of days; None: as the span has it."""
    whole: bool = False
    """One sum for the whole span: `begin` is that of the span."""

    @property
    def table(self) -> str:
        by_day = self.until - self.since > BY_HOUR_MAX if self.by_day is None else self.by_day
        return "daily" if by_day else "hourly"

    @property
    def begin(self) -> str:
        """As SQL: what rows are told apart by."""
        return str(self.since) if self.whole else "begin"

    @property
    def of_refusals(self) -> bool:
        """Whether it is about what refused, of which sums know only how many attempts there were."""
        return bool(self.fields & REFUSAL_COLUMNS.keys())

    @property
    def fields(self) -> set[str]:
        named = fields_of(self.where) if self.where else set()
        return {ALIASES.get(name, name) for name in (*self.by, *named)} - TIMES.keys()


class History(Protocol):
    """Where a report reads from: core's store, or a server that many hosts send theirs to."""

    def sums(self, selection: Selection) -> pd.DataFrame:
        """Give the sums by `begin` and the selection's dimensions; of refusals attempts, deferred and bounced ones
        alone. Raises StoreError, ServerError.
        """

    def flow_of(self, queue_id: str, message_id: str) -> tuple[str, ...]:
        """Give the values of FLOW_COLUMNS of a message's last attempt, () where none is known. Raises as `sums`."""

    def changes(self, since: float, until: float) -> list[tuple[float, str, str, str]]:
        """Give time, kind, key and reason of what may explain a change. Raises as `sums`."""


class StoredHistory:
    """Core's store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sums(self, selection: Selection) -> pd.DataFrame:
        return sums(self._database, selection)

    def flow_of(self, queue_id: str, message_id: str) -> tuple[str, ...]:
        found = self._database.rows(_ATTEMPT_OF, (queue_id, message_id, f"<{message_id.strip('<>')}>"))
        return tuple(map(str, found[0])) if found else ()

    def changes(self, since: float, until: float) -> list[tuple[float, str, str, str]]:
        return self._database.rows(_EVENTS, (since, until))


def where(text: str) -> Expression:
    """Read a condition on the mail. Raises ExpressionError."""
    return parse(text, FIELDS)


def span(last: int, *, now: float) -> tuple[int, int]:
    """Give since and until of the last so many seconds: whole hours, or whole days where it is more than a week.

    The hour or day of now is part of it and counts as one.
    """
    width = HOUR if last <= BY_HOUR_MAX - HOUR else DAY
    until = (int(now) // width + 1) * width
    return until - max(last, width) // width * width, until


def sums(database: Database, selection: Selection) -> pd.DataFrame:
    """Give the sums by `begin` and the selection's dimensions; of refusals attempts, deferred and bounced ones alone.

    Raises StoreError.
    """
    by = tuple(dict.fromkeys(ALIASES.get(name, name) for name in selection.by if name not in TIMES))
    if selection.where is None and len(by) < 2 and not selection.of_refusals:
        return _of_values(database, selection, by)
    return _of_refusals(database, selection, by) if selection.of_refusals else _of_flows(database, selection, by)


def _of_values(database: Database, selection: Selection, by: tuple[str, ...]) -> pd.DataFrame:
    dimension = FLOW_COLUMNS[by[0]].removeprefix("flow.") if by else ALL
    parameters = (dimension, selection.since, selection.until)
    measured, group = MEASURES, ""
    if selection.whole:
        measured, group = tuple(f"sum({name})" for name in MEASURES), "GROUP BY value"
    statement = _VALUES.format(begin=selection.begin, table=selection.table, measured=", ".join(measured), group=group)
    rows = database.rows(statement, parameters)
    frame = pd.DataFrame(rows, columns=["begin", *(by or ("value",)), *MEASURES])
    return frame if by else frame.drop(columns="value")


def _of_flows(database: Database, selection: Selection, by: tuple[str, ...]) -> pd.DataFrame:
    chosen = ""
    if selection.where is not None:
        chosen = f"AND flow IN (SELECT id FROM {_chosen(database, selection, selection.where)})"
    statement = _FLOWS.format(
        begin=selection.begin,
        table=selection.table,
        keys="".join(f", {FLOW_COLUMNS[name]} AS {name}_" for name in by),
        measured=", ".join(f"sum({name})" for name in MEASURES),
        chosen=chosen,
        group="".join(f", {name}_" for name in by),
    )
    rows = database.rows(statement, (selection.since, selection.until))
    return pd.DataFrame(rows, columns=["begin", *by, *MEASURES])


def _chosen(database: Database, selection: Selection, expression: Expression) -> str:
    """Name a table of this connection with the flows that fit."""
    since = selection.since // DAY * DAY
    table = f"chosen_{hash((expression, since)) & (1 << 63) - 1}"
    if database.rows("SELECT 1 FROM temp.sqlite_schema WHERE name = ?", (table,)):
        return table
    names = [name for name in FLOW_COLUMNS if name in {ALIASES.get(each, each) for each in fields_of(expression)}]
    condition = cache(fits(expression, names))
    columns = ", ".join(FLOW_COLUMNS[name] for name in names)
    rows = database.rows(f"SELECT id, {columns} FROM flow WHERE last_day >= ?", (since,))
    found = [(row[0],) for row in rows if condition(row[1:])]
    database.connection.execute(f"CREATE TEMP TABLE {table} (id INTEGER PRIMARY KEY)")
    with database.transaction():
        database.connection.executemany(f"INSERT INTO {table} VALUES (?)", found)
    return table


def _of_refusals(database: Database, selection: Selection, by: tuple[str, ...]) -> pd.DataFrame:
    columns = {**FLOW_COLUMNS, **REFUSAL_COLUMNS}
    names = [name for name in columns if name in selection.fields]
    of_flow = any(name in FLOW_COLUMNS for name in names)
    statement = _REFUSALS.format(
        begin=selection.begin,
        table=selection.table,
        keys="".join(f", {columns[name]} AS {name}_" for name in names),
        measured=", ".join(f"{how} AS {name}" for name, how in _REFUSED.items()),
        joined="JOIN flow ON flow.id = flow" if of_flow else "",
        group="".join(f", {name}_" for name in names),
    )
    rows = database.rows(statement, (selection.since, selection.until))
    if selection.where is not None:
        condition = fits(selection.where, names)
        rows = [row for row in rows if condition(row[1:])]
    frame = pd.DataFrame(rows, columns=["begin", *names, *_REFUSED])
    return frame.groupby(["begin", *by], as_index=False, sort=False)[list(_REFUSED)].sum()


def _reader(field: str) -> Any:
    return by_key(ALIASES.get(field, field))


def fits(expression: Expression, names: Sequence[str]) -> Callable[[tuple[Any, ...]], bool]:
    """Tell whether values of some dimensions fit. What is not known is "" in a store, and missing in a condition."""
    condition: Condition[Mapping[str, Any]] = compile_expression(expression, _reader)
    return lambda values: condition({name: value or None for name, value in zip(names, values, strict=False)})


def complaints(history: History, outside: Database, selection: Selection) -> pd.DataFrame:
    """Give trusted complaints as rows with the selection's dimensions and `complaints`; "" where the report does not
    tell, and no event of the message is left that does. Of refusals there are none. Raises StoreError.
    """
    names = [name for name in FLOW_COLUMNS if name in selection.fields]
    found = []
    if not selection.of_refusals:
        condition = fits(selection.where, names) if selection.where is not None else None
        for row in outside.rows(_COMPLAINTS, (selection.since, selection.until)):
            told = _told(history, *row[1:])
            values = tuple(told[name] for name in names)
            if condition is None or condition(values):
                found.append((int(row[0]), *values, 1))
    frame = pd.DataFrame(found, columns=["begin", *names, "complaints"])
    width = HOUR if selection.table == "hourly" else DAY
    frame["begin"] = selection.since if selection.whole else frame["begin"].astype("int64") // width * width
    return frame


def _told(history: History, *row: Any) -> dict[str, str]:
    provider, domain, own_id, feedback_id, message_id, queue_id = row
    told = dict.fromkeys(FLOW_COLUMNS, "")
    if message_id or queue_id:
        told |= dict(zip(told, history.flow_of(queue_id, message_id), strict=False))
    campaign = own_id or header_word("feedback-id", feedback_id)
    known = {"provider": provider, "domain": domain, "campaign": campaign}
    return told | {name: told[name] or value for name, value in known.items()}


def events(history: History, outside: Database | None, since: float, until: float) -> pd.DataFrame:
    """Give what happened that may explain a change: sub-queues that opened, reloads of Postfix, listings."""
    rows: list[tuple[Any, ...]] = [*history.changes(since, until)]
    if outside is not None:
        rows += outside.rows(_LISTINGS, (since, until))
    return pd.DataFrame(rows, columns=["time", "kind", "about", "why"]).sort_values("time", kind="stable")


_VALUES: Final = """
    SELECT {begin}, value, {measured} FROM {table}_value WHERE dimension = ? AND begin >= ? AND begin < ? {group}
"""
_FLOWS: Final = """
    SELECT {begin} AS begin_{keys}, {measured} FROM {table} JOIN flow ON flow.id = flow
    WHERE begin >= ? AND begin < ? {chosen} GROUP BY begin_{group}
"""
_REFUSALS: Final = """
    SELECT {begin} AS begin_{keys}, {measured} FROM {table}_refusal JOIN refusal ON refusal.id = refusal {joined}
    WHERE begin >= ? AND begin < ? GROUP BY begin_{group}
"""
_REFUSED: Final = {
    "attempts": "sum(iif(status = 'expired', 0, attempts))",
    "deferred": "sum(iif(status IN ('deferred', 'SOFTBOUNCE'), attempts, 0))",
    "bounced": "sum(iif(status = 'bounced', attempts, 0))",
    "hard": "sum(iif(status = 'bounced' AND bounce = 'hard', attempts, 0))",
    "block": "sum(iif(status = 'bounced' AND bounce = 'block', attempts, 0))",
    "expired": "sum(iif(status = 'expired', attempts, 0))",
}
_COMPLAINTS: Final = """
    SELECT at, provider, sending_domain, own_id, feedback_id, message_id, queue_id FROM report_event
    WHERE kind = 'complaint' AND trusted AND at >= ? AND at < ?
"""
_ATTEMPT_OF: Final = """
    SELECT provider, sender_domain, service, host, tenant, campaign, segment FROM attempt
    WHERE passed_on = '' AND queue_id IN (
        SELECT ?1 WHERE ?1 != '' UNION SELECT queue_id FROM message WHERE message_id IN (?2, ?3) AND message_id != ''
    ) ORDER BY id DESC LIMIT 1
"""
_EVENTS: Final = """
    SELECT time, kind, key, why FROM change WHERE kind IN ('opened', 'postfix') AND time >= ? AND time < ? ORDER BY time
"""
_LISTINGS: Final = """
    SELECT at, 'listed', object, substr(measure, 8) FROM history
    WHERE measure LIKE 'listed.%' AND value > 0 AND at >= ? AND at < ? ORDER BY at
"""

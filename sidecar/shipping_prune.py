"""Drops partitions of a ClickHouse server that are too old: a table of Debian's server has no retention of its own."""

from datetime import UTC, date, datetime, timedelta
from typing import Final

from sidecar.clickhouse import ClickHouse

_EVENTS: Final = ("attempt", "message", "change", "named")


def prune(server: ClickHouse, *, now: float, events: int, hours: int, days: int) -> list[str]:
    """Drop what ended more than so many days ago; what was dropped. Another host may do the same at the same moment.

    Raises ServerError.
    """
    today = datetime.fromtimestamp(now, UTC).date()
    kept = {**dict.fromkeys(_EVENTS, events), "hourly": hours, "daily": days}
    rows = server.rows(
        "SELECT DISTINCT table, partition FROM system.parts WHERE database = currentDatabase() AND active"
    )
    dropped = []
    for table, partition in sorted(rows):
        if table in kept and _last_day(partition) < today - timedelta(days=kept[table]):
            name = f"'{partition}'" if "-" in partition else partition
            server.run(f"ALTER TABLE {table} DROP PARTITION {name}")
            dropped.append(f"{table} {partition}")
    return dropped


def _last_day(partition: str) -> date:
    """Of a day as 2026-03-02, or of a month as 202603."""
    if "-" in partition:
        return date.fromisoformat(partition)
    year, month = divmod(int(partition), 100)
    return date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)

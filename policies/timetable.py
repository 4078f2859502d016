"""When a report is due: each day, or each Monday, at a time of the wall clock.

Knows nights in which the clock jumps: a time that is skipped counts as soon as it is past, one that comes twice counts once.
"""

import re
from datetime import datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import Final

_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


class Schedule(StrEnum):
    NEVER = "never"
    DAILY = "daily"
    WEEKLY = "weekly"
    """On Mondays."""


def clock(text: str) -> time:
    """Read a time of day, as "07:30". Raises ValueError."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(f"found {text!r}, wanted a time of day from 00:00 to 23:59, as 07:30")
    return time(int(found[1]), int(found[2]))


def latest_due(schedule: Schedule, at: time, *, now: float, zone: tzinfo) -> float:
    """Give the last time that a report was due, seconds since the epoch; 0 where none ever is."""
    if schedule is Schedule.NEVER:
        return 0.0
    today = datetime.fromtimestamp(now, zone).date()
    for days in range(9):
        day = today - timedelta(days=days)
        due = datetime.combine(day, at, zone).timestamp()
        if due <= now and (schedule is Schedule.DAILY or day.weekday() == 0):
            return due
    raise AssertionError("a week has a Monday")


def covered(schedule: Schedule) -> int:
    """Seconds that a report of a schedule is about."""
    return 86_400 * (7 if schedule is Schedule.WEEKLY else 1)

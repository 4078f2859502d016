"""Times, shares and numbers as people read them. Knows no page and no clock."""

from datetime import UTC, datetime
from typing import NamedTuple


def stamp(at: float) -> str:
    """A moment, UTC; "" for none."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""


def day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%A, %-d %B %Y")


def clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def span(seconds: float) -> str:
    """A length of time: 42 s, 5 min, 3.2 h, 2.0 d. The page's script counts on in the same words."""
    seconds = max(seconds, 0.0)
    for limit, divisor, unit, digits in ((120, 1, "s", 0), (7200, 60, "min", 0), (172_800, 3600, "h", 1)):
        if seconds < limit:
            return f"{_short(seconds / divisor, digits)} {unit}"
    return f"{_short(seconds / 86_400, 1)} d"


def _short(number: float, digits: int) -> str:
    return f"{number:.{digits}f}".removesuffix(".0")


def relative(at: float, now: float) -> str:
    """A moment as seen from now: "5 min ago", "in 42 s"."""
    if not at:
        return "never"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def share(part: float, whole: float) -> str:
    """A percentage that is never better than the truth: 99.96 % is not 100 %."""
    if not whole:
        return "–"
    return percent(part / whole)


def percent(value: float) -> str:
    """A second digit below one percent, where complaints are told apart; nothing is rounded to all or to nothing."""
    if not 0.0 < value < 1.0:
        return f"{value:.0%}"
    text = f"{value:.2%}" if value < 0.01 else f"{value:.1%}"
    return {"100.0%": ">99.9%", "0.00%": "<0.01%"}.get(text, text)


def count(number: float) -> str:
    """Thousands apart by a narrow space."""
    return f"{int(number):,}".replace(",", "\u202f")


def pace(per_second: float | None) -> str:
    """Messages in a time in which there is at least one."""
    if not per_second:
        return "0"
    for seconds, unit in ((1, "s"), (60, "min")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:.3g}/{unit}"
    return f"{per_second * 3600:.3g}/h"


class Mark(NamedTuple):
    """A judgement that is told by a word and a sign, and by a colour only besides."""

    sign: str
    word: str
    tone: str
    """good, bad, warn, calm: class of the style sheet."""
    why: str = ""

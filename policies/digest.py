"""The daily digest: one message with the incidents of the day, how fast they were noticed and over, and who sent most.

Knows what goes into it; when it leaves, and that it leaves once, is for the lookout.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from parsers.feeds.dnsbl import Severity
from policies.figures import Kind
from policies.incidents import Incident
from policies.note import Note, NoteKind, span
from policies.timeliness import DETECT_GOAL, RECOVER_GOAL, WEEK, Span, span_of
from policies.windows import DAY, Counts, Object

LINES: Final = 12
TOP: Final = 5


def due(at: str) -> int:
    """Read a time of day as HH:MM, UTC, into minutes after midnight. Raises ValueError."""
    hours, colon, minutes = at.partition(":")
    plain = colon and all(len(part) == 2 and part.isascii() and part.isdecimal() for part in (hours, minutes))
    if not plain or int(hours) > 23 or int(minutes) > 59:
        raise ValueError(f"found {at!r}, wanted a time of day in UTC, as 07:00")
    return int(hours) * 60 + int(minutes)


def day_of(now: float, minute: int) -> int:
    """Number the days that begin at a minute after midnight: a digest is due once in each."""
    return int((now - minute * 60) // DAY)


def digest(incidents: Iterable[Incident], counted: Mapping[Object, Counts], *, key: str, link: str, now: float) -> Note:
    """Sum up the last 24 hours. `incidents`: at least of the last week; `counted`: of the last 24 hours."""
    known = list(incidents)
    today = span_of(known, begin=now - DAY, end=now + 1)
    open_ = [each for each in known if each.live]
    shown = sorted((each for each in known if each.live or each.opened_at >= now - DAY), key=lambda each: -each.id)
    mail = next((counts for (kind, _), counts in counted.items() if kind == Kind.HOST), Counts())
    title = f"{_many(today.incidents, 'incident')} in 24 hours, {len(open_)} open now; {_fared(mail)}"
    return Note(
        NoteKind.DIGEST,
        0,
        key,
        Severity.INFO,
        title,
        "digest",
        now,
        now - DAY,
        0.0,
        link=link,
        alerts=_lines([_told(each) for each in shown]),
        scope=(*_speed("24 hours", today), *_speed("7 days", span_of(known, begin=now - WEEK, end=now + 1))),
        victims=tuple(_top(counted, Kind.DOMAIN)),
        evidence=tuple(_top(counted, Kind.PROVIDER)),
    )


def _told(each: Incident) -> str:
    took = each.recover_seconds
    ended = "still open" if took is None else f"over after {span(took)}"
    return f"#{each.id} {each.severity}: {each.title} (noticed after {span(each.detect_seconds)}, {ended})"


def _lines(lines: list[str]) -> tuple[str, ...]:
    more = len(lines) - LINES
    return (*lines[:LINES], f"and {more} more") if more > 0 else tuple(lines)


def _speed(name: str, told: Span) -> Iterable[str]:
    if told.detect_median is not None:
        yield (
            f"{name}: noticed after {span(told.detect_median)} (median),"
            f" {told.detect_in_time} of {told.incidents} within {span(DETECT_GOAL)}"
        )
    if told.recover_median is not None:
        over = told.incidents - told.open
        yield (
            f"{name}: over after {span(told.recover_median)} (median),"
            f" {told.recover_in_time} of {over} within {span(RECOVER_GOAL)}"
        )


def _top(counted: Mapping[Object, Counts], kind: Kind) -> Iterable[str]:
    found = [(name, counts) for (of, name), counts in counted.items() if of == kind and counts.attempts]
    for name, counts in sorted(found, key=lambda each: (-each[1].attempts, each[0]))[:TOP]:
        yield f"{name}: {_fared(counts)}"


def _fared(counts: Counts) -> str:
    if not counts.attempts:
        return "no mail was sent"
    accepted = f"{counts.sent / counts.ended:.2%} of {counts.ended} accepted" if counts.ended else "none was accepted"
    return f"{accepted}, {counts.deferred / counts.attempts:.2%} of attempts put off, {counts.hard} hard bounces"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

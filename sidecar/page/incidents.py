"""Incidents: a time line of the last week, all of them by day, and one with its evidence.

Knows what the outside store keeps of each; when people are told is decided in policies.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from policies.incidents import Incident, Phase
from sidecar import incident_rows
from sidecar.lookout import runbook
from sidecar.page.listing import Slice, Wish
from sidecar.page.scene import Scene
from sidecar.page.words import Mark, day

DAYS = 7
PER_PAGE = 50
WIDTH, LANE = 700, 12
"""Of the time line, in units of its drawing."""
_LANES_MAX = 14
SEVERITIES: Mapping[str, Mark] = {
    "critical": Mark("✗", "critical", "bad"),
    "error": Mark("✗", "error", "bad"),
    "warning": Mark("!", "warning", "warn"),
    "info": Mark("i", "info", "calm"),
}
PHASES: Mapping[str, Mark] = {
    Phase.OPEN: Mark("●", "open", "bad"),
    Phase.CALM: Mark("◐", "calm", "warn", "no alert fires any more; not yet for long enough"),
    Phase.RESOLVED: Mark("○", "resolved", "good"),
    Phase.CLOSED: Mark("○", "closed", "good", "by hand"),
}


class Bar(NamedTuple):
    """One incident on the time line."""

    incident: Incident
    x: float
    y: float
    width: float
    tone: str


class TimeLine(NamedTuple):
    bars: list[Bar]
    left_out: int
    days: list[tuple[float, str]]
    """(x, name) of midnights."""
    height: float


class Listed(NamedTuple):
    wish: Wish
    line: TimeLine
    days: list[tuple[str, list[Incident]]]
    """By the day on which they were noticed, newest first."""
    slice: Slice[Incident]


class Told(NamedTuple):
    """One note that went out, or did not."""

    at: float
    kind: str
    channel: str
    state: str
    why: str


class One(NamedTuple):
    incident: Incident | None
    number: str
    runbook: str
    events: list[tuple[float, str]]
    told: list[Told]


def listed(scene: Scene) -> Listed:
    outside = scene.stores.outside
    wish = Wish.read(scene.path, scene.query, (), filters=("phase",))
    live = 1 if wish.filter("phase") == "live" else 0
    total = next((int(number) for (number,) in outside.rows(_COUNT, (live,))), 0)
    page = min(wish.page, max(1, -(-total // PER_PAGE)))
    begin = (page - 1) * PER_PAGE
    found = [incident_rows.incident(body) for (body,) in outside.rows(_PAGE, (live, PER_PAGE, begin))]
    pages = Slice(
        found,
        total,
        begin + 1 if found else 0,
        wish.url(page=page - 1) if page > 1 else "",
        wish.url(page=page + 1) if begin + PER_PAGE < total else "",
    )
    recent = outside.rows(_RECENT, (scene.now - DAYS * 86_400.0, 500))
    return Listed(
        wish, time_line([incident_rows.incident(body) for (body,) in recent], now=scene.now), _by_day(found), pages
    )


def _by_day(found: Sequence[Incident]) -> list[tuple[str, list[Incident]]]:
    days: dict[str, list[Incident]] = {}
    for incident in found:
        days.setdefault(day(incident.opened_at), []).append(incident)
    return list(days.items())


def time_line(found: Sequence[Incident], *, now: float) -> TimeLine:
    """Place each in the first lane that is free; the newest first where there are too many."""
    since = now - DAYS * 86_400.0
    lanes: list[float] = []
    bars = []
    for incident in sorted(found, key=lambda each: each.began_at):
        begin = max(incident.began_at, since)
        end = now if incident.live else min(incident.ended_at, now)
        width = max(4.0, (end - begin) / (now - since) * WIDTH)
        x = min((begin - since) / (now - since) * WIDTH, WIDTH - width)
        lane = next((number for number, free in enumerate(lanes) if free <= x), len(lanes))
        if lane == len(lanes):
            lanes.append(0.0)
        lanes[lane] = x + width + 3
        tone = SEVERITIES[incident.severity].tone
        bars.append(Bar(incident, round(x, 1), lane * LANE + 18.0, round(width, 1), tone))
    shown = [bar for bar in bars if bar.y < _LANES_MAX * LANE + 18]
    first = int(since // 86_400 + 1)
    midnights = [number * 86_400.0 for number in range(first, first + DAYS)]
    names = [(round((at - since) / (now - since) * WIDTH, 1), day(at).partition(",")[0][:3]) for at in midnights]
    return TimeLine(shown, len(bars) - len(shown), names, min(len(lanes), _LANES_MAX) * LANE + 24.0)


def one(scene: Scene) -> One:
    outside = scene.stores.outside
    number = int(scene.about) if scene.about.isdecimal() and len(scene.about) < 18 else 0
    rows = outside.rows("SELECT body FROM incident WHERE id = ?", (number,))
    if not rows:
        return One(None, scene.about, "", [], [])
    incident = incident_rows.incident(rows[0][0])
    events = [(time, what) for time, what in outside.rows(_EVENTS, (number,))]
    told = [_told(row) for row in outside.rows(_TOLD, (number,))]
    return One(incident, scene.about, runbook(scene.config.alerts.runbooks, incident.runbook), events, told)


def _told(row: tuple[Any, ...]) -> Told:
    made_at, done_at, kind, channel, state, why = row
    return Told(done_at or made_at, kind, channel, state, why)


_LIVE = "(?1 = 0 OR phase IN ('open', 'calm'))"
_COUNT = f"SELECT count(*) FROM incident WHERE {_LIVE}"  # noqa: S608  # names of ours
_PAGE = f"SELECT body FROM incident WHERE {_LIVE} ORDER BY id DESC LIMIT ?2 OFFSET ?3"  # noqa: S608  # names of ours
_RECENT = "SELECT body FROM incident WHERE ended_at = 0 OR ended_at >= ? ORDER BY id DESC LIMIT ?"
_EVENTS = "SELECT time, what FROM incident_event WHERE incident = ? ORDER BY id"
_TOLD = "SELECT made_at, done_at, kind, channel, state, why FROM outbox WHERE incident = ? ORDER BY id"

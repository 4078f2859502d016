"""One domain or one address: everything that anybody told of it, feed by feed, and how the numbers went.

Knows no measure by name.
"""

from typing import NamedTuple

from policies.figures import Kind
from sidecar.page import measures, subqueues, tallies
from sidecar.page.judgement import Told
from sidecar.page.scene import Scene
from sidecar.page.spark import Spark
from sidecar.page.subqueues import Shown
from sidecar.page.tallies import Flow

DAYS = 30
_COURSES_MAX = 60


class Line(NamedTuple):
    told: Told
    course: Spark | None


class KnownObject(NamedTuple):
    name: str
    days: int
    flow: Flow | None
    """None where it sent nothing in the last day."""
    spark: Spark | None
    feeds: list[tuple[str, list[Line]]]
    subqueues: list[Shown]
    reports: list[tuple[str, int, int, int]]
    """(header From, messages, aligned by DKIM or SPF, rejected or quarantined) of DMARC reports."""


def domain(scene: Scene) -> KnownObject:
    name = scene.about.lower()
    flow = tallies.flow(scene.stores.outside, Kind.DOMAIN, name, now=scene.now)
    line = tallies.sparks(scene.stores.outside, Kind.DOMAIN, [name], now=scene.now)[name] if flow else None
    reports = scene.stores.outside.rows(_REPORTS, (name, scene.now - DAYS * 86_400.0))
    return _known(scene, name)._replace(flow=flow, spark=line, reports=[(*row,) for row in reports])


def address(scene: Scene) -> KnownObject:
    return _known(scene, scene.about)


def _known(scene: Scene, name: str) -> KnownObject:
    outside = scene.stores.outside
    feeds: dict[str, list[Line]] = {}
    since = scene.now - DAYS * 86_400.0
    courses = 0
    for told in measures.of_objects(outside, [name]).get(name, ()):
        drawn = None
        if told.known.told_at and courses < _COURSES_MAX:
            courses += 1
            drawn = measures.course(outside, told.known, since=since, now=scene.now)
        feeds.setdefault(told.known.feed, []).append(Line(told, drawn))
    rows = scene.picture.subqueues if scene.picture.taken_at else subqueues.last_known(scene.stores.core)[1]
    open_ = [subqueues.shown(row) for row in rows if _named(row.key) == name]
    return KnownObject(name, DAYS, None, None, list(feeds.items()), open_, [])


def _named(key: str) -> str:
    return key.rpartition("@")[0].partition(":")[2]


_REPORTS = """
    SELECT header_from, sum(messages), sum(iif(dkim = 'pass' OR spf = 'pass', messages, 0)),
        sum(iif(disposition IN ('reject', 'quarantine'), messages, 0))
    FROM dmarc_report JOIN dmarc_row ON dmarc_row.report = dmarc_report.id
    WHERE domain = ? AND end >= ? AND trusted = 1 GROUP BY header_from ORDER BY 2 DESC LIMIT 50
"""

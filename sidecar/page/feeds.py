"""The feeds: which tells, which is silent and why; what report mail said; how many messages pass DMARC and TLS.

Knows the table of feeds and what is stored of each.
"""

from typing import NamedTuple

from parsers.feeds.asking import Trouble
from policies.cadence import Standing
from sidecar.feeds import FEEDS, Feed
from sidecar.page import domains, measures
from sidecar.page.judgement import Told
from sidecar.page.listing import Slice, Wish, sliced
from sidecar.page.reading import Store
from sidecar.page.scene import Scene
from sidecar.page.words import Mark

DAYS = 30
EXTRA = (("MTA-STS", "mta-sts"), ("TLS reports", "tls-rpt"))


class Standpoint(NamedTuple):
    name: str
    about: str
    mark: Mark
    standing: Standing
    every: float
    """Seconds between two polls; 0 where it is not asked."""


class Passing(NamedTuple):
    """Messages of a domain in the reports of receivers."""

    domain: str
    messages: int
    passed: int


class Authentication(NamedTuple):
    domain: str
    items: list[tuple[str, Told | None]]
    dmarc: Passing | None


class Feeds(NamedTuple):
    wish: Wish
    feeds: list[Standpoint]
    mail: list[tuple[str, int, int, float]]
    """(kind, mails, of them from known reporters, newest) of report mail."""
    columns: list[str]
    authentication: Slice[Authentication]
    tls: list[Passing]
    days: int


def view(scene: Scene) -> Feeds:
    outside = scene.stores.outside
    wish = Wish.read(scene.path, scene.query, (), filters=("q",))
    since = scene.now - DAYS * 86_400.0
    dmarc = {name: Passing(name, *map(int, counts)) for name, *counts in outside.rows(_DMARC, (since,))}
    items = (*domains.REQUIREMENTS, *EXTRA)
    names = {*measures.objects(outside, [measure for _, measure in items[:3]]), *dmarc}
    found = [name for name in _worst_first(outside, names) if wish.filter("q").lower() in name]
    shown = sliced(found, wish)
    rows = _authentication(outside, list(shown.rows), dmarc)
    return Feeds(
        wish,
        [_standpoint(scene, name, feed) for name, feed in FEEDS.items()],
        [(*row,) for row in outside.rows(_MAIL, (since,))],
        [word for word, _ in items],
        shown._replace(rows=rows),  # type: ignore[arg-type]  # the same slice, of rows instead of names
        [Passing(name, int(good) + int(bad), int(good)) for name, good, bad in outside.rows(_TLS, (since,))],
        DAYS,
    )


def _standpoint(scene: Scene, name: str, feed: Feed) -> Standpoint:
    rows = scene.stores.outside.rows(_STANDING, (name,))
    standing = Standing()
    if rows:
        asked_at, told_at, next_at, failures, trouble, why, since = rows[0]
        known = Trouble(trouble) if trouble else None
        standing = Standing(asked_at, told_at, next_at, failures, known, why, since)
    if not feed.wanted(scene.config):
        return Standpoint(name, feed.about, Mark("–", "not asked", "calm", "not configured"), standing, 0.0)
    cadence = feed.cadence(scene.config)
    return Standpoint(
        name, feed.about, _mark(standing, blind=standing.blind(cadence, now=scene.now)), standing, cadence.every
    )


def _mark(standing: Standing, *, blind: bool) -> Mark:
    if not standing.asked_at:
        return Mark("…", "not asked yet", "calm")
    if blind:
        return Mark("✗", "blind", "bad", standing.why)
    if standing.trouble is not None:
        return Mark("!", str(standing.trouble), "warn", standing.why)
    return Mark("✓", "tells", "good")


def _worst_first(outside: Store, names: set[str]) -> list[str]:
    unmet = {name: int(number) for name, number in outside.rows(_UNMET)}
    return sorted(names, key=lambda name: (-unmet.get(name, 0), name))


def _authentication(outside: Store, names: list[str], dmarc: dict[str, Passing]) -> list[Authentication]:
    known = measures.of_objects(outside, names)
    found = []
    for name in names:
        told = {each.known.measure: each for each in known.get(name, ()) if each.known.feed == "authentication"}
        items = [(word, told.get(measure)) for word, measure in (*domains.REQUIREMENTS, *EXTRA)]
        found.append(Authentication(name, items, dmarc.get(name)))
    return found


_STANDING = "SELECT asked_at, told_at, next_at, failures, trouble, why, since FROM feed WHERE name = ?"
_MAIL = "SELECT kind, count(*), sum(trusted), max(time) FROM report_mail WHERE time >= ? GROUP BY kind ORDER BY kind"
_DMARC = """
    SELECT domain, sum(messages), sum(iif(dkim = 'pass' OR spf = 'pass', messages, 0))
    FROM dmarc_report JOIN dmarc_row ON dmarc_row.report = dmarc_report.id
    WHERE end >= ? AND trusted = 1 GROUP BY domain
"""
_TLS = """
    SELECT tls_row.domain, sum(successes), sum(failures) FROM tls_report JOIN tls_row ON tls_row.report = tls_report.id
    WHERE end >= ? AND trusted = 1 AND result_type = '' GROUP BY tls_row.domain ORDER BY 3 DESC, 1 LIMIT 50
"""
_UNMET = (
    "SELECT object, count(*) FROM measure WHERE feed = 'authentication' AND measure GLOB 'requirement.*' AND value = 0"
    " GROUP BY object"
)

"""Our sending domains: how their mail is taken, whether they are set up as receivers want it, who complains.

Knows which requirements stand in a row; what they mean, the feed that looks them up says.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from policies.figures import Kind
from sidecar.page import measures, tallies
from sidecar.page.judgement import Told
from sidecar.page.listing import Column, Heading, Slice, Wish, ordered, sliced
from sidecar.page.reading import Store
from sidecar.page.scene import Scene
from sidecar.page.spark import Spark
from sidecar.page.tallies import Flow

COMPLAINT_DAYS = 7
REQUIREMENTS = (
    ("SPF", "requirement.SPF"),
    ("DKIM", "requirement.DKIM"),
    ("DMARC", "requirement.DMARC_POLICY"),
    ("DNS", "requirement.DNS_RECORDS"),
)
COLUMNS = (
    Column("attempts", "Attempts, 24 h", descending=True, number=True),
    Column("name", "Domain"),
    Column("acceptance", "Accepted", number=True),
    Column("put-off", "Put off", descending=True, number=True),
    Column("complaints", "Complaints, 7 d", descending=True, number=True),
    Column("", "By the hour"),
    Column("", "Set up"),
)


class Row(NamedTuple):
    flow: Flow
    complaints: int

    @property
    def url(self) -> str:
        return f"/domain/{quote(self.flow.name, safe='')}"


ORDER: Mapping[str, Callable[[Row], Any]] = {
    "attempts": lambda row: row.flow.day.attempts,
    "name": lambda row: row.flow.name,
    "acceptance": lambda row: row.flow.acceptance,
    "put-off": lambda row: row.flow.put_off,
    "complaints": lambda row: row.complaints,
}


class Domains(NamedTuple):
    wish: Wish
    headings: list[Heading]
    rows: Slice[Row]
    sparks: dict[str, Spark]
    setup: dict[str, list[tuple[str, Told]]]
    """Domain -> (requirement, what is known of it)."""


def view(scene: Scene) -> Domains:
    outside = scene.stores.outside
    wish = Wish.read(scene.path, scene.query, COLUMNS, filters=("q",))
    complaints = _complaints(outside, since=scene.now - COMPLAINT_DAYS * 86_400.0)
    flows = tallies.flows(outside, Kind.DOMAIN, now=scene.now)
    known = {flow.name for flow in flows}
    others = {*measures.objects(outside, [measure for _, measure in REQUIREMENTS[:3]]), *complaints} - known - {""}
    text = wish.filter("q").lower()
    rows = [
        Row(flow, complaints.get(flow.name, 0))
        for flow in (*flows, *map(Flow, sorted(others)))
        if text in flow.name
    ]  # fmt: skip
    shown = sliced(ordered(rows, wish, ORDER), wish)
    names = [row.flow.name for row in shown.rows]
    return Domains(
        wish,
        wish.headings(COLUMNS),
        shown,
        tallies.sparks(outside, Kind.DOMAIN, names, now=scene.now),
        setup(outside, names),
    )


def setup(outside: Store, names: list[str]) -> dict[str, list[tuple[str, Told]]]:
    """What is known of the requirements of some domains."""
    found: dict[str, list[tuple[str, Told]]] = {}
    for name, told in measures.of_objects(outside, names).items():
        by_measure = {each.known.measure: each for each in told if each.known.feed == "authentication"}
        found[name] = [(word, by_measure[measure]) for word, measure in REQUIREMENTS if measure in by_measure]
    return found


def _complaints(outside: Store, *, since: float) -> dict[str, int]:
    return {name.lower(): number for name, number in outside.rows(_COMPLAINTS, (since,))}


_COMPLAINTS = (
    "SELECT sending_domain, sum(incidents) FROM report_event WHERE time >= ? AND kind = 'complaint' AND trusted = 1"
    " GROUP BY lower(sending_domain)"
)

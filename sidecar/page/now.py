"""The first view: what is throttled now, what waits because of it, and how the providers take our mail.

Knows what an admin looks for first; the numbers are core's and the tally's.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from policies.figures import Kind
from sidecar.core_status import Fleet, Row
from sidecar.page import subqueues, tallies
from sidecar.page.listing import Column, Heading, Slice, Wish, ordered, sliced
from sidecar.page.picture import Picture, states
from sidecar.page.reading import Store
from sidecar.page.scene import Scene
from sidecar.page.spark import Spark, spark
from sidecar.page.subqueues import Shown
from sidecar.page.tallies import Flow
from sidecar.page.words import count, span

PROVIDERS_MAX = 25
_QUEUE_HOURS = 24

COLUMNS = (
    Column("held", "Held", descending=True, number=True),
    Column("key", "Sub-queue"),
    Column("state", "State"),
    Column("pace", "Budget", descending=True, number=True),
    Column("step", "Next step"),
    Column("since", "In this state"),
    Column("rule", "Opened by"),
)
_RANK: Mapping[str, int] = {state: number for number, state in enumerate(subqueues.STATES)}
ORDER: Mapping[str, Callable[[Row], Any]] = {
    "held": lambda row: row.held,
    "key": lambda row: row.key,
    "state": lambda row: _RANK.get(row.state, len(_RANK)),
    "pace": lambda row: row.budget_per_s or 0.0,
    "step": lambda row: subqueues.due(row) or math.inf,
    "since": lambda row: -row.since,
    "rule": lambda row: row.rule,
}


class Tile(NamedTuple):
    """One number of the first row."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    spark: Spark | None = None


class Provider(NamedTuple):
    flow: Flow
    spark: Spark
    open: int
    """Sub-queues."""
    held: int


class Now(NamedTuple):
    tiles: list[Tile]
    wish: Wish
    headings: list[Heading]
    subqueues: Slice[Shown]
    states: dict[str, int]
    providers: list[Provider]
    providers_left_out: int
    as_of: float
    """Of the sub-queues: when core said so, or wrote it down; 0: nobody knows."""
    from_store: bool


def view(scene: Scene) -> Now:
    """Core's word, or while it was never heard its store's."""
    rows, as_of, from_store = scene.picture.subqueues, scene.picture.taken_at, False
    if not as_of:
        as_of, rows = subqueues.last_known(scene.stores.core)
        from_store = True
    wish = Wish.read(scene.path, scene.query, COLUMNS, filters=("q", "state"))
    chosen = [row for row in rows if _wanted(row, wish)] if wish.others else rows
    # They come with those first that hold most.
    in_order = chosen if (wish.sort, wish.descending) == ("held", True) else ordered(chosen, wish, ORDER)
    part = sliced(in_order, wish)
    shown = [subqueues.shown(row) for row in part.rows]
    at_providers, left_out = providers(scene, rows)
    return Now(
        tiles=tiles(scene.picture, rows, scene.stores.outside, now=scene.now),
        wish=wish,
        headings=wish.headings(COLUMNS),
        subqueues=Slice(shown, *part[1:]),
        states={str(state): number for state, number in states(rows).items()},
        providers=at_providers,
        providers_left_out=left_out,
        as_of=as_of,
        from_store=from_store,
    )


def _wanted(row: Row, wish: Wish) -> bool:
    text = wish.filter("q").lower()
    return wish.filter("state") in {"", row.state} and (not text or text in row.key.lower() or text in row.rule.lower())


def providers(scene: Scene, rows: tuple[Row, ...]) -> tuple[list[Provider], int]:
    """Those that got most mail today or make us hold some; and how many are left out."""
    holding: dict[str, tuple[int, int]] = {}
    for row in rows:
        name = row.key.rpartition("@")[2]
        number, held = holding.get(name, (0, 0))
        holding[name] = (number + 1, held + row.held)
    found = tallies.flows(scene.stores.outside, Kind.PROVIDER, now=scene.now)
    known = {flow.name for flow in found}
    found += [Flow(name) for name in sorted(holding.keys() - known)]
    found.sort(key=lambda flow: (-holding.get(flow.name, (0, 0))[1], -flow.day.attempts, flow.name))
    first = found[:PROVIDERS_MAX]
    lines = tallies.sparks(scene.stores.outside, Kind.PROVIDER, [flow.name for flow in first], now=scene.now)
    shown = [Provider(flow, lines[flow.name], *holding.get(flow.name, (0, 0))) for flow in first]
    return shown, len(found) - len(first)


def tiles(picture: Picture, rows: tuple[Row, ...], outside: Store, *, now: float) -> list[Tile]:
    unknown = not picture.taken_at
    held = sum(row.held for row in rows) if unknown else picture.held
    found = [
        Tile("Sub-queues", count(len(rows)), _in_states(rows)),
        Tile("Held by us", count(held), "messages that wait for their pace"),
        _queue(picture, outside, now=now),
        _incidents(outside),
    ]
    if not unknown:
        slow = picture.lag > 60
        mode = "acting on the queue" if picture.mode == "act" else "says what it would do"
        found += [
            Tile("Mode", picture.mode, mode),
            Tile("Log", f"{span(picture.lag)} behind", f"{count(picture.lines)} lines read", "bad" if slow else ""),
            Tile("Policy service", count(picture.requests), f"requests, {count(picture.fail_open)} errors of ours",
                 "warn" if picture.fail_open else ""),
        ]  # fmt: skip
    if picture.fleet is not None:
        found.append(_fleet(picture.fleet))
    return found


def _fleet(fleet: Fleet) -> Tile:
    if not fleet.takes_part:
        return Tile("Fleet", "observes", "neither tells nor follows")
    tone = "bad" if fleet.alone or fleet.silent else "warn" if fleet.heard < len(fleet.hosts) else ""
    note = f"hosts heard of; {count(fleet.held)} held by all"
    if fleet.alone:
        note = "this host goes on by itself"
    elif fleet.silent:
        note = "the store is silent"
    return Tile("Fleet", f"{count(fleet.heard)} of {count(len(fleet.hosts))}", note, tone)


def _in_states(rows: tuple[Row, ...]) -> str:
    return ", ".join(f"{number} {state}" for state, number in states(rows).items() if number) or "none is open"


def _queue(picture: Picture, outside: Store, *, now: float) -> Tile:
    samples = outside.rows(_QUEUE, (now - _QUEUE_HOURS * 3600.0,))
    most = max((messages for _, messages, _ in samples), default=0)
    bins: list[float | None] = [None] * 48
    for at, messages, _ in samples:
        bins[min(47, int((at - now + _QUEUE_HOURS * 3600.0) // 1800))] = messages
    words = f"messages in the queue besides those that we hold, in the last 24 hours: at most {most}"
    line = spark(bins, words=words, high=float(max(most, 1))) if samples else None
    number = count(picture.live) if picture.taken_at else "–"
    note = f"{count(samples[-1][2])} older than an hour" if samples else "messages known"
    return Tile("In the queue", number, note, "", line)


def _incidents(outside: Store) -> Tile:
    found = dict(outside.rows(_INCIDENTS))
    worst = next((severity for severity in ("critical", "error", "warning", "info") if found.get(severity)), "")
    note = ", ".join(f"{number} {severity}" for severity, number in sorted(found.items())) or "all is quiet"
    tone = {"critical": "bad", "error": "bad", "warning": "warn"}.get(worst, "")
    return Tile("Incidents", count(sum(found.values())), note, tone)


_QUEUE = "SELECT time, messages, old FROM queue_sample WHERE time >= ? ORDER BY time"
_INCIDENTS = "SELECT severity, count(*) FROM incident WHERE phase IN ('open', 'calm') GROUP BY severity"

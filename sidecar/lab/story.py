"""What the lab tells the person who watches: who is throttled, what is held, how long everybody else waits.

It reads the running parts once a second and prints what changed; on a terminal a live table stands below.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.lab.measure import Figures, counts, percentile
from sidecar.lab.provider import Accepted, Covered, Refused
from sidecar.lab.run import Bench, Leg

_EVERY_S = 1.0
_SUMMARY_EVERY_S = 10.0
_RECENT_S = 10.0
_REMEMBERED = 10_000

_LEGS = {
    Leg.PLAIN: "plain Postfix, without the sidecar",
    Leg.SIDECAR: "Postfix with the sidecar attached",
    Leg.QUIET: "plain Postfix, nobody bursts",
}


class SubQueue(NamedTuple):
    """One open sub-queue, as core tells it."""

    key: str
    state: str
    held: int
    budget_per_s: float | None


class Scene(NamedTuple):
    """The last seconds of a run."""

    at: float
    """Seconds since the fleet began."""
    submitted: int
    delivered: int
    refused: int
    on_hold: int
    delivered_per_s: float
    refused_per_s: float
    others_p50_s: float | None
    others_p95_s: float | None
    subqueues: tuple[SubQueue, ...]


@dataclass(slots=True)
class _Seen:
    """What has been told already."""

    fired: set[Covered] = field(default_factory=set)
    refusals: int = 0
    states: dict[str, str] = field(default_factory=dict)
    summary_at: float = 0.0


class Story:
    """Tells one lab to one console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def opens(self, bench: Bench) -> None:
        """The cast, and what is about to happen."""
        senders = bench.scenario.senders()
        steady = [sender for sender in senders if sender.rate > 0]
        self.console.rule(f"{bench.scenario.name}: {_LEGS[bench.leg]}")
        self.say(
            f"{len(steady)} steady senders, {sum(sender.rate for sender in steady):g} messages/s; "
            f"providers: {', '.join(bench.providers)}; times divided by {bench.scenario.scale:g}"
        )
        for sender in senders:
            if sender.burst and bench.leg is not Leg.QUIET:
                self.say(f"at {sender.at:g} s {sender.domain} sends {sender.burst} to {', '.join(sender.to)}")

    async def tell(self, bench: Bench) -> None:
        """Until cancelled: what happens, once a second."""
        seen = _Seen()
        live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        with live or contextlib.nullcontext():
            while True:
                await asyncio.sleep(_EVERY_S)
                scene = _scene(bench, await _subqueues(bench))
                for line in _news(scene, bench, seen):
                    self.say(line)
                if live is not None:
                    live.update(_table(scene), refresh=True)
                elif scene.at - seen.summary_at >= _SUMMARY_EVERY_S:
                    seen.summary_at = scene.at
                    self.say(_summary(scene))

    def figures(self, of_legs: dict[str, Figures]) -> None:
        """All figures, one column a leg."""
        table = Table(title="figures")
        table.add_column("")
        for leg in of_legs:
            table.add_column(leg, justify="right")
        for entry in fields(Figures):
            values = [getattr(of_leg, entry.name) for of_leg in of_legs.values()]
            table.add_row(entry.name, *("-" if value is None else f"{value:g}" for value in values))
        self.console.print(table)

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


async def _subqueues(bench: Bench) -> tuple[SubQueue, ...]:
    """Asked of core; nothing while it is being restarted or killed."""
    if bench.attachment is None:
        return ()
    try:
        status = await bench.attachment.ask("status")
    except (CoreUnreachable, CoreRefused):
        return ()
    return tuple(_subqueue(entry) for entry in status.get("subqueues", ()))


def _subqueue(entry: dict[str, Any]) -> SubQueue:
    return SubQueue(entry["key"], entry["state"], entry["held"], entry["budget_per_s"])


def _scene(bench: Bench, subqueues: tuple[SubQueue, ...]) -> Scene:
    now = time.time()
    delivered = list(_recent(bench.ledger.accepted, now))
    span = min(_RECENT_S, max(now - bench.started, 1.0))
    waits = list(_waits(bench, delivered))
    return Scene(
        at=now - bench.started,
        submitted=len(bench.fleet.submissions.accepted),
        delivered=len(bench.ledger.accepted),
        refused=len(bench.ledger.refused),
        on_hold=len(bench.follower.log.on_hold),
        delivered_per_s=len(delivered) / span,
        refused_per_s=sum(1 for _ in _recent(bench.ledger.refused, now)) / span,
        others_p50_s=percentile(waits, 0.5),
        others_p95_s=percentile(waits, 0.95),
        subqueues=subqueues,
    )


_Timed = TypeVar("_Timed", Accepted, Refused)


def _recent(records: Sequence[_Timed], now: float) -> Iterator[_Timed]:
    return itertools.takewhile(lambda record: record.time > now - _RECENT_S, reversed(records))


def _waits(bench: Bench, delivered: Iterable[Accepted]) -> Iterator[float]:
    """Time to delivery of the mail that no limit has touched."""
    fired = bench.ledger.fired()
    known = {message.message_id: message for message in bench.fleet.submissions.accepted[-_REMEMBERED:]}
    for it in delivered:
        message = known.get(it.message_id)
        if message and not any(
            covered.provider == it.provider and counts(covered, message, it.recipient) for covered in fired
        ):
            yield it.time - message.submitted


def _news(scene: Scene, bench: Bench, seen: _Seen) -> Iterator[str]:
    """What was not yet told."""
    for refused in bench.ledger.refused[seen.refusals :]:
        covered = Covered(refused.provider, refused.by, refused.identity) if refused.by else None
        if covered and covered not in seen.fired:
            seen.fired.add(covered)
            at = refused.time - bench.started
            yield f"{at:6.1f} s  {refused.provider} throttles {covered.by} {covered.identity}: {refused.code}"
    seen.refusals = len(bench.ledger.refused)
    states = {sub.key: sub for sub in scene.subqueues}
    for key, sub in states.items():
        if seen.states.get(key) != sub.state:
            yield f"{scene.at:6.1f} s  {key}: {_STATES.get(sub.state, sub.state)}; {sub.held} held"
    for key in seen.states.keys() - states.keys():
        yield f"{scene.at:6.1f} s  {key}: closed"
    seen.states = {key: sub.state for key, sub in states.items()}


_STATES = {
    "paused": "paused, its mail is taken out of the lane",
    "probing": "probing, one message goes out to see",
    "ramping": "ramping, mail leaves at a pace that rises",
}


def _summary(scene: Scene) -> str:
    return (
        f"{scene.at:6.1f} s  submitted {scene.submitted}, delivered {scene.delivered}"
        f" ({scene.delivered_per_s:.0f}/s), refused {scene.refused} ({scene.refused_per_s:.0f}/s),"
        f" on hold {scene.on_hold}; the others wait {_seconds(scene.others_p50_s)},"
        f" 95 of 100 at most {_seconds(scene.others_p95_s)}"
    )


def _table(scene: Scene) -> Table:
    table = Table(title=_summary(scene).strip())
    for column in ("sub-queue", "state", "held", "a second"):
        table.add_column(column)
    for sub in scene.subqueues:
        pace = "" if sub.budget_per_s is None else f"{sub.budget_per_s:.2f}"
        table.add_row(sub.key, sub.state, str(sub.held), pace)
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"

"""What a drill of a fleet is: what breaks while a throttled domain's mail lies on all hosts, and what must be true after.

It knows the scenario that they share, and how to wait for what the hosts say of themselves.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.fleet.terms import ALONE_AFTER
from policies.subqueue import State
from sidecar.lab.drills.drill import DrillError
from sidecar.lab.hosts.bench import HostsBench, LabHost, Setting
from sidecar.lab.patience import longer
from sidecar.lab.scenario import Scenario, read

DOMAIN = "bigsale.example"
KEY = f"dkim-domain:{DOMAIN}@google"
CONVERGED_WITHIN_S = 5.0
BUDGET = 1.1
LOOK_EVERY_S = 0.2
_LED_WITHIN_S = 20.0
SEVERAL_LEASES_S = ALONE_AFTER + 12.0
"""Long enough for a host that hears nothing to go on alone for a while."""
_USUAL = Setting()

_TOML = """\
name = "{name}"
seed = 5
scale = {scale}
seconds = 215
hosts = {hosts}

[[sender]]
domain = "shop-{{n}}.example"
count = 3
rate = 0.5
to = ["google"]

[[sender]]
domain = "bigsale.example"
burst = {burst}
at = 2
to = ["google"]

[[provider]]
name = "google"
domains = ["gmail.com", "school.example"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = {transaction}

[[provider.limit]]
by = "dkim"
kind = "bucket"
rate = 10
burst = 20
"""


@dataclass(frozen=True, slots=True)
class FleetDrill:
    """`act` runs while the senders send, once the domain ramps; then everything that lives must be delivered."""

    name: str
    proves: str
    act: Callable[[HostsBench], Awaitable[None]]
    hosts: int = 5
    scale: int = 20
    burst: int = 600
    drains: bool = True
    """Whether to wait until all is delivered; else what is still held is counted, and found again."""
    at: State = State.RAMPING
    """Where the domain is on all hosts when it begins."""
    transaction: float = 0.3
    """Seconds that the provider takes for a message."""
    setting: Setting = _USUAL

    def scenario(self) -> Scenario:
        return read(
            _TOML.format(
                name=self.name,
                hosts=self.hosts,
                scale=self.scale,
                burst=self.burst,
                transaction=self.transaction,
            ),
            file=Path(f"drill {self.name}"),
        )


async def carry_out(drill: FleetDrill, bench: HostsBench) -> None:
    """Raises DrillError where what must come does not."""
    await until(bench, all_are(drill.at), f"the domain is {drill.at} on all hosts", 90)
    bench.times["broken_at_s"] = time.time() - bench.started
    await drill.act(bench)
    if drill.drains:
        await _delivered(bench, 200)


async def until(
    bench: HostsBench, true: Callable[[Sequence[dict[str, Any]]], bool], what: str, seconds: float
) -> float:
    """Wait until `true` of what all living hosts say, None of them silent; how long it took.

    Raises DrillError after `seconds`.
    """
    began = time.monotonic()
    while True:
        said = await asyncio.gather(*(host.status() for host in bench.here()))
        answers = [each for each in said if each is not None]
        if len(answers) == len(said) and true(answers):
            return time.monotonic() - began
        if time.monotonic() - began > longer(seconds):
            seen = [(_state(each), (each["fleet"] or {}).get("silent")) for each in answers]
            raise DrillError(f"{what}: not within {longer(seconds):g} s; the hosts say {seen}")
        await asyncio.sleep(LOOK_EVERY_S)


def _sub(status: dict[str, Any]) -> dict[str, Any]:
    return next((sub for sub in status["subqueues"] if sub["key"] == KEY), {"state": "closed"})


def _state(status: dict[str, Any]) -> str:
    return str(_sub(status)["state"])


def all_are(state: State) -> Callable[[Sequence[dict[str, Any]]], bool]:
    return lambda answers: all(_state(each) == state for each in answers)


def some_are(state: State) -> Callable[[Sequence[dict[str, Any]]], bool]:
    return lambda answers: any(_state(each) == state for each in answers)


def agree(answers: Sequence[dict[str, Any]]) -> bool:
    """All hear the same store, and have the domain in the same state."""
    fleets = [each["fleet"] for each in answers]
    heard = all(not fleet["silent"] for fleet in fleets) and len({fleet["server"] for fleet in fleets}) == 1
    return heard and len({_state(each) for each in answers}) == 1


async def converged(bench: HostsBench) -> None:
    """From now on: everything is whole again."""
    bench.times["converged_s"] = await until(bench, agree, "all hosts agree", 30)


async def the_lead(bench: HostsBench) -> LabHost:
    """Find the host that sets the pace."""
    deadline = time.monotonic() + longer(_LED_WITHIN_S)
    while time.monotonic() < deadline:
        for host in bench.here():
            status = await host.status()
            if status is not None and (_sub(status).get("fleet") or {}).get("leads"):
                return host
        await asyncio.sleep(LOOK_EVERY_S)
    raise DrillError(f"no host has the lead within {longer(_LED_WITHIN_S):g} s")


async def _delivered(bench: HostsBench, seconds: float) -> None:
    """Wait until every message of the living hosts was taken by the provider. Raises DrillError."""
    deadline = bench.started + longer(seconds)
    while True:
        wanted = {
            message.message_id
            for host in bench.here()
            for message in host.senders.submissions.accepted
            if message.burst
        }
        if not wanted - {it.message_id for it in bench.ledger.accepted}:
            return
        if time.time() > deadline:
            missing = len(wanted - {it.message_id for it in bench.ledger.accepted})
            raise DrillError(
                f"{missing} of {len(wanted)} messages of the burst not delivered {longer(seconds):g} s after the start"
            )
        await asyncio.sleep(LOOK_EVERY_S)


def complaints(bench: HostsBench, over_budget: float | None) -> Iterable[str]:
    """What is wrong beyond lost, doubled and rejected mail, one line each."""
    if over_budget is not None and over_budget > BUDGET:
        yield f"{over_budget:.2f} times the limit was tried in a minute; at most {BUDGET:g}"
    took = bench.times.get("converged_s")
    if took is not None and took > longer(CONVERGED_WITHIN_S):
        yield f"all agreed again after {took:.1f} s; wanted {longer(CONVERGED_WITHIN_S):g} s"

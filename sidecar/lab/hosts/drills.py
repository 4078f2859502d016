"""Failures of a fleet on real hosts: of its Redis, of the links to it, and of a host. Each with what must be true after.

In each a domain's mail lies on all hosts and is throttled; while it ramps, something breaks.
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
from sidecar.lab.hosts.bench import HostsBench, LabHost, Setting, Way
from sidecar.lab.scenario import Scenario, read

DOMAIN = "bigsale.example"
KEY = f"dkim-domain:{DOMAIN}@google"
CONVERGED_WITHIN_S = 5.0
BUDGET = 1.1
_USUAL = Setting()
_LOOK_EVERY_S = 0.2
_UNDER_WAY_S = 2.0
"""What was under way when a pause began has ended after so long."""
_SEVERAL_LEASES_S = ALONE_AFTER + 12.0
"""Long enough for a host that hears nothing to go on alone for a while."""

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


async def play(drill: FleetDrill, bench: HostsBench) -> None:
    """Raises DrillError where what must come does not."""
    await until(bench, _all_are(drill.at), f"the domain is {drill.at} on all hosts", 90)
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
        if time.monotonic() - began > seconds:
            seen = [(_state(each), (each["fleet"] or {}).get("silent")) for each in answers]
            raise DrillError(f"{what}: not within {seconds:g} s; the hosts say {seen}")
        await asyncio.sleep(_LOOK_EVERY_S)


def _sub(status: dict[str, Any]) -> dict[str, Any]:
    return next((sub for sub in status["subqueues"] if sub["key"] == KEY), {"state": "closed"})


def _state(status: dict[str, Any]) -> str:
    return str(_sub(status)["state"])


def _all_are(state: State) -> Callable[[Sequence[dict[str, Any]]], bool]:
    return lambda answers: all(_state(each) == state for each in answers)


def agree(answers: Sequence[dict[str, Any]]) -> bool:
    """All hear the same store, and have the domain in the same state."""
    fleets = [each["fleet"] for each in answers]
    heard = all(not fleet["silent"] for fleet in fleets) and len({fleet["server"] for fleet in fleets}) == 1
    return heard and len({_state(each) for each in answers}) == 1


async def _converged(bench: HostsBench) -> None:
    """From now on: everything is whole again."""
    bench.times["converged_s"] = await until(bench, agree, "all hosts agree", 30)


async def _lead(bench: HostsBench) -> LabHost:
    """Find the host that sets the pace."""
    for _ in range(100):
        for host in bench.here():
            status = await host.status()
            if status is not None and (_sub(status).get("fleet") or {}).get("leads"):
                return host
        await asyncio.sleep(_LOOK_EVERY_S)
    raise DrillError("no host has the lead within 20 s")


async def _delivered(bench: HostsBench, seconds: float) -> None:
    """Wait until every message of the living hosts was taken by the provider. Raises DrillError."""
    deadline = bench.started + seconds
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
                f"{missing} of {len(wanted)} messages of the burst not delivered {seconds:g} s after the start"
            )
        await asyncio.sleep(_LOOK_EVERY_S)


# What breaks.


async def _redis_killed(bench: HostsBench) -> None:
    await asyncio.to_thread(bench.store.kill)
    await asyncio.sleep(8)
    await asyncio.to_thread(bench.store.start)
    await _converged(bench)


async def _redis_stopped(bench: HostsBench) -> None:
    bench.store.freeze()
    await asyncio.sleep(_SEVERAL_LEASES_S)
    bench.store.thaw()
    await _converged(bench)


async def _redis_slow(bench: HostsBench) -> None:
    bench.store.delay = 0.1
    await asyncio.sleep(_SEVERAL_LEASES_S)
    bench.store.delay = 0.0
    await _converged(bench)


async def _links_down(bench: HostsBench) -> None:
    bench.cut(*bench.hosts)
    await asyncio.sleep(_SEVERAL_LEASES_S)
    bench.mend(*bench.hosts)
    await _converged(bench)


async def _split(bench: HostsBench) -> None:
    """Two of five are cut off; each side is asked what it does."""
    apart = bench.hosts[-2:]
    bench.cut(*apart)
    await asyncio.sleep(_SEVERAL_LEASES_S)
    said = {host.name: await host.status() for host in bench.hosts}
    alone = {name for name, status in said.items() if status is not None and status["fleet"]["alone"]}
    if alone != {host.name for host in apart}:
        raise DrillError(f"{sorted(alone)} go on alone; wanted {[host.name for host in apart]}")
    bench.mend(*apart)
    await _converged(bench)


async def _host_paused(bench: HostsBench) -> None:
    """The one with the lead sleeps for a (scaled) while that is longer than its leases."""
    host = await _lead(bench)
    host.sidecar.freeze()
    host.stopped = True
    await asyncio.sleep(max(60 / bench.scenario.scale, ALONE_AFTER + 2))
    host.sidecar.thaw()
    host.stopped = False
    await _converged(bench)


async def _lead_killed(bench: HostsBench) -> None:
    """The one with the lead, and so with the probe's word and a part of the pace, is gone for good."""
    host = await _lead(bench)
    await host.die()
    bench.times["next_lead_s"] = -time.time()
    await _lead(bench)
    bench.times["next_lead_s"] += time.time()
    await _converged(bench)


async def _probe_killed(bench: HostsBench) -> None:
    """The one whose probe is out is gone for good; another probes, once, when the lease is over."""
    await asyncio.sleep(_UNDER_WAY_S)
    tried = len(_tried(bench))
    host = await _lead(bench)
    while len(_tried(bench)) == tried:  # noqa: ASYNC110  # the provider writes down, and tells nobody
        await asyncio.sleep(0.01)
    await host.die()
    died, tried = time.time(), len(_tried(bench))
    await until(bench, _some_are(State.RAMPING), "the domain ramps on another host", 30)
    probes = [at - died for at in _tried(bench)[tried:]]
    if len(probes) != 1:
        raise DrillError(f"{len(probes)} messages were tried between the death and the ramp; wanted the one probe")
    bench.times["next_probe_s"] = probes[0]
    await _converged(bench)
    await until(bench, _all_are(State.RAMPING), "the domain ramps on all hosts", 30)


def _tried(bench: HostsBench) -> list[float]:
    """When the domain's messages were tried."""
    return [it.time for it in bench.ledger.attempts if it.envelope_domain == DOMAIN]


def _some_are(state: State) -> Callable[[Sequence[dict[str, Any]]], bool]:
    return lambda answers: any(_state(each) == state for each in answers)


async def _clocks_wrong(bench: HostsBench) -> None:
    """Nothing else breaks."""
    await _converged(bench)


async def _failed_over(bench: HostsBench) -> None:
    """The primary dies; the Sentinels make its replica one, with what that has heard."""
    await asyncio.to_thread(bench.store.kill)
    died = time.monotonic()
    await asyncio.to_thread(bench.sentinels.wait_for_the_replica)
    bench.times["failed_over_s"] = time.monotonic() - died
    await _converged(bench)


FLEET_DRILLS = {
    drill.name: drill
    for drill in (
        FleetDrill("fleet-redis-killed", "Redis restarts empty: the hosts tell it where they stand", _redis_killed),
        FleetDrill("fleet-redis-stopped", "a Redis that hangs stops nobody for good", _redis_stopped),
        FleetDrill("fleet-redis-slow", "a Redis that is late is still one", _redis_slow, setting=Setting(Way.PROXY)),
        FleetDrill(
            "fleet-failover",
            "the replica that Sentinels make the primary is where all agree again",
            _failed_over,
            setting=Setting(Way.SENTINELS),
        ),
        FleetDrill("fleet-links-down", "no host hears of Redis, and none of its end", _links_down),
        FleetDrill("fleet-split", "two of five cut off take no more than their part", _split),
        FleetDrill("fleet-host-paused", "who slept wakes without a lease", _host_paused),
        FleetDrill("fleet-lead-killed", "the lead and its part of the pace go to others", _lead_killed),
        FleetDrill(
            "fleet-probe-killed",
            "a probe that nobody answers for is followed by one more, when its lease is over",
            _probe_killed,
            scale=60,
            drains=False,
            at=State.PAUSED,
            transaction=1.0,
        ),
        FleetDrill(
            "fleet-clocks-wrong",
            "hosts whose clocks are 90 s ahead and 90 s behind share one pace all the same",
            _clocks_wrong,
            setting=Setting(ahead={2: 90.0, 3: -90.0}),
        ),
        FleetDrill(
            "fleet-short-redis-killed",
            "fleet-redis-killed in a minute",
            _redis_killed,
            hosts=3,
            scale=60,
            burst=150,
            drains=False,
        ),
        FleetDrill(
            "fleet-short-host-paused",
            "fleet-host-paused in a minute",
            _host_paused,
            hosts=3,
            scale=60,
            burst=150,
            drains=False,
        ),
        FleetDrill(
            "fleet-short-failover",
            "fleet-failover in a minute",
            _failed_over,
            hosts=3,
            scale=60,
            burst=150,
            drains=False,
            setting=Setting(Way.SENTINELS),
        ),
    )
}


def complaints(bench: HostsBench, over_budget: float | None) -> Iterable[str]:
    """What is wrong beyond lost, doubled and rejected mail, one line each."""
    if over_budget is not None and over_budget > BUDGET:
        yield f"{over_budget:.2f} times the limit was tried in a minute; at most {BUDGET:g}"
    took = bench.times.get("converged_s")
    if took is not None and took > CONVERGED_WITHIN_S:
        yield f"all agreed again after {took:.1f} s; wanted {CONVERGED_WITHIN_S:g} s"

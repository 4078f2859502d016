"""Drills of a fleet of which a host fails: one sleeps, dies with the lead or with the probe, or has the wrong time."""

import asyncio
import time

from policies.fleet.terms import ALONE_AFTER
from policies.subqueue import State
from sidecar.lab.drills.drill import DrillError
from sidecar.lab.hosts.bench import HostsBench, Setting
from sidecar.lab.hosts.drills.drill import DOMAIN, FleetDrill, all_are, converged, some_are, the_lead, until

_UNDER_WAY_S = 2.0
"""What was under way when a pause began has ended after so long."""


async def _host_paused(bench: HostsBench) -> None:
    """The one with the lead sleeps for a (scaled) while that is longer than its leases."""
    host = await the_lead(bench)
    host.sidecar.freeze()
    host.stopped = True
    await asyncio.sleep(max(60 / bench.scenario.scale, ALONE_AFTER + 2))
    host.sidecar.thaw()
    host.stopped = False
    await converged(bench)


async def _lead_killed(bench: HostsBench) -> None:
    """The one with the lead, and so with the probe's word and a part of the pace, is gone for good."""
    host = await the_lead(bench)
    await host.die()
    bench.times["next_lead_s"] = -time.time()
    await the_lead(bench)
    bench.times["next_lead_s"] += time.time()
    await converged(bench)


async def _probe_killed(bench: HostsBench) -> None:
    """The one whose probe is out is gone for good; another probes, once, when the lease is over."""
    await asyncio.sleep(_UNDER_WAY_S)
    tried = len(_tried(bench))
    host = await the_lead(bench)
    while len(_tried(bench)) == tried:  # noqa: ASYNC110  # the provider writes down, and tells nobody
        await asyncio.sleep(0.01)
    await host.die()
    died, tried = time.time(), len(_tried(bench))
    await until(bench, some_are(State.RAMPING), "the domain ramps on another host", 30)
    probes = [at - died for at in _tried(bench)[tried:]]
    if len(probes) != 1:
        raise DrillError(f"{len(probes)} messages were tried between the death and the ramp; wanted the one probe")
    bench.times["next_probe_s"] = probes[0]
    await converged(bench)
    await until(bench, all_are(State.RAMPING), "the domain ramps on all hosts", 30)


def _tried(bench: HostsBench) -> list[float]:
    """When the domain's messages were tried."""
    return [it.time for it in bench.ledger.attempts if it.envelope_domain == DOMAIN]


async def _refused(bench: HostsBench) -> None:
    """Nothing breaks: a refusal on one host has paused all."""
    await converged(bench)


async def _clocks_wrong(bench: HostsBench) -> None:
    """Nothing else breaks."""
    await converged(bench)


DRILLS = (
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
        "fleet-short-refused",
        "a refusal on one host pauses the domain on all",
        _refused,
        hosts=3,
        burst=150,
        drains=False,
        at=State.PAUSED,
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
)

"""Drills of a fleet whose links to its Redis fail: those of all hosts, and those of some."""

import asyncio

from sidecar.lab.drills.drill import DrillError
from sidecar.lab.hosts.bench import HostsBench
from sidecar.lab.hosts.drills.drill import SEVERAL_LEASES_S, FleetDrill, converged


async def _links_down(bench: HostsBench) -> None:
    bench.cut(*bench.hosts)
    await asyncio.sleep(SEVERAL_LEASES_S)
    bench.mend(*bench.hosts)
    await converged(bench)


async def _split(bench: HostsBench) -> None:
    """Two of five are cut off; each side is asked what it does."""
    apart = bench.hosts[-2:]
    bench.cut(*apart)
    await asyncio.sleep(SEVERAL_LEASES_S)
    said = {host.name: await host.status() for host in bench.hosts}
    alone = {name for name, status in said.items() if status is not None and status["fleet"]["alone"]}
    if alone != {host.name for host in apart}:
        raise DrillError(f"{sorted(alone)} go on alone; wanted {[host.name for host in apart]}")
    bench.mend(*apart)
    await converged(bench)


DRILLS = (
    FleetDrill("fleet-links-down", "no host hears of Redis, and none of its end", _links_down),
    FleetDrill("fleet-split", "two of five cut off take no more than their part", _split),
)

"""Drills of a fleet whose Redis fails: killed, stopped, late, failed over by Sentinels."""

import asyncio
import time

from sidecar.lab.hosts.bench import HostsBench, Setting, Way
from sidecar.lab.hosts.drills.drill import SEVERAL_LEASES_S, FleetDrill, converged


async def _redis_killed(bench: HostsBench) -> None:
    await asyncio.to_thread(bench.store.kill)
    await asyncio.sleep(8)
    await asyncio.to_thread(bench.store.start)
    await converged(bench)


async def _redis_stopped(bench: HostsBench) -> None:
    bench.store.freeze()
    await asyncio.sleep(SEVERAL_LEASES_S)
    bench.store.thaw()
    await converged(bench)


async def _redis_slow(bench: HostsBench) -> None:
    bench.store.delay = 0.1
    await asyncio.sleep(SEVERAL_LEASES_S)
    bench.store.delay = 0.0
    await converged(bench)


async def _failed_over(bench: HostsBench) -> None:
    """The primary dies; the Sentinels make its replica one, with what that has heard."""
    await asyncio.to_thread(bench.store.kill)
    died = time.monotonic()
    await asyncio.to_thread(bench.sentinels.wait_for_the_replica)
    bench.times["failed_over_s"] = time.monotonic() - died
    await converged(bench)


DRILLS = (
    FleetDrill("fleet-redis-killed", "Redis restarts empty: the hosts tell it where they stand", _redis_killed),
    FleetDrill("fleet-redis-stopped", "a Redis that hangs stops nobody for good", _redis_stopped),
    FleetDrill("fleet-redis-slow", "a Redis that is late is still one", _redis_slow, setting=Setting(Way.PROXY)),
    FleetDrill(
        "fleet-failover",
        "the replica that Sentinels make the primary is where all agree again",
        _failed_over,
        setting=Setting(Way.SENTINELS),
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

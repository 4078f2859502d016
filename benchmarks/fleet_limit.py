"""Five hosts with one backlog against one hidden limit, through a real Redis, beside one host with all of it.

    python benchmarks/fleet_limit.py [--hosts 5] [--messages 1200] [--rate 10] [--burst 20] [--scale 20]

Modelled queues in real time; `scale` divides pauses and Postfix's back-off, not the fleet's leases.
"""

import argparse
import asyncio
import bisect
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policies.fleet.host import Host
from sidecar.fleet.exchange import Exchange
from sidecar.fleet.redis_store import RedisStore
from tests.world import GOOGLE_DKIM, World

DOMAIN = "burst.example"
FIRST_PAUSE = 600.0
"""Seconds, of the rule that opens it."""


class Limit:
    """A bucket that all hosts draw from."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.tokens, self.last = burst, 0.0
        self.taken: list[float] = []
        self.refused: list[float] = []

    def __call__(self, domain: str, provider: str, now: float) -> str | None:  # noqa: ARG002  # the world's way of asking
        self.last = self.last or now
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.last) * self.rate)
        self.last = max(self.last, now)
        if self.tokens < 1:
            self.refused.append(now)
            return GOOGLE_DKIM.format(domain=domain)
        self.tokens -= 1
        self.taken.append(now)
        return None

    def over(self, after: float) -> float:
        """Give the most that was tried in any minute, as a multiple of what the limit lets through in one."""
        tried = sorted(at for at in self.taken + self.refused if at > after)
        most = max((bisect.bisect_right(tried, at + 60) - place for place, at in enumerate(tried)), default=0)
        return most / (60 * self.rate + self.burst)


async def scene(name: str, url: str, hosts: int, arguments: argparse.Namespace) -> str:
    limit = Limit(arguments.rate, arguments.burst)
    worlds = [World(limit, scale=arguments.scale) for _ in range(hosts)]
    tasks = []
    for number, world in enumerate(worlds):
        world.now = time.time()
        host = Host(f"host-{number}", world.engine, steady=time.monotonic)
        tasks.append(asyncio.create_task(Exchange(host, RedisStore(url, prefix=name)).run()))
    await asyncio.sleep(6)
    began = time.time()
    for world in worlds:
        world.now = time.time()
        world.engine.habits.saw("dkim-domain", DOMAIN, (DOMAIN,))
        for number in range(arguments.messages // hosts):
            world.submit(f"news@{DOMAIN}", [f"user{number}@gmail.com"])
    total, last = arguments.messages // hosts * hosts, began
    while sum(map(len, (world.delivered for world in worlds))) < total and time.time() < began + arguments.within:
        await asyncio.sleep(0.2)
        for world in worlds:
            world.run(max(0.0, time.time() - world.now), step=0.25)
            await asyncio.sleep(0)
        last = time.time()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    optimum = (total - arguments.burst) / arguments.rate + FIRST_PAUSE / arguments.scale
    first = sum(at < began + 10 for at in limit.refused)
    delivered = len(limit.taken)
    lost = sum(len(world.silently_lost) + world.duplicates for world in worlds)
    return (
        f"{hosts} host(s): {delivered} of {total} delivered in {last - began:.0f} s "
        f"({(last - began) / optimum:.2f} of who knows the limit, and pauses once), "
        f"{len(limit.refused) - first} deferrals after the first {first}, "
        f"{1000 * (len(limit.refused) - first) / max(1, delivered):.1f} per 1000 delivered; "
        f"most in a minute {limit.over(began + 10):.2f} of the limit; lost or twice {lost}"
    )


async def compare(url: str, arguments: argparse.Namespace) -> None:
    for line in await asyncio.gather(scene("one", url, 1, arguments), scene("fleet", url, arguments.hosts, arguments)):
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=5)
    parser.add_argument("--messages", type=int, default=1200)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--burst", type=float, default=20.0)
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--within", type=float, default=400.0, help="seconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        settings = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen(["redis-server", *settings], stdout=subprocess.DEVNULL)
        try:
            time.sleep(1)
            asyncio.run(compare(f"unix://{socket}", arguments))
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()

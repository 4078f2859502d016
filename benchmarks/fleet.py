"""300 simulated hosts (engines and their exchange, no Postfix) at a real Redis: operations, memory, how soon all agree.

    python benchmarks/fleet.py [--hosts 300] [--processes 4] [--keys 100] [--seconds 30]

Every host holds mail of some ramping keys, so all of them ask for their part each round; one host of a process opens
a new sub-queue every second, and every process tells when all of its hosts have paused it.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import resource
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from redis import Redis

from policies.classify import RuleSet
from policies.engine import Engine
from policies.fleet.host import Host
from policies.key import Key
from policies.site import Settings
from sidecar import rules
from sidecar.fleet.exchange import Exchange
from sidecar.fleet.redis_store import RedisStore

RULE = "google/rate-dkim-domain"
_TOLD = "benchmark:seen"


class Sidecar:
    def __init__(self, name: str, url: str, loaded: RuleSet) -> None:
        self.engine = Engine(loaded, rules.organizational_domain, Settings(act=True, scale=200.0))
        self.host = Host(name, self.engine, steady=time.monotonic)
        self.exchange = Exchange(self.host, RedisStore(url))


def key(name: str) -> Key:
    return Key("dkim-domain", f"{name}.example", "google")


def run(number: int, hosts: int, url: str, arguments: argparse.Namespace) -> None:
    """One process with its part of the hosts."""
    asyncio.run(_run(number, hosts, url, arguments))


async def _run(number: int, hosts: int, url: str, arguments: argparse.Namespace) -> None:
    loaded = rules.load()
    fleet = [Sidecar(f"host-{number}-{each}", url, loaded) for each in range(hosts)]
    told = Redis.from_url(url)
    async with contextlib.AsyncExitStack() as stack:
        for each in fleet:
            await stack.enter_async_context(_running(each))
        lag = await stack.enter_async_context(_lag())
        await _until(lambda: all(each.exchange.rounds >= 2 for each in fleet), within=120.0)
        if number == 0:
            for name in range(arguments.keys):
                fleet[name % hosts].engine.orders.open(key(f"old{name}"), rule=RULE, line="line", now=time.time())
        await _until(lambda: all(len(each.engine.subqueues.all()) >= arguments.keys for each in fleet), within=120.0)
        for place, each in enumerate(fleet):
            for name in range(arguments.held):
                sub = each.engine.subqueues.get(key(f"old{(place + name) % arguments.keys}"))
                assert sub is not None
                sub.held = 10 + place
        await asyncio.sleep(20)  # pauses end, leads are lent
        told.rpush(f"{_TOLD}:ready", number)
        await _until(lambda: told.llen(f"{_TOLD}:ready") >= arguments.processes, within=120.0)
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        lag.clear()
        for second in range(arguments.seconds):
            if number == second % arguments.processes:
                told.set(f"{_TOLD}:at:{second}", time.time())
                fleet[second % hosts].engine.orders.open(key(f"new{second}"), rule=RULE, line="line", now=time.time())
            await _until(lambda s=second: all(each.engine.subqueues.get(key(f"new{s}")) for each in fleet), within=60.0)
            told.rpush(f"{_TOLD}:{second}", time.time())
            await asyncio.sleep(max(0.0, began + second + 1 - time.monotonic()))
        used, took = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        rounds = sorted(each.exchange.round_s for each in fleet)
        silent = sum(bool(each.exchange.silent) for each in fleet)
        alone = sum(each.host.contact.is_alone(now=time.monotonic()) for each in fleet)
        figures = {"cpu": cpu / took, "rss": used.ru_maxrss, "round": rounds[len(rounds) // 2], "silent": silent}
        told.rpush(
            f"{_TOLD}:figures", json.dumps({**figures, "alone": alone, "lag": sorted(lag)[int(0.99 * len(lag))]})
        )


@contextlib.asynccontextmanager
async def _running(each: Sidecar) -> AsyncIterator[None]:
    task = asyncio.create_task(each.exchange.run())
    steps = asyncio.create_task(_step(each))
    try:
        yield
    finally:
        for one in (task, steps):
            one.cancel()
        await asyncio.gather(task, steps, return_exceptions=True)


@contextlib.asynccontextmanager
async def _lag() -> AsyncIterator[list[float]]:
    """Collect how much later than asked for the loop comes back."""
    found: list[float] = []

    async def watch() -> None:
        while True:
            asked = time.monotonic()
            await asyncio.sleep(0.01)
            found.append(time.monotonic() - asked - 0.01)

    task = asyncio.create_task(watch())
    try:
        yield found
    finally:
        task.cancel()


async def _step(each: Sidecar) -> None:
    while True:
        each.engine.step(now=time.time())
        await asyncio.sleep(1.0)


async def _until(condition: Any, *, within: float) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in Redis, or in another task's memory
            await asyncio.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=300)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--keys", type=int, default=100, help="sub-queues that all hosts share")
    parser.add_argument("--held", type=int, default=3, help="of how many of them each host holds mail")
    parser.add_argument("--seconds", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        settings = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen(["redis-server", *settings], stdout=subprocess.DEVNULL)
        try:
            measure(f"unix://{socket}", arguments)
        finally:
            server.kill()
            server.wait()


def measure(url: str, arguments: argparse.Namespace) -> None:
    time.sleep(1)
    store = Redis.from_url(url, decode_responses=True)
    share = arguments.hosts // arguments.processes
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=run, args=(number, share, url, arguments)) for number in range(arguments.processes)
    ]
    for process in processes:
        process.start()
    while store.llen(f"{_TOLD}:ready") < arguments.processes:
        time.sleep(0.2)
        if any(process.exitcode for process in processes):
            raise SystemExit("a process of hosts ended early")
    before, began = store.info(), time.monotonic()
    while store.llen(f"{_TOLD}:figures") < arguments.processes and all(
        process.exitcode is None for process in processes
    ):
        time.sleep(0.1)
    after, took = store.info(), time.monotonic() - began
    figures = [json.loads(text) for text in store.lrange(f"{_TOLD}:figures", 0, -1)]
    seen = [
        max(map(float, store.lrange(f"{_TOLD}:{second}", 0, -1))) - float(store.get(f"{_TOLD}:at:{second}") or 0)
        for second in range(arguments.seconds)
    ]
    for process in processes:
        process.join(30)
    seen.sort()
    hosts = share * arguments.processes
    calls = after["total_commands_processed"] - before["total_commands_processed"]
    server_cpu = sum(after[f"used_cpu_{part}"] - before[f"used_cpu_{part}"] for part in ("user", "sys")) / took
    print(f"{hosts} hosts in {arguments.processes} processes, {arguments.keys} shared sub-queues, {took:.0f} s")
    print(f"paused on all hosts after: median {seen[len(seen) // 2]:.3f} s, most {seen[-1]:.3f} s of {len(seen)}")
    print(
        f"Redis: {calls / took / hosts:.1f} commands/s a host (those in scripts counted), {100 * server_cpu:.0f} % CPU"
    )
    print(
        f"Redis: {after['used_memory_peak'] / 1e6:.1f} MB at most; network {(after['total_net_output_bytes'] - before['total_net_output_bytes']) / took / hosts / 1e3:.1f} kB/s out a host"
    )
    print(
        f"a host: {100 * sum(each['cpu'] for each in figures) / hosts:.2f} % CPU, a round takes {1e3 * max(each['round'] for each in figures):.0f} ms (median of the slowest process)"
    )
    print(
        f"resident: {sum(each['rss'] for each in figures) / hosts / 1e3:.1f} MB a host, rules and Python shared by {share}"
    )
    print(
        f"silent {sum(each['silent'] for each in figures)}, alone {sum(each['alone'] for each in figures)} of them at the end"
    )


if __name__ == "__main__":
    main()

"""Hundreds of simulated hosts (engines and their exchange, no Postfix) at a real Redis: operations, memory, how soon all agree.

    [BEAT=4] python benchmarks/fleet.py [--hosts 60 150 300] [--processes 2] [--keys 100] [--seconds 20]

Every host holds mail of some ramping keys, and all of them of one, so that all ask for their part each round. Every second
one host opens a sub-queue; then a host that leads is dead, then Redis is killed and comes back empty.
"""

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from policies.fleet import terms

BEAT = float(os.environ.get("BEAT", "1"))
"""How many times slower the hosts ask, and leases end: for more hosts than the machine has processors for."""
for _name in ("LEASE", "SILENT_AFTER", "FRESH", "ALONE_AFTER", "GRACE", "ROUND", "DUE_AFTER"):
    setattr(terms, _name, BEAT * getattr(terms, _name))

# ruff: noqa: E402  # what follows takes the times above
from policies.classify import RuleSet
from policies.engine import Engine
from policies.fleet.host import Host
from policies.key import Key
from policies.site import Settings
from policies.subqueue import State
from sidecar import rules
from sidecar.fleet import redis_store
from sidecar.fleet.exchange import Exchange
from sidecar.fleet.redis_store import RedisStore

redis_store.ANSWER_WITHIN *= BEAT
RULE = "google/rate-dkim-domain"
WITHIN = 240.0
"""Seconds after which what is waited for is not waited for any more."""


class Sidecar:
    def __init__(self, name: str, url: str, loaded: RuleSet) -> None:
        self.engine = Engine(loaded, rules.organizational_domain, Settings(act=True, scale=200.0))
        self.host = Host(name, self.engine, steady=time.monotonic)
        self.exchange = Exchange(self.host, RedisStore(url))

    def leads(self, key: Key) -> bool:
        part = self.host.parts.get(key)
        return part is not None and part.replica.token(now=time.monotonic()) is not None


class Use(NamedTuple):
    """What a process with its hosts has used, and how they stand."""

    at: float
    cpu: float
    rss: int
    rounds: int
    round_s: list[float]
    silent: int
    alone: int


def key(name: str) -> Key:
    return Key("dkim-domain", f"{name}.example", "google")


class Hosts:
    """One process with its part of the hosts; it does what it is told, a line at a time."""

    def __init__(self, number: int, count: int, url: str) -> None:
        loaded = rules.load()
        self.fleet = [Sidecar(f"host-{number}-{each}", url, loaded) for each in range(count)]
        self.living = list(self.fleet)

    async def serve(self, orders: Connection) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for each in self.fleet:
                await stack.enter_async_context(_running(each))
            while (order := await asyncio.to_thread(orders.recv)) is not None:
                name, *values = order
                orders.send(await getattr(self, name)(*values))

    async def met(self) -> float:
        return await _until(lambda: all(each.exchange.rounds >= 2 for each in self.fleet))

    async def count(self, members: int) -> float:
        """Wait until all hosts know of so many."""
        return await _until(lambda: all(len(each.host.standing()["hosts"]) == members for each in self.fleet))

    async def open(self, names: Sequence[str]) -> float:
        at = time.time()
        for place, name in enumerate(names):
            self.living[place % len(self.living)].engine.orders.open(key(name), rule=RULE, line="line", now=at)
            await asyncio.sleep(0.05 if len(names) > 1 else 0.0)  # a hundred at once are no day like others
        return at

    async def hold(self, names: Sequence[str], held: int) -> None:
        """Have each host hold mail of the first, and of some of the others."""
        for place, each in enumerate(self.fleet):
            for name in (names[0], *(names[(place + more) % len(names)] for more in range(1, held))):
                sub = each.engine.subqueues.get(key(name))
                assert sub is not None
                sub.held = 10 + place

    async def paused(self, names: Sequence[str]) -> list[float]:
        """Give when each of our hosts had paused all of them."""
        at: dict[str, float] = {}
        keys, missing = [key(name) for name in names], list(self.living)

        def all_have() -> bool:
            for each in list(missing):
                if all(each.engine.subqueues.get(one) for one in keys):
                    at[each.host.name] = time.time()
                    missing.remove(each)
            return not missing

        await _until(all_have)
        return list(at.values())

    async def answered(self, before: str) -> list[float]:
        """Give when each of our hosts had first gone a round at another server than that."""
        at: dict[str, float] = {}

        def all_have() -> bool:
            for each in self.living:
                if each.host.contact.server != before and not each.exchange.silent:
                    at.setdefault(each.host.name, each.exchange.answered_at)
            return len(at) == len(self.living)

        await _until(all_have)
        return list(at.values())

    async def server(self) -> str:
        return self.living[0].host.contact.server

    async def leader(self, name: str) -> str:
        return next((each.host.name for each in self.living if each.leads(key(name))), "")

    async def kill(self, host: str) -> float:
        """Have a host ask no more, as one that is dead."""
        for each in self.living:
            if each.host.name == host:
                each.engine.settings = each.engine.settings._replace(act=False)
        self.living = [each for each in self.living if each.host.name != host]
        return time.time()

    async def rates(self, names: Sequence[str]) -> list[float]:
        """Give what our hosts together are lent of the pace of each, over that pace."""
        return [sum(self._part(each, name) for each in self.living) for name in names]

    def _part(self, each: Sidecar, name: str) -> float:
        part = each.host.parts.get(key(name))
        if part is None or part.replica.row.state is not State.RAMPING:
            return 0.0
        return part.rate(0.0) / part.replica.row.ceiling

    async def use(self) -> Use:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return Use(
            time.time(),
            used.ru_utime + used.ru_stime,
            used.ru_maxrss,
            sum(each.exchange.rounds for each in self.living),
            [each.exchange.round_s for each in self.living],
            sum(bool(each.exchange.silent) for each in self.living),
            sum(each.host.contact.is_alone(now=time.monotonic()) for each in self.living),
        )


@contextlib.asynccontextmanager
async def _running(each: Sidecar) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.exchange.run()), asyncio.create_task(_step(each))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _step(each: Sidecar) -> None:
    while True:
        each.engine.step(now=time.time())
        await asyncio.sleep(1.0)


async def _until(condition: Callable[[], bool]) -> float:
    async with asyncio.timeout(WITHIN):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in other tasks' memory
            await asyncio.sleep(0.01)
    return time.time()


def run(number: int, count: int, url: str, orders: Connection) -> None:
    logging.disable(logging.WARNING)
    asyncio.run(Hosts(number, count, url).serve(orders))


class Fleet:
    """All processes, as one."""

    def __init__(self, hosts: int, processes: int, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._orders: list[Connection] = []
        self._processes: list[Any] = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            count = (hosts + number) // processes
            self._orders.append(ours)
            self._processes.append(context.Process(target=run, args=(number, count, url, theirs), daemon=True))
            self._processes[-1].start()
            theirs.close()

    def each(self, *order: Any) -> list[Any]:
        """Have all do it at once; what each says."""
        for orders in self._orders:
            orders.send(order)
        return [orders.recv() for orders in self._orders]

    def one(self, number: int, *order: Any) -> Any:
        self._orders[number].send(order)
        return self._orders[number].recv()

    def stop(self) -> None:
        for orders in self._orders:
            orders.send(None)
        for process in self._processes:
            process.join(30)


class Server:
    def __init__(self, folder: str) -> None:
        self._socket = Path(folder) / "redis.sock"
        self._folder = folder
        self.url = f"unix://{self._socket}"
        self.start()

    def start(self) -> None:
        settings = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--dir", self._folder]
        self._process = subprocess.Popen(["redis-server", *settings], stdout=subprocess.DEVNULL)
        self.redis = Redis.from_url(self.url, decode_responses=True)
        for _ in range(200):
            with contextlib.suppress(RedisError):
                self.redis.ping()
                return
            time.sleep(0.05)
        raise SystemExit("redis-server does not answer")

    def kill(self) -> None:
        self.redis.close()
        self._process.kill()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, nargs="+", default=[60, 150, 300])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keys", type=int, default=100, help="sub-queues that all hosts share")
    parser.add_argument("--held", type=int, default=3, help="of how many of them each host holds mail")
    parser.add_argument("--seconds", type=int, default=20)
    arguments = parser.parse_args()
    for hosts in arguments.hosts:
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            try:
                fleet = Fleet(hosts, arguments.processes, server.url)
                measure(hosts, fleet, server, arguments)
                fleet.stop()
            finally:
                server.kill()


def measure(hosts: int, fleet: Fleet, server: Server, arguments: argparse.Namespace) -> None:
    print(
        f"{hosts} hosts in {arguments.processes} processes, times x {BEAT:g}, load {os.getloadavg()[0]:.1f} at the start",
        flush=True,
    )
    began = time.time()
    met = max(fleet.each("met"))
    print(f"  all have met {met - began:.1f} s after the first was started", flush=True)
    fleet.each("count", hosts)
    old = [f"old{number}" for number in range(arguments.keys)]
    fleet.one(0, "open", old)
    fleet.each("paused", old)
    fleet.each("hold", old, arguments.held)
    time.sleep(20 * BEAT)  # pauses end, leads are lent
    steady(hosts, fleet, server, arguments.seconds)
    lead_dies(fleet, old)
    restarts(fleet, server, [*old, *(f"new{second}" for second in range(arguments.seconds))])


def steady(hosts: int, fleet: Fleet, server: Server, seconds: int) -> None:
    server.redis.config_resetstat()
    before, used, began = server.redis.info("all"), fleet.each("use"), time.monotonic()
    last, each = [], []
    for second in range(seconds):
        name = f"new{second}"
        opened = fleet.one(second % len(used), "open", [name])
        late = [at - opened for found in fleet.each("paused", [name]) for at in found]
        last.append(max(late))
        each += late
        time.sleep(max(0.0, began + second + 1 - time.monotonic()))
    after, now, took = server.redis.info("all"), fleet.each("use"), time.monotonic() - began
    rounds = sum(use.rounds for use in now) - sum(use.rounds for use in used)
    print(f"  paused on a host: {_spread(each)} of {len(each)}; on all: {_spread(last)} of {len(last)}")
    commands = {
        name.removeprefix("cmdstat_"): stat["calls"] for name, stat in after.items() if name.startswith("cmdstat_")
    }
    listed = ", ".join(f"{name} {calls / took / hosts:.2f}" for name, calls in sorted(commands.items()))
    print(
        f"  Redis, commands/s a host, those in scripts (get, expire, info, setrange, time, most of set) counted: {listed}"
    )
    cpu = sum(after[f"used_cpu_{part}"] - before[f"used_cpu_{part}"] for part in ("user", "sys")) / took
    inward, outward = (after[f"total_net_{way}_bytes"] / took / hosts / 1e3 for way in ("input", "output"))
    print(
        f"  Redis: {100 * cpu:.0f} % of a core, {after['used_memory_peak'] / 1e6:.1f} MB at most, "
        f"from a host {inward:.1f}, to it {outward:.1f} kB/s"
    )
    own = sum(use.cpu for use in now) - sum(use.cpu for use in used)
    print(
        f"  a host: {100 * own / took / hosts:.2f} % of a core, {rounds / took / hosts:.2f} rounds/s, each "
        f"{_spread([one for use in now for one in use.round_s])}; {sum(use.rss for use in now) / hosts / 1e3:.1f} MB"
    )
    silent, alone = sum(use.silent for use in now), sum(use.alone for use in now)
    print(f"  {silent} silent, {alone} alone; load {os.getloadavg()[0]:.1f}", flush=True)


def lead_dies(fleet: Fleet, names: Iterable[str]) -> None:
    for name in names:
        found = fleet.each("leader", name)
        if host := next(filter(None, found), ""):
            died = max(fleet.each("kill", host))
            while not any(fleet.each("leader", name)):
                time.sleep(0.02)
            print(f"  another host leads {time.time() - died:.1f} s after the one with the lead died", flush=True)
            return
    print("  no host led", flush=True)


def restarts(fleet: Fleet, server: Server, names: Sequence[str]) -> None:
    before = fleet.one(0, "server")
    server.kill()
    time.sleep(8.0)
    used = fleet.each("use")
    server.start()
    back = time.time()
    fleet.one(0, "open", ["first"])
    late = [at - back for found in fleet.each("answered", before) for at in found]
    now, asked = fleet.each("use"), server.redis.info("all")
    cpu = sum(use.cpu for use in now) - sum(use.cpu for use in used)
    print(
        f"  Redis back, empty: until all had gone their round {cpu:.1f} s of processor time for {len(late)} hosts, "
        f"{asked['used_cpu_user'] + asked['used_cpu_sys']:.1f} s for Redis, {asked['cmdstat_eval']['calls']} scripts and "
        f"{asked['cmdstat_get']['calls']} texts, in {max(use.at for use in now) - back:.1f} s"
    )
    told = [at - back for found in fleet.each("paused", ["first"]) for at in found]
    known = 0
    while known < len(names) + 1 and time.time() - back < WITHIN:
        known = sum(1 for _ in server.redis.scan_iter("sidecar:{book:*", count=1_000))
        time.sleep(0.02)
    print(
        f"  Redis back, empty: a host has gone its round after {_spread(late)}, has paused what was opened meanwhile after "
        f"{_spread(told)}; all {known} books there after {time.time() - back:.1f} s; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def _spread(values: Sequence[float]) -> str:
    found = sorted(values)
    return f"{found[len(found) // 2]:.3f} s median, {found[int(0.99 * (len(found) - 1))]:.3f} p99, {found[-1]:.3f} most"


if __name__ == "__main__":
    main()

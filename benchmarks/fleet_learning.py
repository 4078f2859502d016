"""How soon what one host learned of names is known on all, and how soon a part of a quota or a warm-up is lent, also after
Redis hung; five hosts in one process at a real Redis.

python benchmarks/fleet_learning.py [--hosts 5] [--times 60] [--facts 10000] [--hangs 20]
"""

import argparse
import asyncio
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from policies.fleet.host import Host
from policies.warm_up import Plan, WarmUps
from sidecar.fleet.quotas import SharedQuotas
from sidecar.fleet.redis_store import RedisStore
from sidecar.fleet.warm_ups import SharedWarmUps
from tests.quota_world import admitted, quotas
from tests.redis_world import Server, running_server, sidecars, until
from tests.test_fleet_maps import Learner, learners
from tests.test_fleet_quotas import ROW, forgets

PLAN = Plan("nat-1", 0, 1_000_000, 1.5, 2_000_000, fleet=True)


class Lent:
    """One host's parts."""

    def __init__(self, host: Host, learner: Learner, url: str) -> None:
        self.buckets = quotas(ROW)
        self.warm_ups = WarmUps([PLAN])
        self.quotas = SharedQuotas(host, RedisStore(url), self.buckets, remember=forgets)
        self.budgets = SharedWarmUps(
            host,
            RedisStore(url),
            self.warm_ups,
            learner.store.fleet_warm_ups,
            tell=lambda *_, **__: None,
            thread=learner.thread,
        )

    def may_send(self, provider: str) -> bool:
        """Whether a message goes over the address; if not it is counted, as smtpd's question is."""
        now = time.time()
        spent = self.warm_ups.refuses("nat-1", {provider: 1}, now=now)
        if spent is not None:
            self.warm_ups.turned_away("nat-1", spent, 1)
        return spent is None

    def may_take(self, tenant: str, count: int) -> bool:
        """Whether that much more of a quota is let in."""
        return (
            admitted(self.buckets, count, now=time.time(), message=f"{tenant}-{time.time()}", sasl_username=tenant) > 0
        )


async def measure(folder: Path, arguments: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(folder))
        fleet = await stack.enter_async_context(sidecars(server.url, arguments.hosts))
        hosts = await stack.enter_async_context(learners(server, folder, fleet, skews=(0.0,) * len(fleet)))
        lent = [Lent(each.host, mine, server.url) for each, mine in zip(fleet, hosts, strict=True)]
        tasks = [asyncio.create_task(each.run()) for mine in lent for each in (mine.quotas, mine.budgets)]
        await until(lambda: not any(each.maps.silent for each in hosts), within=60.0)
        await until(lambda: all(each.budgets.declaring.complete for each in lent), within=60.0)
        await until(lambda: all(each.quotas.declaring.complete for each in lent), within=60.0)
        await _facts(hosts, arguments)
        took = [
            await until(partial(lent[number % len(lent)].may_send, f"p{number}"), within=60.0)
            for number in range(arguments.times)
        ]
        print(f"the first recipient of a provider may go over the address after: {_said(took)}")
        await _hang(server, hosts, lent, arguments.hangs)
        store = RedisStore(server.url)
        known: Any = await store.redis.info()
        await store.close()
        print(f"Redis: {known['used_memory'] / 1e6:.1f} MB")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _facts(hosts: list[Learner], arguments: argparse.Namespace) -> None:
    took = []
    for number in range(arguments.times):
        hosts[number % len(hosts)].learns(f"{number}.example")
        took.append(await until(_known(hosts, f"{number}.example"), within=60.0))
    print(f"one fact, on all {len(hosts)}: {_said(took)}")
    for number in range(arguments.facts):
        hosts[0].learns(f"many-{number}.example")
    last = await until(_known(hosts, f"many-{arguments.facts - 1}.example"), within=300.0)
    print(f"{arguments.facts} facts of one host, on all {len(hosts)}: {last:.1f} s")


async def _hang(server: Server, hosts: list[Learner], lent: list[Lent], seconds: float) -> None:
    """Have Redis stand still, learn and want something meanwhile, and see how soon all have it after."""
    server.send(signal.SIGSTOP)
    hosts[0].learns("hung.example")
    lent[1].may_take("hung", 300)
    lent[2].may_send("hung")
    await asyncio.sleep(seconds)
    server.send(signal.SIGCONT)
    ends = (
        until(_known(hosts, "hung.example"), within=60.0),
        until(lambda: lent[1].may_take("hung", 1), within=60.0),
        until(lambda: lent[2].may_send("hung"), within=60.0),
    )
    fact, quota, budget = await asyncio.gather(*ends)
    print(
        f"after Redis hung for {seconds:g} s: a fact on all {fact:.1f} s, a quota {quota:.1f} s, a warm-up {budget:.1f} s"
    )


def _known(hosts: list[Learner], domain: str) -> Callable[[], bool]:
    return lambda: all(each.knows(domain) for each in hosts)


def _said(took: list[float]) -> str:
    ordered = sorted(took)
    return f"median {ordered[len(ordered) // 2]:.2f} s, most {ordered[-1]:.2f} of {len(ordered)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=5)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--facts", type=int, default=10_000)
    parser.add_argument("--hangs", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), arguments))


if __name__ == "__main__":
    main()

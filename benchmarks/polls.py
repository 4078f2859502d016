"""Polls of a site for a simulated year: questions a day to each operator of lists beside its free-use limit; memory.

The real poller, feeds, cadences and store, with a clock of its own and a DNS that answers at once. Usage:
`polls.py [--days 365] [--addresses 200] [--domains 2000] [--store DIRECTORY] [--json]`. A run that finds a store in
DIRECTORY goes on where that one stopped, as the outside process does after a restart.
"""

import argparse
import asyncio
import gc
import heapq
import json
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from parsers.feeds import dnsbl
from parsers.feeds.asking import Answer, Ask, DnsAnswer, DnsAsk, HttpAnswer, HttpAsk, Kept, Poll, Reading
from parsers.feeds.dnsbl import BlockList
from sidecar import blocklists, mx
from sidecar.asking import Asking
from sidecar.config import Config, FeedsConfig, SenderScoreConfig, SpamhausSiaConfig
from sidecar.feeds import FEEDS
from sidecar.outside_store import OutsideStore, RawAnswer
from sidecar.poller import Polled, Poller
from sidecar.scope import Scope

DAY = 86_400.0
START = 1_795_255_200.0
MONTH = 30

LIMITS = {"spamhaus.org": 300_000}
"""Questions a day that an operator's terms for free use name. The others name none, or none that is public."""
ASKED = (*blocklists.CADENCES, "senderscore", "spamhaus-sia")


class Year(NamedTuple):
    a_day: dict[str, list[int]]
    """Operator -> questions of each day."""
    resident_mb: list[float]
    """At the end of each month, and at the end."""
    store_mb: float
    polls: int
    seconds: float


def resident_mb() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


class World(Asking):
    """Answers every question, and counts it by operator and day. One address is listed for ten days in each month."""

    def __init__(self, listed: str, *, days: int) -> None:
        super().__init__(mx.system_resolver)
        self.now = START
        self._today = 0
        self.a_day: defaultdict[str, list[int]] = defaultdict(lambda: [0] * days)
        lists = blocklists.in_force(Config())
        self._points = {f"{dnsbl.test_points(each.list)[0]}.{each.zone}": listing(each.list) for each in lists}
        about = dnsbl.subject(listed, {})
        self._listed = {
            f"{about.name}.{each.zone}": listing(each.list) for each in lists if about.kind in each.list.kinds
        }

    @property
    def day(self) -> int:
        return int((self.now - START) // DAY)

    async def poll(self, poll: Poll) -> tuple[Reading, list[RawAnswer]]:
        self._today = self.day
        asks = next(poll)
        while True:
            try:
                asks = poll.send(tuple(self._say(ask) for ask in asks))
            except StopIteration as end:
                return end.value, []

    def _say(self, ask: Ask) -> Answer:
        match ask:
            case DnsAsk():
                self.a_day[operator_of(ask.zone or ask.name)][self._today] += 1
                return self._look_up(ask)
            case HttpAsk():
                self.a_day["api.spamhaus.org"][self._today] += 1
                kind = (("content-type", "application/json"),)
                login = "login" in ask.url
                return HttpAnswer(200 if login else 404, kind, b'{"token": "t"}' if login else b'{"code": 404}')
            case _:
                return Kept()

    def _look_up(self, ask: DnsAsk) -> DnsAnswer:
        if ask.name.endswith(".score.senderscore.com"):
            return DnsAnswer("NOERROR", ("127.0.4.97",))
        found = self._points.get(ask.name) or (self._listed.get(ask.name) if self._today % MONTH < 10 else None)
        if found and ask.type == "TXT":
            return DnsAnswer("NOERROR", ("see https://list.example/why",))
        return DnsAnswer("NOERROR", (found,)) if found else DnsAnswer("NXDOMAIN")


@cache
def operator_of(zone: str) -> str:
    return ".".join(zone.rsplit(".", 2)[-2:])


def listing(spec: BlockList) -> str:
    """Give an answer of the list that says that something is listed."""
    if spec.codes:
        return next(iter(spec.codes))
    if spec.bits:
        return f"127.0.0.{next(iter(spec.bits))}"
    return spec.ranges[0].first if spec.ranges else "127.0.5.2"


async def simulated(days: int, addresses: int, domains: int, directory: Path, *, month: int) -> Year:
    """Poll for so many days, each feed when its standing says so. `month`: days between two looks at the memory."""
    password = directory / "password"
    password.write_text("x")
    sia = SpamhausSiaConfig(enabled=True, username="us", password=str(password))
    config = Config(feeds=FeedsConfig(senderscore=SenderScoreConfig(enabled=True), spamhaus_sia=sia))
    scope = Scope(
        tuple(f"198.51.{n // 250}.{n % 250}" for n in range(addresses)), tuple(f"d{n}.example" for n in range(domains))
    )
    world = World(scope.addresses[0], days=days)
    store = OutsideStore.open(directory / "outside.db")
    feeds = {name: FEEDS[name] for name in ASKED}
    ended = 0

    def told(_: str, polled: Polled) -> None:
        nonlocal ended
        ended += 1
        assert polled.reading.trouble is None, polled.reading.why

    poller = Poller(config, feeds, store, world, find_scope=lambda _: scope, told=told, clock=lambda: world.now)
    plan = [(store.standing(name).next_at or START + number, name) for number, name in enumerate(feeds)]
    heapq.heapify(plan)
    began, world.now = time.monotonic(), plan[0][0]
    first, pruned, looked = world.day, world.now, world.now
    memory: list[float] = []
    listings = poller.listings("spamhaus-sia")
    while plan[0][0] < START + days * DAY:
        world.now, name = heapq.heappop(plan)
        if world.now - looked >= month * DAY:
            looked += month * DAY
            memory.append(resident_mb())
            done = f"{world.day} days, the last {world.day - first} in {time.monotonic() - began:.0f} s"
            print(f"{done}: {memory[-1]:.1f} MB", file=sys.stderr)  # it takes most of an hour
        if world.now - pruned > DAY:
            pruned = world.now
            store.prune(now=world.now)
        polled = await poller.poll(name)
        heapq.heappush(plan, (polled.standing.next_at, name))
        while not listings.empty():
            await poller.poll("spamhaus-sia", about=frozenset({listings.get_nowait()}))
    memory.append(resident_mb())
    store.close()
    size = (directory / "outside.db").stat().st_size / 1e6
    a_day = {operator: counts[first:] for operator, counts in world.a_day.items()}
    return Year(a_day, memory, size, ended, time.monotonic() - began)


def year(days: int, addresses: int, domains: int, *, month: int = MONTH, directory: Path | None = None) -> Year:
    random.seed(1)  # the jitter of the cadences
    if directory is not None:
        return asyncio.run(simulated(days, addresses, domains, directory, month=month))
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(simulated(days, addresses, domains, Path(name), month=month))


def rows(found: Year) -> list[dict[str, Any]]:
    """Give a row for each operator: questions a day, and the share of its limit on the worst day."""
    return [
        {
            "operator": operator,
            "mean": round(sum(days) / len(days)),
            "most": max(days),
            "limit": LIMITS.get(operator),
            "share": round(max(days) / LIMITS[operator], 3) if operator in LIMITS else None,
        }
        for operator, days in sorted(found.a_day.items(), key=lambda pair: -max(pair[1]))
    ]


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__)
    wanted.add_argument("--days", type=int, default=365)
    wanted.add_argument("--addresses", type=int, default=200)
    wanted.add_argument("--domains", type=int, default=2000)
    wanted.add_argument("--store", type=Path, help="go on with the store in this directory, or begin one there")
    wanted.add_argument("--json", action="store_true")
    given = wanted.parse_args()
    found = year(given.days, given.addresses, given.domains, directory=given.store)
    if given.json:
        print(json.dumps({**found._asdict(), "a_day": rows(found)}))
        return
    print(f"{given.addresses} addresses, {given.domains} domains, {given.days} days: {found.polls} polls")
    print(f"{'operator':<24}{'a day':>10}{'most':>10}  limit for free use")
    for row in rows(found):
        limit = f"{row['limit']} ({row['share']:.0%} on the worst day)" if row["limit"] else "none published"
        print(f"{row['operator']:<24}{row['mean']:>10}{row['most']:>10}  {limit}")
    print(f"resident, MB, by month: {', '.join(f'{each:.1f}' for each in found.resident_mb)}")
    print(f"store: {found.store_mb:.1f} MB; {found.seconds:.0f} s")


if __name__ == "__main__":
    main()

"""Quotas that several hosts have together: never more than one bucket lets in, whatever fails; and what is there can be used."""

import asyncio
import time
from collections.abc import Sequence
from math import exp
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.buckets import Quotas
from policies.engine import Engine
from policies.fleet.allowance import APART, HOLDS, UNASKED, WHOLE, Allowance, Wish, lend
from policies.fleet.host import Host
from policies.fleet.roll import Roll, enrol
from policies.fleet.terms import REDUCED
from policies.quota import Within
from policies.site import Settings
from sidecar import rules
from sidecar.fleet.quotas import SharedQuotas
from sidecar.fleet.redis_store import RedisStore, StoreSilent
from tests.fleet_memory import Memory, Way
from tests.quota_world import admitted, end, quota, quotas
from tests.redis_world import running_server, sidecars, until
from tests.world import RULES

BURST, LIMIT = 1_000, 1_000
ROW = quota(limit=LIMIT, burst=BURST, within=Within.HOUR, fleet=True)
DRAIN = 3_600.0
"""Seconds in which the whole comes back."""
RATE = LIMIT / DRAIN


async def forgets(_: float) -> None:
    """What a host is told is not kept."""


class Mx:
    def __init__(self, memory: Memory, name: str, *, ahead: float = 0.0, alone: float = 0.0) -> None:
        """`ahead`: seconds that its clock is before the store's; `alone`: what it was told before core began."""
        self.memory = memory
        self.ahead = ahead
        self.name = name
        self.quotas: Quotas = quotas(ROW)
        self.messages = 0
        self.remembered = alone
        engine = Engine(RULES, rules.organizational_domain, Settings(act=True))
        self.host = Host(name, engine, steady=lambda: memory.at)
        self.host.contact.alone_before = alone
        self.shared = SharedQuotas(self.host, Way(memory, name), self.quotas, remember=self.remember, clock=self.clock)

    def enrol(self) -> None:
        memory, contact = self.memory, self.host.contact
        if self.name in memory.cut_off:
            return
        text = memory.texts.get("roll", "")
        roll = enrol(Roll.read(text) if text else None, contact.asking(), server=str(memory.life), at=memory.at)
        memory.texts["roll"] = roll.text()
        contact.answered(roll, at=memory.at, sent=memory.at, now=memory.at)

    async def remember(self, alone: float) -> None:
        self.remembered = alone

    def clock(self) -> float:
        return self.memory.at + self.ahead

    async def looks(self) -> None:
        self.enrol()
        try:
            await self.shared.look()
        except StoreSilent:
            assert self.name in self.memory.cut_off

    def takes(self, count: int) -> int:
        self.messages += 1
        name = f"{self.name}-{self.messages}"
        taken = admitted(self.quotas, count, now=self.clock(), message=name)
        end(self.quotas, taken, now=self.clock(), message=name)
        return taken


async def fleet(count: int, *, ahead: Sequence[float] = (0.0,) * 5) -> tuple[Memory, list[Mx]]:
    memory = Memory()
    hosts = [Mx(memory, f"mx{number}", ahead=ahead[number]) for number in range(count)]
    for _ in range(8):
        memory.at += 3.0
        for each in hosts:
            await each.looks()
    return memory, hosts


async def asks_again(memory: Memory, host: Mx, hosts: list[Mx], rounds: int = 15) -> int:
    taken = 0
    for _ in range(rounds):
        taken += host.takes(BURST)
        memory.at += 2.0
        for each in hosts:
            await each.looks()
    return taken


def test_who_needs_all_of_it_gets_nearly_all_and_others_what_comes_back() -> None:
    async def story() -> None:
        memory, hosts = await fleet(5)
        assert sum(each.shared.status()["part"] for each in hosts) <= 1.0
        first = await asks_again(memory, hosts[0], hosts)
        assert 0.8 * BURST < first <= BURST * WHOLE
        memory.at += 5_400.0
        for _ in range(4):  # what is drained is given back, and lent to another
            memory.at += 61.0
            for each in hosts:
                await each.looks()
        assert hosts[0].shared.leases == {}
        assert await asks_again(memory, hosts[1], hosts) > 0.75 * BURST

    asyncio.run(story())


def test_a_host_that_was_paused_for_a_minute_is_lent_its_part_within_five_seconds_whatever_the_clocks_say() -> None:
    async def story() -> None:
        memory, hosts = await fleet(3, ahead=(0.0, 3_600.0, -86_400.0))
        taken = hosts[1].takes(60)
        for _ in range(20):  # a minute, in which mx0 does nothing
            memory.at += 3.0
            for each in hosts[1:]:
                await each.looks()
        taken += hosts[0].takes(BURST)
        for _ in range(2):
            memory.at += 2.5
            for each in hosts:
                await each.looks()
        again = hosts[0].takes(BURST)
        assert again > 0.2 * BURST
        assert taken + again <= WHOLE * BURST + 120.0 * RATE

    asyncio.run(story())


def test_two_who_need_it_share_it() -> None:
    async def story() -> None:
        memory, hosts = await fleet(2)
        taken = [0, 0]
        for _ in range(20):
            for number in (0, 1):
                taken[number] += hosts[number].takes(100)
            memory.at += 2.0
            for each in hosts:
                await each.looks()
        assert min(taken) > 0.3 * BURST
        assert sum(taken) <= WHOLE * BURST + 60.0 * RATE

    asyncio.run(story())


def test_without_the_store_each_keeps_what_it_had_and_has_an_equal_part_in_the_end() -> None:
    async def story() -> None:
        memory, hosts = await fleet(2)
        hosts[0].takes(200)
        await hosts[0].looks()
        part = hosts[0].quotas.bucket("q", "shop")
        assert part is not None
        had = part.quota.part
        assert had > 0.4
        memory.cut_off = {"mx0", "mx1"}
        memory.at += HOLDS / 2
        await hosts[0].looks()
        assert part.quota.part == had
        for _ in range(5):
            memory.at += DRAIN
            for each in hosts:
                await each.looks()
        assert [round(each.quotas.quotas["q"].part, 2) for each in hosts] == [0.5, 0.5]
        assert round(part.quota.part, 2) == 0.5
        hosts[1].takes(450)
        memory.cut_off = set()
        for each in 3 * hosts:  # a majority has to prove that it hears
            memory.at += 1.0
            await each.looks()
        assert hosts[0].quotas.quotas["q"].part == UNASKED * REDUCED / 2
        assert hosts[1].shared.leases["q", "shop"].part > 0.4 - UNASKED * REDUCED / 2  # what is in use is told at once

    asyncio.run(story())


def test_all_hosts_together_use_the_whole_quota_while_the_store_is_away_for_days() -> None:
    """A tenant whose mail comes through all hosts is put off no more than with one bucket."""

    async def story() -> None:
        memory, hosts = await fleet(5)
        memory.cut_off = {each.name for each in hosts}
        memory.at += APART + 3.0 * DRAIN
        for _ in range(int(DRAIN / 60.0)):
            memory.at += 60.0
            for each in hosts:
                await each.looks()
        taken, hour = 0, int(DRAIN / 60.0)
        for each in hosts:
            each.takes(BURST)
        for _ in range(hour):
            memory.at += 60.0
            for each in hosts:
                await each.looks()
                taken += each.takes(BURST)
        assert 0.95 * LIMIT < taken <= 1.05 * LIMIT

    asyncio.run(story())


def test_one_who_is_away_for_long_is_left_its_equal_part() -> None:
    async def story() -> None:
        memory, hosts = await fleet(3)
        memory.cut_off = {"mx2"}
        for _ in range(int((APART + 4.0 * DRAIN) / 300.0)):
            memory.at += 300.0
            for each in hosts:
                await each.looks()
        assert await asks_again(memory, hosts[0], hosts) + hosts[2].takes(BURST) <= WHOLE * BURST + 30.0 * RATE
        assert hosts[2].quotas.quotas["q"].part > 0.3

    asyncio.run(story())


def test_what_a_host_that_died_has_used_is_lent_again_as_it_comes_back() -> None:
    async def story() -> None:
        memory, hosts = await fleet(3)
        first = await asks_again(memory, hosts[0], hosts)
        memory.cut_off = {"mx0"}
        memory.at += HOLDS + 50.0
        second = await asks_again(memory, hosts[1], hosts[1:])
        assert first + second <= WHOLE * BURST + (HOLDS + 100.0) * RATE
        memory.at += 4.0 * DRAIN
        for each in hosts[1:]:
            await each.looks()
        assert await asks_again(memory, hosts[1], hosts[1:]) > 0.5 * BURST

    asyncio.run(story())


def test_a_dead_host_s_part_of_a_day_is_lent_no_sooner_than_it_drains() -> None:
    day, pool = 86_400.0, 0.8
    lent = lend(None, Wish("mx0", 0.0, pool, day), pool, may_grow=True, all_declared=True, server="1", at=0.0)
    assert lent.part("mx0") == pool
    for at, part in ((HOLDS, 0.0), (HOLDS + day / 4, pool * (1.0 - exp(-0.25)))):
        later = lend(lent, Wish("mx1", 0.0, pool, day), pool, may_grow=True, all_declared=True, server="1", at=at)
        assert round(later.part("mx1"), 6) == round(part, 6)


def test_a_store_that_restarts_empty_lends_nothing_until_all_have_told_what_they_hold() -> None:
    async def story() -> None:
        memory, hosts = await fleet(3)
        first = await asks_again(memory, hosts[0], hosts)
        memory.texts.clear()
        memory.life += 1
        memory.cut_off = {"mx0"}
        assert first + await asks_again(memory, hosts[1], hosts[1:]) <= WHOLE * BURST + 40.0 * RATE
        memory.cut_off = set()
        for _ in range(5):
            memory.at += 3.0
            for each in hosts:
                await each.looks()
        assert all(each.shared.declaring.complete == str(memory.life) for each in hosts)
        assert first + await asks_again(memory, hosts[2], hosts) <= 1.1 * BURST

    asyncio.run(story())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 2), st.sampled_from([1, 20, 300, BURST])),
        st.tuples(st.just("look"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("cut off"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("heal"), st.integers(0, 2), st.just(0)),
        st.tuples(st.sampled_from(["restart", "fail over"]), st.just(0), st.just(0)),
        st.tuples(
            st.just("wait"),
            st.just(0),
            st.sampled_from([1, 7, 61, int(HOLDS) - 1, int(HOLDS) + 100, int(APART) + 100, 3_600]),
        ),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_never_more_than_one_bucket_lets_in(steps: list[tuple[str, int, int]]) -> None:
    async def story() -> None:
        memory, hosts = await fleet(3)
        level, drained = 0.0, memory.at
        for do, number, count in steps:
            host = hosts[number]
            match do:
                case "take":
                    level = max(0.0, level - (memory.at - drained) * RATE) + host.takes(count)
                    drained = memory.at
                    assert level <= 1.1 * BURST
                case "look":
                    await host.looks()
                case "cut off":
                    memory.cut_off.add(host.name)
                case "heal":
                    memory.cut_off.discard(host.name)
                case "restart":
                    memory.texts.clear()
                    memory.life += 1
                case "fail over":
                    memory.life += 1
                case _:
                    memory.at += count

    asyncio.run(story())


def test_hosts_that_all_restart_while_the_store_is_away_have_one_quota_together() -> None:
    async def story() -> None:
        memory, hosts = await fleet(4)
        for each in hosts:
            await each.shared._keep()
        memory.cut_off = {each.name for each in hosts}
        again = [Mx(memory, each.name, alone=each.remembered) for each in hosts]
        for each in again:
            await each.looks()
            await each.shared._keep()
        assert [each.remembered for each in again] == [each.remembered for each in hosts]
        assert sum(each.takes(BURST) for each in again) == BURST
        memory.cut_off = set()
        for _ in range(8):
            memory.at += 3.0
            for each in again:
                await each.looks()
        assert sum(each.quotas.quotas["q"].part for each in again) == UNASKED * REDUCED
        assert sum(each.takes(BURST) for each in again) < 0.1 * BURST  # what is in use is known to all

    asyncio.run(story())


def test_hosts_at_a_real_store_let_in_what_one_bucket_does(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 3) as fleet:
            buckets = [quotas(ROW) for _ in fleet]
            shared = [
                SharedQuotas(each.host, RedisStore(server.url), mine, remember=forgets)
                for each, mine in zip(fleet, buckets, strict=True)
            ]
            tasks = [asyncio.create_task(each.run()) for each in shared]
            taken = 0

            def more() -> bool:
                nonlocal taken
                for number, mine in enumerate(buckets):
                    taken += admitted(mine, 50, now=time.time(), message=f"{number}-{taken}")
                return taken > 0.8 * BURST

            await until(lambda: all(each.declaring.complete for each in shared))
            await until(more)
            assert taken <= BURST * WHOLE
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scene())


def test_a_quota_that_drains_soon_on_one_host_does_not_shorten_what_another_was_lent() -> None:
    def come(allowance: Allowance | None, host: str, want: float, drain: float, at: float) -> Allowance:
        return lend(allowance, Wish(host, 0.0, want, drain), WHOLE, may_grow=True, all_declared=True, server="s", at=at)

    day, minute = 86_400.0, 60.0  # a changed config has come to one of three
    book = come(None, "a", 1.0, day, 0.0)
    assert book.part("a") == 1.0
    book = come(come(book, "b", 0.0, minute, 1.0), "c", 1.0, day, 2.0)
    assert book.part("c") <= WHOLE - 1.0 + 1e-9

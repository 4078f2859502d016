"""What one address carries in a day, where several hosts send from it: never more than its figure, whatever fails; and it grows
from what all of them sent."""

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.engine import Engine
from policies.fleet.budget import Budget, Share
from policies.fleet.host import Host
from policies.fleet.roll import Roll, enrol
from policies.key import EVERYWHERE
from policies.site import Settings
from policies.warm_up import DAY, Level, Outcome, Plan, WarmUps
from sidecar import rules
from sidecar.fleet.redis_store import RedisStore
from sidecar.fleet.warm_ups import NAME, SharedWarmUps
from sidecar.store import Store
from tests.fleet_memory import Memory, Way
from tests.redis_world import running_server, sidecars, until
from tests.world import RULES

FIRST = 20_000
PLAN = Plan("out", FIRST, 200, 2.0, 100_000, fleet=True)
REFUSED = Outcome(deferred=True, against_us=True)


class Kept:
    """What a host's own store keeps of the fleet's figures."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Level] = {}

    def levels(self) -> list[Level]:
        return list(self.kept.values())

    def keep(self, levels: list[Level]) -> None:
        self.kept.update({(each.transport, each.provider): each for each in levels})


class Mx:
    def __init__(self, memory: Memory, name: str, *, ahead: float = 0.0) -> None:
        """`ahead`: seconds that its clock is before the store's."""
        self.memory = memory
        self.name = name
        self.ahead = ahead
        self.kept: Any = Kept()
        self.said: list[tuple[str, str]] = []
        self.warm_ups = WarmUps([PLAN])
        self.thread = ThreadPoolExecutor(1)
        self.begin()

    def begin(self) -> None:
        """As core begins, with what its store kept."""
        levels = {**self.warm_ups._levels}
        self.warm_ups = WarmUps([PLAN])
        for level in levels.values():
            self.warm_ups.restore(level)
        engine = Engine(RULES, rules.organizational_domain, Settings(act=True))
        self.host = Host(self.name, engine, steady=lambda: self.memory.at)
        self.shared = SharedWarmUps(
            self.host,
            Way(self.memory, self.name),
            self.warm_ups,
            self.kept,
            tell=self._tell,
            thread=self.thread,
            clock=self.clock,
        )

    def clock(self) -> float:
        return self.memory.at + self.ahead

    def _tell(self, kind: str, why: str, **more: Any) -> None:
        self.said.append((f"{kind}: {why}", more["by_whom"]))

    async def looks(self) -> None:
        memory, contact = self.memory, self.host.contact
        if self.name in memory.cut_off:
            return
        text = memory.texts.get("roll", "")
        roll = enrol(Roll.read(text) if text else None, contact.asking(), server=str(memory.life), at=memory.at)
        memory.texts["roll"] = roll.text()
        contact.answered(roll, at=memory.at, sent=memory.at, now=memory.at)
        await self.shared.look()
        self.kept.keep(list(self.shared._unkept.values()))
        self.shared._unkept.clear()

    def sends(self, count: int, provider: str = "google") -> int:
        went = 0
        for _ in range(count):
            spent = self.warm_ups.refuses("out", {provider: 1}, now=self.clock())
            if spent is None:
                self.warm_ups.promise("out", {provider: 1}, now=self.clock())
                went += 1
            else:
                self.warm_ups.turned_away("out", spent, 1)
        return went

    def day(self) -> int:
        return self.warm_ups.day(self.clock())

    def figure(self, provider: str = "google") -> float:
        return self.warm_ups.fleet["out", provider].figure


async def fleet(count: int, *, hour: float = 1.0) -> tuple[Memory, list[Mx]]:
    memory = Memory()
    memory.at = FIRST * DAY + hour * 3_600.0
    hosts = [Mx(memory, f"mx{number}") for number in range(count)]
    await go_on(memory, hosts, 8)
    return memory, hosts


async def go_on(memory: Memory, hosts: list[Mx], rounds: int) -> None:
    for _ in range(rounds):
        memory.at += 2.5
        for each in hosts:
            await each.looks()


async def spend(memory: Memory, hosts: list[Mx], count: int, rounds: int = 30) -> int:
    """Have these send as much as they may, at most so many each round; what went."""
    went = 0
    for _ in range(rounds):
        for each in hosts:
            went += each.sends(count)
        await go_on(memory, hosts, 1)
    return went


def test_one_host_may_send_nearly_all_of_a_day_where_others_send_nothing() -> None:
    async def story() -> None:
        memory, hosts = await fleet(5)
        went = 0
        for _ in range(30):
            went += hosts[0].sends(50)
            await go_on(memory, hosts, 1)
        assert 0.9 * 200 <= went <= 200

    asyncio.run(story())


def test_those_who_need_it_share_it_and_the_next_day_grows_from_what_all_sent() -> None:
    async def story() -> None:
        memory, hosts = await fleet(3)
        assert 190 <= await spend(memory, hosts, 5) <= 200
        memory.at = (FIRST + 1) * DAY + 60.0
        await go_on(memory, hosts, 8)
        assert all(390 <= each.figure() <= 400 for each in hosts)
        assert 380 <= await spend(memory, hosts, 10) <= 400

    asyncio.run(story())


def test_what_a_dead_host_was_lent_is_not_lent_again_on_that_day() -> None:
    async def story() -> None:
        memory, hosts = await fleet(3)
        went = await spend(memory, hosts, 10, rounds=3)
        memory.cut_off = {"mx0"}
        memory.at += 4 * 3_600.0
        went += await spend(memory, hosts[1:], 20)
        held = hosts[0].sends(500)  # it lived all the while
        assert went + held <= 200

    asyncio.run(story())


def test_a_store_that_restarts_empty_knows_the_figure_again_and_lends_no_more_than_is_left() -> None:
    async def story() -> None:
        memory, hosts = await fleet(3)
        await spend(memory, hosts, 20)
        memory.at = (FIRST + 1) * DAY + 60.0
        await go_on(memory, hosts, 8)
        went = await spend(memory, hosts, 5, rounds=5)
        memory.texts.clear()
        memory.life += 1
        memory.cut_off = {"mx2"}
        went += await spend(memory, hosts[:2], 20)
        memory.cut_off = set()
        await go_on(memory, hosts, 2)  # within 5 s all have told what they have
        went += await spend(memory, hosts, 40)
        assert 380 <= went <= 400

    asyncio.run(story())


def test_over_midnight_without_the_store_each_has_its_part_of_what_was_known() -> None:
    async def story() -> None:
        memory, hosts = await fleet(4)
        await spend(memory, hosts, 20)
        memory.cut_off = {each.name for each in hosts}
        memory.at = (FIRST + 1) * DAY + 60.0
        went = sum(each.sends(500) for each in hosts)
        assert 0.4 * 200 <= went <= 200
        memory.cut_off = set()
        await go_on(memory, hosts, 4)
        assert went + await spend(memory, hosts, 20) <= 400

    asyncio.run(story())


def test_three_refusals_on_three_hosts_take_the_figure_back_for_all_and_each_says_who() -> None:
    async def story() -> None:
        memory, hosts = await fleet(3)
        for day in range(1, 3):
            await spend(memory, hosts, 60)
            memory.at = (FIRST + day) * DAY + 60.0
            await go_on(memory, hosts, 8)
        for each in hosts:
            each.sends(5)
            each.warm_ups.attempted("out", "google", REFUSED, now=each.clock())
        await go_on(memory, hosts, 30)  # who has nothing to tell asks once a minute
        assert all(390 <= each.figure() <= 400 for each in hosts)
        ((who, by),) = {(each.name, by) for each in hosts for _, by in each.said if by == "warm-up"}
        assert by == "warm-up"
        assert sorted(by for each in hosts for _, by in each.said) == [f"host {who}", f"host {who}", "warm-up"]

    asyncio.run(story())


def test_a_host_that_lost_its_own_store_does_not_send_its_part_twice() -> None:
    async def story() -> None:
        memory, hosts = await fleet(2)
        went = await spend(memory, hosts, 20)
        hosts[0].warm_ups._levels.clear()
        hosts[0].begin()
        await go_on(memory, hosts, 4)
        again = await spend(memory, hosts, 20)
        assert went + again <= 200

    asyncio.run(story())


def test_a_clock_that_was_a_day_ahead_is_with_the_others_again_within_seconds() -> None:
    async def story() -> None:
        memory, hosts = await fleet(2)
        hosts[0].ahead = DAY
        went = hosts[0].sends(10)
        await go_on(memory, hosts, 4)
        hosts[0].ahead = 0.0
        await go_on(memory, hosts, 2)
        assert {level.day for level in hosts[0].warm_ups.levels("out")} == {FIRST}
        went += await spend(memory, hosts, 20)
        assert 0.9 * 200 <= went <= 200

    asyncio.run(story())


def test_a_host_that_was_paused_over_midnight_has_its_part_within_five_seconds_whatever_its_clock_says() -> None:
    async def story() -> None:
        memory, hosts = await fleet(3, hour=23.99)
        for each, ahead in zip(hosts, (20.0, -20.0, 0.0), strict=True):
            each.ahead = ahead
        went = await spend(memory, hosts, 5, rounds=10)
        memory.at = (FIRST + 1) * DAY - 10.0
        await go_on(memory, hosts[1:], 24)  # a minute, in which mx0 does nothing
        went += await spend(memory, hosts[1:], 0, rounds=1)
        second = hosts[1].sends(20) + hosts[2].sends(20)
        second += hosts[0].sends(50)
        await go_on(memory, hosts, 2)
        assert {each.warm_ups.fleet["out", "google"].day for each in hosts} == {FIRST + 1}
        before = second
        second += hosts[0].sends(50)
        assert second > before  # it is lent some
        second += await spend(memory, hosts, 40)
        most = max(2.0 * went, 200.0)
        assert 0.9 * most <= second <= most

    asyncio.run(story())


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"server": 3, "shares": {"mx9": [1e999, -1]}}',
        Budget("1", 0, 0, Level("other", "google", FIRST, 9e9), "", {}).text(),
        Budget("1", 0, 0, Level("out", "google", FIRST, float("nan")), "", {}).text(),
    ],
)
def test_what_is_no_budget_is_written_anew(text: str) -> None:
    async def story() -> None:
        memory, hosts = await fleet(2)
        hosts[0].sends(1)
        memory.texts[f"{NAME}out:google"] = text
        await go_on(memory, hosts, 2)
        assert Budget.read(memory.texts[f"{NAME}out:google"]).level.figure == 200.0
        assert any(each.shared.bad for each in hosts)

    asyncio.run(story())


def test_a_budget_reads_what_it_writes_and_more() -> None:
    level = Level("out", EVERYWHERE, FIRST, 12.5, used_on=FIRST)
    budget = Budget("1", FIRST, -1, level, "", {"mx0": Share(3.0, 4.0, 1, refused=2)})
    assert Budget.read(budget.text()) == budget
    assert Budget.read(budget.text().replace('"stepped_by"', '"newer":1,"stepped_by"')) == budget


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 2), st.sampled_from([1, 20, 500])),
        st.tuples(st.just("look"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("rounds"), st.integers(0, 2), st.sampled_from([1, 4, 12])),
        st.tuples(st.just("cut off"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("heal"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("die"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.sampled_from([1, 61, 3_600, 20_000, int(DAY)])),
        st.tuples(st.just("skew"), st.integers(0, 2), st.sampled_from([-30, 0, 30])),
    ),
    max_size=50,
)


@given(steps)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_never_more_than_the_figure_in_a_day(steps: list[tuple[str, int, int]]) -> None:
    async def story() -> None:
        memory, hosts = await fleet(3)
        sent: dict[int, int] = {}
        for do, number, count in steps:
            host = hosts[number]
            match do:
                case "send":
                    sent[host.day()] = sent.get(host.day(), 0) + host.sends(count)
                case "look":
                    await host.looks()
                case "rounds":
                    await go_on(memory, hosts, count)
                case "cut off":
                    memory.cut_off.add(host.name)
                case "heal":
                    memory.cut_off.discard(host.name)
                case "die":
                    host.begin()
                case "restart":
                    memory.texts.clear()
                    memory.life += 1
                case "skew":
                    host.ahead = float(count)
                case _:
                    memory.at += count
            figures = {FIRST: 200.0}
            for day in range(FIRST + 1, max(sent, default=FIRST) + 1):  # no day can be given more than this
                figures[day] = max(figures[day - 1], 2.0 * sent.get(day - 1, 0))
            assert all(count <= 1.1 * figures[day] for day, count in sent.items())

    asyncio.run(story())


def test_hosts_at_a_real_store_send_one_day_together_and_know_it_after_a_restart(tmp_path: Path) -> None:
    plan = PLAN._replace(started=0)

    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 3) as fleet:
            thread, stores = ThreadPoolExecutor(1), [Store.open(tmp_path / f"{each.host.name}.db") for each in fleet]
            warm = [WarmUps([plan]) for _ in fleet]
            shared = [
                SharedWarmUps(
                    each.host,
                    RedisStore(server.url),
                    mine,
                    store.fleet_warm_ups,
                    tell=lambda *_, **__: None,
                    thread=thread,
                )
                for each, mine, store in zip(fleet, warm, stores, strict=True)
            ]
            tasks = [asyncio.create_task(each.run()) for each in shared]
            sent: Counter[int] = Counter()

            def more() -> bool:
                now = time.time()
                for mine in warm:
                    spent = mine.refuses("out", {"google": 1}, now=now)
                    if spent is None:
                        mine.promise("out", {"google": 1}, now=now)
                        sent[mine.day(now)] += 1
                    else:
                        mine.turned_away("out", spent, 1)
                return max(sent.values(), default=0) >= 190

            await until(lambda: all(each.declaring.complete for each in shared))
            await until(more)
            assert max(sent.values()) <= 200
            for each in shared:
                await each.keep()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert {level.figure for level in stores[0].fleet_warm_ups.levels()} == {200.0}
            for store in stores:
                store.close()
            thread.shutdown()

    asyncio.run(scene())

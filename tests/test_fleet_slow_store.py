"""A fleet whose store answers late or not always: what is lent is lent again in time, and a backlog drains at the limit's pace."""

import random
import statistics
from collections.abc import Sequence

import pytest

from policies.fleet.terms import ALONE_AFTER
from policies.subqueue import State
from tests.fleet_slow_store import Shelf, SlowFleet
from tests.leaping_loop import leap
from tests.test_engine import BURST
from tests.test_fleet_hosts import Limit, send

RATE, AT_ONCE, SCALE, TOTAL = 10.0, 20.0, 20.0, 1200
OTHERS = 120
PAUSE = 600 / SCALE


class Run:
    """What came of a backlog that lies on all hosts alike."""

    def __init__(
        self, hosts: int, shelf: Shelf, *, ahead: Sequence[float] = (), total: int = TOTAL, transaction: float = 0.3
    ) -> None:
        random.seed(1)  # the exchange's own jitter
        self.limit = Limit(RATE, AT_ONCE)
        self.took = self.unled = self.unlent = 0.0
        """Seconds; of the ramp with nobody in the lead; of hosts' ramps with nothing lent."""
        self._total = total
        leap(self._run(hosts, shelf, ahead, transaction))

    @property
    def over_optimum(self) -> float:
        """Of who knows the limit, and pauses once."""
        return self.took / ((self._total - AT_ONCE) / RATE + PAUSE)

    async def _run(self, hosts: int, shelf: Shelf, ahead: Sequence[float], transaction: float) -> None:
        fleet = SlowFleet(hosts, self.limit, shelf, scale=SCALE, ahead=ahead, transaction=transaction)
        await fleet.run(ALONE_AFTER + 5)
        for world in fleet.worlds:
            send(world, self._total // hosts)
        began = fleet.loop.time()
        while fleet.delivered < self._total and fleet.loop.time() < began + 900:
            await fleet.run(0.25, step=0.1)
            self._look(fleet)
        self.took = fleet.loop.time() - began
        await fleet.stop()
        assert fleet.lost_or_twice == 0

    def _look(self, fleet: SlowFleet) -> None:
        parts = [part for host in fleet.hosts if (part := host.parts.get(BURST)) is not None]
        if any(part.replica.row.state is State.RAMPING for part in parts):
            leads = [host.parts[BURST].replica.token(now=host.steady()) for host in fleet.hosts if BURST in host.parts]
            self.unled += 0.25 * all(token is None for token in leads)
            self.unlent += 0.25 * sum(part.need > 0 and not part.rate(1.0) for part in parts)


@pytest.mark.parametrize(
    ("delay", "lost"),
    [((0.0, 0.002), 0.0), ((0.15, 0.45), 0.0), ((0.0, 0.02), 0.05)],
    ids=["prompt", "late", "lossy"],
)
def test_five_hosts_drain_in_a_third_more_than_the_optimum(delay: tuple[float, float], lost: float) -> None:
    runs = [Run(5, Shelf(seed=seed, delay=delay, lost=lost)) for seed in (1, 2, 3)]
    assert statistics.median(run.over_optimum for run in runs) <= 1.3
    for run in runs:
        assert run.unled <= 0.02 * run.took
        assert run.unlent <= 0.02 * run.took * 5
        assert run.limit.most_in_a_minute(after=run.limit.tried[0] + 10) <= 1.1 * (60 * RATE + AT_ONCE)


def test_what_went_on_being_accepted_on_any_host_tells_where_the_ramp_begins() -> None:
    shelves = [Shelf(seed=seed, delay=(0.0, 0.002), lost=0.0) for seed in (1, 2, 3)]
    runs = [Run(5, shelf, total=1_000, transaction=0.8) for shelf in shelves]
    assert statistics.median(run.over_optimum for run in runs) <= 1.3
    for run in runs:
        assert run.limit.most_in_a_minute(after=run.limit.tried[0] + 10) <= 60 * RATE + AT_ONCE


def test_where_nothing_more_is_accepted_what_was_before_tells_where_the_ramp_begins() -> None:
    shelves = [Shelf(seed=seed, delay=(0.0, 0.002), lost=0.0) for seed in (1, 2, 3)]
    runs = [Run(5, shelf, total=1_000, transaction=0.05) for shelf in shelves]
    assert statistics.median(run.over_optimum for run in runs) <= 1.3
    for run in runs:
        assert run.limit.most_in_a_minute(after=run.limit.tried[0] + 10) <= 60 * RATE + AT_ONCE


def test_hosts_that_were_all_held_up_do_not_meet_the_limit_with_what_they_are_behind() -> None:
    limit = Limit(RATE, AT_ONCE)

    async def stalled() -> tuple[int, int]:
        fleet = SlowFleet(5, limit, Shelf(seed=1, delay=(0.0, 0.002), lost=0.0), scale=SCALE)
        await fleet.run(ALONE_AFTER + 5)
        for world in fleet.worlds:
            send(world, 200)
        await fleet.run(70.0, step=0.1)
        before, delivered = fleet.deferrals, fleet.delivered
        await fleet.stall(3.0)
        await fleet.run(2.0, step=0.1)
        found = fleet.deferrals - before, fleet.delivered - delivered
        await fleet.stop()
        return found

    deferrals, delivered = leap(stalled())
    assert deferrals == 0
    assert delivered > 0.5 * RATE * 5.0


@pytest.mark.parametrize("at", [45.0, 60.0])
def test_what_others_hold_up_on_all_hosts_is_not_followed_by_more(at: float) -> None:
    """Their mail takes all slots of the destination for some six seconds; then what stood behind it is tried at once."""
    limit = Limit(RATE, AT_ONCE)

    async def held_up() -> tuple[int, int]:
        fleet = SlowFleet(5, limit, Shelf(seed=1, delay=(0.0, 0.002), lost=0.0), scale=SCALE)
        await fleet.run(ALONE_AFTER + 5)
        for world in fleet.worlds:
            world.slots = 6
            send(world, 200)
        await fleet.run(at, step=0.1)
        before, delivered = fleet.deferrals, fleet.delivered
        for world in fleet.worlds:
            for number in range(OTHERS):
                world.submit(f"news@other-{number % 10}.example", [f"user{number}@gmail.com"])
        await fleet.run(25.0, step=0.1)
        found = fleet.deferrals - before, fleet.delivered - delivered - 5 * OTHERS
        await fleet.stop()
        return found

    deferrals, delivered = leap(held_up())
    assert deferrals == 0
    assert delivered > 0.5 * RATE * 25.0


def test_clocks_that_are_hours_wrong_change_nothing() -> None:
    shelf = Shelf(seed=1, delay=(0.0, 0.002), lost=0.0)
    run = Run(5, shelf, ahead=(0.0, -3_600.0, 0.0, 7_200.0, 45.0))
    assert run.over_optimum <= 1.3
    assert run.limit.most_in_a_minute(after=run.limit.tried[0] + 10) <= 1.1 * (60 * RATE + AT_ONCE)


def test_a_store_too_slow_for_leases_costs_time_and_nothing_else() -> None:
    run = Run(5, Shelf(seed=1, delay=(0.3, 0.9), lost=0.0))
    assert run.limit.most_in_a_minute(after=run.limit.tried[0] + 10) <= 60 * RATE + AT_ONCE

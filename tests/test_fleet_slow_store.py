"""A fleet whose store answers late or not always: what is lent is lent again in time, and a backlog drains at the limit's pace."""

import random
from collections.abc import Sequence

import pytest

from policies.fleet.terms import ALONE_AFTER
from policies.subqueue import State
from tests.fleet_slow_store import Shelf, SlowFleet
from tests.leaping_loop import leap
from tests.test_engine import BURST
from tests.test_fleet_hosts import Limit, send

RATE, AT_ONCE, SCALE, TOTAL = 10.0, 20.0, 20.0, 1200
PAUSE = 600 / SCALE
OPTIMUM = (TOTAL - AT_ONCE) / RATE


class Run:
    """What came of a backlog that lies on all hosts alike."""

    def __init__(self, hosts: int, shelf: Shelf, *, ahead: Sequence[float] = ()) -> None:
        random.seed(1)  # the exchange's own jitter
        self.limit = Limit(RATE, AT_ONCE)
        self.took = self.unled = self.unlent = 0.0
        """Seconds; of the ramp with nobody in the lead; of hosts' ramps with nothing lent."""
        leap(self._run(hosts, shelf, ahead))

    async def _run(self, hosts: int, shelf: Shelf, ahead: Sequence[float]) -> None:
        fleet = SlowFleet(hosts, self.limit, shelf, scale=SCALE, ahead=ahead)
        await fleet.run(ALONE_AFTER + 5)
        for world in fleet.worlds:
            send(world, TOTAL // hosts)
        began = fleet.loop.time()
        while fleet.delivered < TOTAL and fleet.loop.time() < began + 900:
            await fleet.run(0.25)
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
    run = Run(5, Shelf(seed=1, delay=delay, lost=lost))
    assert run.took <= 1.3 * (OPTIMUM + PAUSE)
    assert run.unled <= 0.02 * run.took
    assert run.unlent <= 0.02 * run.took * 5
    assert run.limit.most_in_a_minute(after=run.limit.tried[0] + 10) <= 1.1 * (60 * RATE + AT_ONCE)


def test_clocks_that_are_hours_wrong_change_nothing() -> None:
    shelf = Shelf(seed=1, delay=(0.0, 0.002), lost=0.0)
    run = Run(5, shelf, ahead=(0.0, -3_600.0, 0.0, 7_200.0, 45.0))
    assert run.took <= 1.3 * (OPTIMUM + PAUSE)
    assert run.limit.most_in_a_minute(after=run.limit.tried[0] + 10) <= 1.1 * (60 * RATE + AT_ONCE)


def test_a_store_too_slow_for_leases_costs_time_and_nothing_else() -> None:
    run = Run(5, Shelf(seed=1, delay=(0.3, 0.9), lost=0.0))
    assert run.limit.most_in_a_minute(after=run.limit.tried[0] + 10) <= 60 * RATE + AT_ONCE

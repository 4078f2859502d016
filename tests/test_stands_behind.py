"""Mail of a key that stood behind other mail in Postfix, and is then tried all at once, does not meet its limit with it."""

import math

import pytest

from policies.by_hand import ByHand, stream_key
from policies.messages import Message, Place
from policies.parked import OpenSubQueue
from policies.subqueue import Pacing, State, SubQueue
from tests.test_engine import BURST
from tests.test_fleet_hosts import Limit, send
from tests.world import World

RATE, AT_ONCE, SCALE, TOTAL = 10.0, 20.0, 20.0, 800
OTHERS = 600


@pytest.mark.parametrize("at", [55.0, 60.0, 70.0])
def test_what_others_hold_up_in_postfix_is_not_followed_by_more(at: float) -> None:
    limit = Limit(RATE, AT_ONCE)
    world = World(limit, scale=SCALE, slots=40)
    send(world, TOTAL)
    world.run(at, step=0.1)
    sub = world.engine.subqueues.get(BURST)
    assert sub is not None
    assert sub.machine.state is State.RAMPING
    assert sub.machine.budget_per_s > 0.5 * RATE
    refused = world.deferrals
    for number in range(OTHERS):  # which take all slots of the destination for a while
        world.submit(f"news@other-{number % 10}.example", [f"user{number}@gmail.com"])
    world.run(25.0, step=0.1)
    assert world.deferrals == refused
    delivered = sum(world.delivered.values())
    world.run(20.0, step=0.1)
    assert sum(world.delivered.values()) > min(TOTAL + OTHERS, delivered + 15 * sub.machine.budget_per_s) - 1
    assert world.silently_lost == []
    assert world.duplicates == 0


def test_what_was_let_out_is_under_way_until_it_was_tried_or_a_minute_has_passed() -> None:
    sub = OpenSubQueue(BURST, SubQueue(Pacing(), now=0.0), rule="", line="", now=0.0)
    tried, silent = Message("postfix", "4WzBBBBBBBzB", now=0.0), Message("postfix", "4WzBBBBBBCzB", now=0.0)
    for message in (tried, silent):
        message.place, message.paid = Place.RELEASING, True
        sub.lets_out(message, now=10.0)
    assert sub.let_out == 2
    assert sub.still_under_way(now=11.0) == 2
    tried.place, silent.place = Place.QUEUED, Place.QUEUED
    assert sub.still_under_way(now=12.0) == 2
    tried.paid = False
    assert sub.still_under_way(now=13.0) == 1
    assert sub.still_under_way(now=71.0) == 0


def test_a_stream_by_hand_keeps_nothing_of_what_it_let_out() -> None:
    """It may be open for weeks, and nobody counts what is under way."""
    machine = ByHand("tenant = a", rate=1.0, until=math.inf, now=0.0)
    sub = OpenSubQueue(stream_key("a"), machine, rule="", line="", now=0.0)
    for number in range(3):
        message = Message("postfix", f"4WzBBBBBB{number}zB", now=0.0)
        message.place, message.paid = Place.RELEASING, True
        sub.lets_out(message, now=10.0 + number)
    assert sub.let_out == 3
    assert sub.still_under_way(now=13.0) == 0

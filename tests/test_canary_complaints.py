"""Complaints about a canary's mail: found days later by queue id or person, counted once, and through the store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from policies.canary import Arm, Phase
from tests.steering_world import BEGIN, World
from tests.suppression_core import Core, core

IDS = [f"4cG{number:06d}" for number in range(1_000)]


@contextlib.asynccontextmanager
async def site(directory: Path, world: World) -> AsyncIterator[Core]:
    async with core(directory, steering=world.steering) as it:
        yield it


def delivered(world: World, queue_id: str) -> str:
    """One message of the newsletter arrives; over what."""
    over = world.send(queue_id)
    world.delivered(queue_id, over, sender_domain="news.shop.example", recipient=f"{queue_id}@gmail.com")
    return over


def counts(world: World) -> tuple[int, int]:
    ((_, trial),) = world.steering.canaries
    return trial.counts[Arm.CANARY]["complaints"], trial.counts[Arm.CONTROL]["complaints"]


def complaint(number: int, about: str, /, **more: Any) -> dict[str, Any]:
    return {
        "number": number, "kind": "complaint", "recipient": f"{about}@gmail.com", "domain": "shop.example",
        "at": BEGIN + 9e5, "evidence": "arf", **more,
    }  # fmt: skip


def test_complaints_count_in_the_arm_of_their_message_once_and_after_a_restart(tmp_path: Path) -> None:
    world = World(canary="tenant = newsletter", rules=())

    async def story() -> None:
        over = {queue_id: delivered(world, queue_id) for queue_id in IDS}
        mine = [queue_id for queue_id, transport in over.items() if transport == "ip-8"]
        others = [queue_id for queue_id in IDS if queue_id not in mine]
        async with site(tmp_path, world) as it:
            events = [complaint(i, queue_id) for i, queue_id in enumerate((*mine[:6], *others[:3]), 1)]
            await it.ask("take", source="outside-1", events=events)
            assert counts(world) == (6, 3)
            await it.ask("take", source="outside-1", events=events)  # an answer that was lost
            await it.ask("take", source="outside-2", events=events)  # the same people, by another way
            assert counts(world) == (6, 3)
            world.steering.look(now=BEGIN + 60)
            ((_, trial),) = world.steering.canaries
            assert trial.phase is Phase.STOPPED
            assert trial.why.startswith("complaints ")
        again = World(canary="tenant = newsletter", rules=())
        async with site(tmp_path, again) as it:
            it.store.restore_steering(again.steering)
            assert counts(again) == (6, 3)
            await it.ask("take", source="outside-3", events=[complaint(1, mine[0]), complaint(2, mine[7])])
            assert counts(again) == (7, 3)

    asyncio.run(story())


def test_what_is_not_about_a_canary_counts_nowhere(tmp_path: Path) -> None:
    world = World(canary="tenant = newsletter", rules=())

    async def story() -> None:
        for queue_id in IDS[:50]:
            delivered(world, queue_id)
        async with site(tmp_path, world) as it:
            events = [
                complaint(1, "stranger"),
                complaint(2, IDS[0], domain="other.example"),  # the same person, about another's mail
                complaint(3, IDS[1], at=BEGIN - 9e5),  # before it was sent
                complaint(4, IDS[2], kind="unsubscribe"),
                complaint(5, IDS[3], recipient="", queue_id=""),
            ]
            await it.ask("take", source="outside-1", events=events)
            assert counts(world) == (0, 0)
            await it.ask("take", source="outside-1", events=[complaint(6, IDS[3], recipient="", queue_id=IDS[3])])
            assert sum(counts(world)) == 1, "a reporter that does not say who, but which message"

    asyncio.run(story())


def test_a_canary_that_begins_anew_hears_nothing_of_its_old_mail(tmp_path: Path) -> None:
    world = World(canary="tenant = newsletter", rules=())

    async def story() -> None:
        for queue_id in IDS[:50]:
            delivered(world, queue_id)
        async with site(tmp_path, world) as it:
            await it.ledger.commit()
            world.steering.decide("new-template", Phase.RUNNING, by_whom="jo", now=BEGIN)
            await it.ask("take", source="outside-1", events=[complaint(1, IDS[0])])
            assert counts(world) == (0, 0)
            it.store.forget_canary_messages(before=BEGIN + 1)

    asyncio.run(story())

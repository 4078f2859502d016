"""Several hosts whose real exchanges share a store that answers late, or not at all, in time that leaps.

The engines, the protocol and the exchange are as they are; Postfix is modelled, and the store swaps texts.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from random import Random
from typing import cast

from policies.fleet.host import Host
from policies.fleet.roll import Asking, Roll, enrol
from sidecar.fleet.exchange import Exchange
from sidecar.fleet.redis_store import ANSWER_WITHIN, Read, RedisStore, StoreSilent, Swap
from sidecar.fleet.roll_store import ROLL, RollStore, Tally, outline
from tests.world import Judge, World


class Shelf:
    """What all hosts' stores read and write, and how long each answer takes."""

    def __init__(self, *, seed: int, delay: tuple[float, float], lost: float) -> None:
        self.random = Random(seed)
        self.delay, self.lost = delay, lost
        self.texts: dict[str, str] = {}
        self.listeners: list[asyncio.Queue[str]] = []

    async def trip(self) -> None:
        """One question on its way and back, before the store takes it up. Raises StoreSilent."""
        takes = self.random.uniform(*self.delay)
        if takes > ANSWER_WITHIN or self.random.random() < self.lost:
            await asyncio.sleep(ANSWER_WITHIN)
            raise StoreSilent("no answer")
        await asyncio.sleep(takes)


class SlowStore:
    """A `RedisStore` in what the exchange asks of it."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def read(self, names: Sequence[str]) -> list[Read]:
        await self._shelf.trip()
        return [self._stand(name) for name in names]

    async def swap(self, swaps: Sequence[Swap]) -> list[Read | None]:
        await self._shelf.trip()
        return [self._swap(swap) for swap in swaps]

    def _swap(self, swap: Swap) -> Read | None:
        if self._shelf.texts.get(swap.name, "") != swap.read.text:
            return self._stand(swap.name)
        self._shelf.texts[swap.name] = swap.text
        return None

    def _stand(self, name: str) -> Read:
        return Read("server-1", asyncio.get_running_loop().time() + 50_000.0, self._shelf.texts.get(name, ""))

    async def texts(self, names: Sequence[str]) -> tuple[float, list[str]]:
        reads = await self.read(names)
        return self._stand("roll").at, [read.text for read in reads]

    async def names(self, begins: str) -> list[str]:
        await self._shelf.trip()
        return [name for name in self._shelf.texts if name.startswith(begins)]

    async def put(self, name: str, text: str) -> None:
        await self._shelf.trip()
        self._shelf.texts[name] = text

    def write(self, name: str, text: str) -> None:
        self._shelf.texts[name] = text

    async def push(self, texts: Sequence[str]) -> None:
        await self._shelf.trip()
        for listener in self._shelf.listeners:
            for text in texts:
                listener.put_nowait(text)

    async def pushed(self) -> AsyncGenerator[str, None]:
        listener: asyncio.Queue[str] = asyncio.Queue()
        self._shelf.listeners.append(listener)
        yield ""
        while True:
            yield await listener.get()

    async def close(self) -> None:
        pass


class SlowRoll(RollStore):
    """What Redis does with the roll, done here."""

    def __init__(self, store: SlowStore) -> None:
        super().__init__(cast("RedisStore", store))
        self._slow = store

    async def enter(self, server: str, known: str, asking: Asking, *, whole: bool = False) -> Tally | Read:
        (read,) = await self._slow.read([ROLL])
        if server != read.server or Roll.read(read.text).server != server:
            return read
        before = Roll.read(read.text)
        roll = enrol(before, asking._replace(known={}), server=server, at=read.at)
        self._slow.write(ROLL, roll.text())
        mine = before.members.get(asking.host)
        text = roll.text() if whole or outline(roll, roll.text()) != known else ""
        return Tally(server, read.at, text, mine.met if mine is not None else None, roll.standing(at=read.at), 0.0)

    async def look(self, server: str, host: str) -> Tally | Read:
        (read,) = await self._slow.read([ROLL])
        roll = Roll.read(read.text)
        return Tally(server, read.at, read.text, roll.members[host].met, roll.standing(at=read.at), 0.0)

    async def rewrite(self, read: Read, before: Roll | None, roll: Roll, host: str = "") -> Read | None:
        (now,) = await self._slow.read([ROLL])
        if now.server != read.server or now.text != read.text:
            found = Roll.read(now.text) if now.text else None
            known = outline(before, read.text)
            if before is None or found is None or before.server != read.server or outline(found, now.text) != known:
                return now
            times = found.members
            mine = {name: times[name] for name in roll.members.keys() & times.keys() if name != host}
            roll = replace(roll, members={**roll.members, **mine})
        self._slow.write(ROLL, roll.text())
        return None


class SlowFleet:
    """`count` hosts; to be made and used within a `leap`."""

    def __init__(
        self,
        count: int,
        judge: Judge,
        shelf: Shelf,
        *,
        scale: float = 1.0,
        ahead: Sequence[float] = (),
        transaction: float = 0.3,
    ) -> None:
        """`ahead`: by how many seconds each host's clock is; none is, where nothing is said.

        `transaction`: seconds that an attempt takes; on one host a little more, on another a little less.
        """
        self.loop = asyncio.get_running_loop()
        self.worlds: list[World] = []
        self.hosts: list[Host] = []
        self._clocks: list[Callable[[], float]] = []
        self._tasks: list[asyncio.Task[None]] = []
        for number in range(count):
            self._add(number, judge, shelf, scale=scale, ahead=ahead[number] if ahead else 0.0)
            self.worlds[-1].transaction = transaction * shelf.random.uniform(0.8, 1.2)

    def _add(self, number: int, judge: Judge, shelf: Shelf, *, scale: float, ahead: float) -> None:
        world = World(lambda domain, provider, now: judge(domain, provider, now - ahead), scale=scale)
        host = Host(f"host-{number}", world.engine, steady=lambda: self.loop.time() - 900_000.0 + 1_000 * number)
        store = SlowStore(shelf)

        def clock() -> float:
            return self.loop.time() + ahead

        world.now = clock()
        self.worlds.append(world)
        self.hosts.append(host)
        self._clocks.append(clock)
        self._tasks.append(
            asyncio.create_task(Exchange(host, cast("RedisStore", store), roll=SlowRoll(store), clock=clock).run())
        )

    async def run(self, seconds: float, *, step: float = 0.25) -> None:
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            await asyncio.sleep(step)
            for world, clock in zip(self.worlds, self._clocks, strict=True):
                world.run(clock() - world.now, step=step)

    async def stall(self, seconds: float) -> None:
        """Nothing is done on any host for so long, and then what is due."""
        await asyncio.sleep(seconds)
        for world, clock in zip(self.worlds, self._clocks, strict=True):
            world.run(clock() - world.now, step=seconds)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def delivered(self) -> int:
        return sum(sum(world.delivered.values()) for world in self.worlds)

    @property
    def deferrals(self) -> int:
        return sum(world.deferrals for world in self.worlds)

    @property
    def lost_or_twice(self) -> int:
        return sum(len(world.silently_lost) + world.duplicates for world in self.worlds)

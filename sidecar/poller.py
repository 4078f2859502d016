"""Polls the feeds that the site wants, each at its own pace, and writes down what they told.

Knows when and in which order; a feed that fails or hangs harms no other one.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from parsers.feeds import dnsbl
from parsers.feeds.asking import Reading, Trouble
from parsers.feeds.delisting import PREFIX
from parsers.observation import Observation
from policies.cadence import Standing
from policies.figures import Kind, kind_of
from sidecar import own_log
from sidecar.asking import Asking
from sidecar.config import Config, ConfigError
from sidecar.database import StoreUnavailable
from sidecar.feeds import Feed
from sidecar.outside_store import OutsideStore, RawAnswer
from sidecar.scope import Scope
from sidecar.threads import in_thread

POLL_SECONDS = 900.0
"""Beyond this a poll is given up: 200 addresses on 30 lists take a few minutes."""

PRUNE_EVERY = 6 * 3600.0


class Polled(NamedTuple):
    """One poll, ended."""

    standing: Standing
    reading: Reading
    seconds: float


def _lists_an_address(seen: Observation) -> bool:
    return bool(seen.value) and seen.measure.startswith(PREFIX) and kind_of(seen) is Kind.ADDRESS


class Poller:
    def __init__(
        self,
        config: Config,
        feeds: Mapping[str, Feed],
        store: OutsideStore,
        asking: Asking,
        *,
        find_scope: Callable[[Config], Scope],
        told: Callable[[str, Polled], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`told` hears of each poll that ended, for metrics and conditions."""
        self._clock = clock
        self._config = config
        self._feeds = {name: feed for name, feed in feeds.items() if feed.wanted(config)}
        self._store = store
        self._asking = asking
        self._find_scope = find_scope
        self._told = told
        self._writing = asyncio.Lock()  # the store is for one thread at a time
        self._listed: dict[str, asyncio.Queue[str]] = {
            name: asyncio.Queue() for name, feed in self._feeds.items() if feed.on_listing
        }
        """Addresses that a blocklist has begun to list, for each feed that is asked about such."""

    async def run(self) -> None:
        """Poll for ever."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._feeds:
                tasks.create_task(self._follow(name))
            for name in self._listed:
                tasks.create_task(self._follow_listings(name))
            tasks.create_task(self._prune())

    async def _prune(self) -> None:
        while True:
            async with self._writing:
                try:
                    await in_thread(lambda: self._store.prune(now=self._clock()))
                except StoreUnavailable as error:
                    own_log.not_stored(str(error))
            await asyncio.sleep(PRUNE_EVERY)

    async def _follow(self, name: str) -> None:
        cadence = self._feeds[name].cadence(self._config)
        async with self._writing:
            standing = await in_thread(lambda: self._store.standing(name))
        wait = standing.first_poll(cadence, now=self._clock(), dice=random.random()) - self._clock()
        while True:
            await asyncio.sleep(max(0.0, wait))
            polled = await self.poll(name)
            wait = polled.standing.next_at - self._clock()

    def listings(self, name: str) -> asyncio.Queue[str]:
        """Give the addresses that a feed is still to be asked about, for a blocklist has begun to list them."""
        return self._listed[name]

    async def _follow_listings(self, name: str) -> None:
        """Ask about what is newly listed, one listing or many in one poll; never while the feed wants no questions."""
        queue = self.listings(name)
        while True:
            about = {await queue.get()}
            while not queue.empty():
                about.add(queue.get_nowait())
            async with self._writing:
                standing = await in_thread(lambda: self._store.standing(name))
            if standing.trouble is None or standing.next_at <= self._clock():
                await self.poll(name, about=frozenset(about))

    async def poll(self, name: str, *, about: frozenset[str] | None = None) -> Polled:
        """Poll one feed now, and write down how it ended.

        `about`: of these addresses alone; the next whole poll is when it was to be.
        """
        feed, began = self._feeds[name], time.monotonic()
        cadence = feed.cadence(self._config)
        reading, answers = await self._ask(name, feed, about)
        now = self._clock()
        async with self._writing:
            before = await in_thread(lambda: self._store.standing(name))
            standing = before.after(reading, cadence, now=now, dice=random.random())
            if about is not None and before.next_at and reading.trouble is None:
                standing = standing._replace(next_at=before.next_at)
            begun = await in_thread(lambda: self._begun(name, reading)) if self._listed else ()
            try:
                await in_thread(lambda: self._store.polled(name, standing, reading.observations, answers, now=now))
            except StoreUnavailable as error:  # the next poll tells it again
                own_log.not_stored(str(error))
        polled = Polled(standing, reading, time.monotonic() - began)
        own_log.polled(name, observations=len(reading.observations), trouble=reading.trouble or "", why=reading.why)
        self._told(name, polled)
        for queue in self._listed.values():
            for address in begun:
                queue.put_nowait(address)
        return polled

    def _begun(self, name: str, reading: Reading) -> Sequence[str]:
        """Which addresses a blocklist lists now that it did not list when it was last heard."""
        told = [seen for seen in reading.observations if seen.feed == name and _lists_an_address(seen)]
        if not told or not name.startswith(dnsbl.FEED):
            return ()
        before = self._store.lasting(name)
        return tuple(dict.fromkeys(seen.object for seen in told if (seen.object, seen.measure) not in before))

    async def _ask(self, name: str, feed: Feed, about: frozenset[str] | None) -> tuple[Reading, list[RawAnswer]]:
        """Whatever goes wrong in here is this feed's trouble alone."""
        try:
            scope = await in_thread(lambda: self._find_scope(self._config))
            if about is not None:
                scope = scope._replace(addresses=tuple(each for each in scope.addresses if each in about))
            poll = await in_thread(lambda: feed.poll(self._config, scope, self._clock()))  # it may read files
            async with asyncio.timeout(POLL_SECONDS):
                return await self._asking.poll(poll)
        except TimeoutError:
            return Reading((), Trouble.NETWORK, f"not done after {POLL_SECONDS:.0f} s"), []
        except ConfigError as error:
            return Reading((), Trouble.CONFIGURATION, str(error)), []
        except Exception as error:  # noqa: BLE001  # an answer that a feed cannot read must not stop the others
            own_log.feed_failed(name, error)
            return Reading((), Trouble.FORMAT, f"{type(error).__name__}: {error}"[:300]), []

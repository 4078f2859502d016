"""Tells the other hosts what this one learned about names, and takes what they learned: providers and identities.

Nobody waits for it: what is heard is put in memory where the log's own findings are. The rules are in `policies.fleet.taught`.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from policies.engine import Engine
from policies.fleet import taught
from policies.fleet.host import Host
from policies.fleet.taught import Fact
from policies.recipients import MOST_NEWS
from sidecar.database import StoreUnavailable
from sidecar.fleet.redis_store import RedisStore, StoreSilent, goes_on
from sidecar.fleet.stream import BEGINNING, Page, Stream
from sidecar.fleet.taught_store import STREAM, Taught, TaughtStore

_LOG = logging.getLogger("sidecar.fleet")

GATHERED: Final = 0.5
"""Seconds in which facts are gathered."""
AT_ONCE: Final = 16
"""Texts that are told in one go."""
MOST_TEXTS: Final = 20_000
"""In the store: at most 500,000 facts, some 30 MB."""
OLDEST: Final = 35 * 86_400.0
"""Seconds after which a fact is forgotten that nobody has told again."""
TRY_AGAIN: Final = 1.0
TOLD: Final = "told-all:"
"""Text of each host: which life of the store it has told everything."""


class SharedMaps:
    def __init__(
        self,
        host: Host,
        store: RedisStore,
        engine: Engine,
        kept: TaughtStore,
        *,
        thread: ThreadPoolExecutor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Reads core's store, so in its thread, after the engine was given back what this host learned itself."""
        self.silent = "not asked yet"
        """Why the store does not answer; "" while it does."""
        self.heard = self.bad = self.told = 0
        """Facts of others, texts that cannot be read, and facts that we told."""
        self._host = host
        self._store = store
        self._stream = Stream(store, STREAM)
        self._recipients, self._habits = engine.recipients, engine.habits
        self._kept = kept
        self._thread = thread
        self._clock = clock
        self._mark = f"{TOLD}{host.name}"
        self._untold: list[Fact] = []
        self._told_all = ""
        """The life of the store that knows everything of us."""
        self._after = kept.place() or BEGINNING
        self._recipients.news, self._habits.news = [], []
        for row in kept.all():
            self._hear(row.fact, row.at)

    async def run(self) -> None:
        """Tell and hear until cancelled. What fails is tried again."""
        try:
            async with asyncio.TaskGroup() as group:
                for each in (self._say, self._follow):
                    group.create_task(self._keep_at(each))
        finally:
            await self._store.close()

    def status(self) -> Mapping[str, Any]:
        return {"silent": self.silent, "heard": self.heard, "told": self.told, "bad": self.bad}

    async def about(self, name: str, *, limit: int) -> list[dict[str, Any]]:
        """Say what others taught, who did, and what counts here."""
        rows = await self._in_store(partial(self._kept.about, name, limit=limit))
        return [self._shown(row) for row in rows]

    def _shown(self, row: Taught) -> dict[str, Any]:
        values, own = taught.here(row.kind, row.name, self._recipients, self._habits)
        return {**row._asdict(), "here": list(values), "seen_here": own}

    async def _keep_at(self, work: Callable[[], Any]) -> None:
        said = ""
        while goes_on():
            try:
                await work()
            except StoreSilent as error:
                if not self.silent:
                    _LOG.warning("what the fleet learned cannot be reached: %s; this host goes on with its own", error)
                self.silent = str(error)
            except Exception as error:  # noqa: BLE001  # an error of ours must not end core: it answers Postfix
                if str(error) != said:
                    _LOG.exception("what the fleet learned: %s", error)
                said = str(error)
            await asyncio.sleep(TRY_AGAIN * random.uniform(0.5, 1.0))

    # Telling.

    async def _say(self) -> None:
        while goes_on():
            await asyncio.sleep(GATHERED)
            await self._say_all()

    async def _say_all(self) -> None:
        """Tell what is new; all of it where the store has lost what it knew. Raises StoreSilent, and it is told again."""
        server = self._host.contact.server
        if server and server != self._told_all:
            _, (known,) = await self._store.texts([self._mark])
            if known != server:
                self._untold = taught.everything(self._recipients, self._habits, most=MOST_NEWS)
        if not self._untold:  # what is new meanwhile waits where only so much of it is kept
            self._untold = taught.news(self._recipients, self._habits, most=MOST_NEWS)
        while self._untold:
            facts = self._untold[: AT_ONCE * taught.AT_ONCE]
            entries = [{"host": self._host.name, "facts": text} for text in taught.texts(facts)]
            await self._stream.add(entries, most=MOST_TEXTS)
            del self._untold[: len(facts)]
            self.told += len(facts)
            await asyncio.sleep(0)
        if server and server != self._told_all:
            await self._store.put(self._mark, server)
            self._told_all = server

    # Hearing.

    async def _follow(self) -> None:
        async with aclosing(self._stream.pages(self._after)) as pages:
            async for page in pages:
                self.silent = ""
                if page.entries:
                    await self._take(page)

    async def _take(self, page: Page) -> None:
        at = int(page.upto.partition("-")[0]) / 1_000.0
        rows = []
        for fields in page.entries:
            host = fields.get("host", "")
            if host == self._host.name:
                continue
            try:
                host.encode()  # it is kept
                facts = taught.read(fields.get("facts", ""))
            except ValueError as error:
                self._is_bad(host, error)
                continue
            rows += [Taught(*fact, host, at) for fact in facts]
            for fact in facts:
                self._hear(fact, at)
            self.heard += len(facts)
            await asyncio.sleep(0)
        with contextlib.suppress(StoreUnavailable):  # a full disk; it is read again after a restart
            await self._in_store(partial(self._kept.keep, rows, page.upto, before=at - OLDEST))
        self._after = page.upto

    def _hear(self, fact: Fact, at: float) -> None:
        taught.hear(fact, self._recipients, self._habits, at=at, now=self._clock())

    def _is_bad(self, host: str, error: Exception) -> None:
        self.bad += 1
        if self.bad == 1:
            _LOG.warning("%.100r tells the fleet what we cannot read, and do not take: %s", host, error)

    async def _in_store(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

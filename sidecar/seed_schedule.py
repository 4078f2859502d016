"""Tests of where our mail lands, in the outside process: by the clock; and a store for those that are made by hand."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from policies.placement import Place, Placement, SeedMail, placements
from sidecar import own_log
from sidecar.config import Config, ConfigError
from sidecar.database import StoreError, StoreUnavailable
from sidecar.seed_store import SeedStore
from sidecar.seed_tests import AFTERWARDS, SeedTest
from sidecar.threads import in_thread

_AGAIN = 3600.0
"""Seconds after a test that could not be made."""


class SeedSchedule:
    def __init__(self, config: Config, store: SeedStore, *, told: Callable[[Sequence[Placement]], None]) -> None:
        """`told` hears of each test that ended, also of those by hand."""
        self._config = config
        self._store = store
        self._told = told

    async def run(self) -> None:
        """Test for ever, as often as configured; without a configured pace, never."""
        every = self._config.seedtest.every_hours * 3600.0
        if not every:
            return
        while True:
            due = await in_thread(self._store.last_test) + every * random.uniform(0.95, 1.05)
            await asyncio.sleep(max(due - time.time(), 0.0))
            try:
                for transport in self._config.seedtest.transports or ("",):
                    await self._test(transport)
            except (ConfigError, StoreError) as error:
                own_log.seed_test_not_made(str(error))
                await asyncio.sleep(_AGAIN)
            except Exception as error:  # noqa: BLE001  # what a server says that nobody foresaw must not end the process
                own_log.feed_failed("seedtest", error)
                await asyncio.sleep(_AGAIN)

    async def _test(self, transport: str) -> None:
        late = await in_thread(lambda: late_of(self._config, self._store, now=time.time()))
        await SeedTest(self._config, self._put, late=late).run(transport)

    def _put(self, mails: Sequence[SeedMail], ended: bool) -> None:  # noqa: FBT001  # as Put
        self._store.put(mails, ended=ended, now=time.time())
        if ended:
            found = placements(mails)
            own_log.seed_test(*found)
            self._told(found)

    def commands(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]]:
        """Give what the control socket answers."""

        async def put(request: dict[str, Any]) -> Mapping[str, Any]:
            mails = read_mails(request.get("mails"))
            try:
                await in_thread(lambda: self._put(mails, request.get("ended") is True))
            except StoreUnavailable as error:
                raise ValueError(str(error)) from error
            return {"mails": len(mails)}

        return {"seed-mails": put}


def late_of(config: Config, store: SeedStore, *, now: float) -> list[SeedMail]:
    """Give those of earlier tests that no test still waits for."""
    return store.to_be_found(until=now - config.seedtest.deadline_minutes * 60.0 - AFTERWARDS, now=now)


def read_mails(rows: Any) -> list[SeedMail]:
    """Read what SeedMail is as JSON. Raises ValueError."""
    wanted = (str, str, str, str, float, str, str, float, float, bool, str)
    found = []
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, list) or len(row) != len(wanted) or not all(map(isinstance, row, wanted)):
            raise ValueError(f"no test mail: {row!r}"[:300])
        mail = SeedMail(*row)
        found.append(mail._replace(place=Place(mail.place)))
    return found

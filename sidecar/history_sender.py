"""The part of the outside process that sends core's events to ClickHouse: when, and what is said where it cannot."""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from sidecar import history_erasure, own_log, shipping_prune
from sidecar.clickhouse import HttpServer, ServerError
from sidecar.config import Config
from sidecar.database import StoreError
from sidecar.shipping import BATCH, Sent, Shipper
from sidecar.shipping_name import this_host
from sidecar.threads import in_thread

_AWAY_MAX: Final = 60.0
"""Seconds between two tries while the server is away."""
_PRUNE_EVERY: Final = 6 * 3600.0


class HistorySender:
    def __init__(self, config: Config, server: HttpServer, *, told: Callable[[Sent | None], None]) -> None:
        """`told` hears of each round; None: it failed."""
        self._config = config
        self._server = server
        self._told = told
        name = config.clickhouse.name or config.alerts.host or socket.gethostname()
        self._shipper = Shipper(config.core_database, server, name, days=config.clickhouse.event_days, host=this_host())
        self._turn = asyncio.Lock()
        """Of who talks to the server: nothing is sent while a person is erased, who might be in it."""
        self._away = 0
        """Rounds in a row that failed."""
        self._began = False
        self._pruned_at = 0.0

    async def run(self) -> None:
        """Send for ever. A batch that was full is followed by the next one at once."""
        while True:
            sent = await self.round()
            if sent is None:
                await asyncio.sleep(min(_AWAY_MAX, 2.0**self._away) * random.uniform(0.5, 1.0))
            elif sent.rows < BATCH:
                await asyncio.sleep(self._config.clickhouse.every_seconds)

    async def round(self) -> Sent | None:
        """Send once; None where that failed, which is said when it begins and when it is over."""
        try:
            async with self._turn:
                sent = await in_thread(lambda: self._send(time.time()))
        except (ServerError, StoreError) as error:
            self._failed(str(error))
            return None
        except Exception as error:  # noqa: BLE001  # an error of ours here must not end feeds and alerts
            own_log.history_failed(error)
            self._failed("an error of ours")
            return None
        if self._away > 1:
            own_log.history_back(sent.waiting)
        self._away = 0
        self._told(sent)
        return sent

    async def erase(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The control command "erase-history": one person, out of all hosts' history. Raises ValueError."""
        who = request.get("address")
        if not isinstance(who, str) or "@" not in who:
            raise ValueError('wanted {"address": "user@example.com"}')
        try:
            async with self._turn:
                return {"done": await in_thread(lambda: history_erasure.erase(self._server, who))}
        except ServerError as error:
            raise ValueError(f"not erased on the ClickHouse server: {error}") from error

    def _failed(self, why: str) -> None:
        self._away += 1
        if self._away == 2:  # one failure is a restart
            own_log.history_away(why)
        self._told(None)

    def _send(self, now: float) -> Sent:
        """Raises ServerError, StoreError."""
        if self._away or not self._began:
            self._server.create()
            self._began = True
        sent = self._shipper.step(now=now)
        ours = self._config.clickhouse
        if ours.prune and now - self._pruned_at >= _PRUNE_EVERY:
            shipping_prune.prune(
                self._server, now=now, events=ours.event_days, hours=ours.hourly_days, days=ours.daily_days
            )
            self._pruned_at = now
        return sent

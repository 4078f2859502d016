"""Tells core which bad signs there are, for `[[react]]`: the alerts that fire, as the outside process keeps them.

Tells all of them at each look, so that a word that was lost is said again; what is done about them is core's to say.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from policies.reacting import Signal
from policies.signs import Sign, signs_of
from sidecar import own_log, rules
from sidecar.config import Config
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.database import StoreError
from sidecar.incident_store import IncidentStore
from sidecar.threads import in_thread

EVERY: Final = 30.0


class ReactWatch:
    def __init__(self, config: Config, ask_core: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
        self._config = config
        self._ask_core = ask_core
        self.wanted = config.alerts.enabled and any(rule.signal is not Signal.IP_BLOCKED for rule in config.react)
        """Whether any rule waits for a sign that is seen outside."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(max(1.0, EVERY / self._config.subqueues.scale))

    async def look(self) -> None:
        """Look once; while core is away, or a store cannot be read, nothing is said, and nothing changes."""
        try:
            signs = await in_thread(self._signs)
            told = [sign._asdict() for sign in signs]
            await self._ask_core({"command": "react", "do": "signs", "signs": told})
        except (CoreUnreachable, CoreRefused):
            return  # whoever asks core says so
        except StoreError as error:
            own_log.look_incomplete(str(error))
        except Exception as error:  # noqa: BLE001  # an error of ours here must not end feeds and alerts
            own_log.look_failed(error)

    def _signs(self) -> list[Sign]:
        """Raises StoreError."""
        store = IncidentStore.open_read_only(self._config.outside_database)
        try:
            return signs_of(store.alerts(), rules.organizational_domain)
        finally:
            store.close()

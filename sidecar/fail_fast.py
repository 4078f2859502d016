"""Tells core which of our domains' authentication is broken, and which is well again, for core to hold their mail.

Reads what the authentication feed told and what sends now; what is believed stands in policies/breakage.py, and whether
anything is held is core's to say.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from parsers.feeds import own_authentication
from policies.breakage import MEASURES, Breakages, Look, Report
from policies.key import Key
from policies.sent_as import HOUR
from sidecar import own_log
from sidecar.config import Config, ConfigError
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.database import Database, StoreError
from sidecar.outside_store import OutsideStore
from sidecar.own_domains import configured_keys
from sidecar.statements import SCHEMA
from sidecar.threads import in_thread

EVERY: Final = 30.0
SENDS: Final = HOUR
"""Seconds in which a domain must have been tried to send for."""
SIGNS: Final = 1800.0
"""Seconds in which our signer must have used a key: one that was replaced is no longer anybody's."""

Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class FailFastWatch:
    def __init__(self, config: Config, ask_core: Ask, *, clock: Callable[[], float] = time.time) -> None:
        """Raises ConfigError."""
        self._config = config
        self._ask_core = ask_core
        self._clock = clock
        wanted = config.authentication
        self.wanted = bool(wanted.hold or wanted.domains)
        """Whether the site wants any mail held."""
        try:
            self._breakages = Breakages(wanted.requirements)
        except ValueError as error:
            raise ConfigError(f"authentication.requirements: {error}") from error
        if self.wanted and not config.feeds.authentication.enabled:
            raise ConfigError(
                "authentication.hold: feeds.authentication.enabled is false, so nobody would look; set it"
            )
        self._keys = {(key.domain, f"dkim-key.{key.selector}") for key in configured_keys(config)}
        self._measures = [MEASURES[name] for name in wanted.requirements]
        self._fresh = max(900.0, 3 * 60.0 * config.feeds.authentication.active_minutes)
        self._said: dict[Key, str] = {}
        self._doubted = False

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(max(1.0, EVERY / self._config.subqueues.scale))

    async def look(self) -> None:
        """Look once; core that is away or stores that are busy are asked again at the next look."""
        try:
            held = await self._core({})
            broken, repaired = await in_thread(lambda: self._judged(held))
            if broken or repaired:
                await self._tell(broken, repaired)
        except (CoreUnreachable, CoreRefused):
            return  # whoever asks core says so
        except StoreError as error:
            own_log.look_incomplete(str(error))
        except Exception as error:  # noqa: BLE001  # an error of ours here must not end feeds and alerts
            own_log.look_failed(error)

    async def _core(self, more: dict[str, Any]) -> list[Key]:
        answer = await self._ask_core({"command": "authentication", **more})
        for text, why in answer.get("said", {}).items():
            key = Key.read(text)
            if self._said.get(key) != why:
                self._said[key] = why
                own_log.authentication_broken(text, more["evidence"][text], why_not=why)
        return [Key.read(text) for text in answer["broken"]]

    async def _tell(self, broken: Iterable[Report], repaired: Iterable[Key]) -> None:
        told = [
            {"key": str(each.key), "what": each.what, "evidence": each.evidence, "looks": each.looks} for each in broken
        ]
        again = [str(key) for key in repaired]
        evidence = {each["key"]: each["evidence"] for each in told}
        await self._core({"broken": told, "repaired": again, "evidence": evidence})
        for key in repaired:
            self._said.pop(key, None)
            own_log.authentication_repaired(str(key))

    def _judged(self, held: list[Key]) -> tuple[list[Report], list[Key]]:
        """Raises StoreError."""
        now = self._clock()
        if not self._config.outside_database.exists():
            return [], []
        store = OutsideStore.open_read_only(self._config.outside_database)
        try:
            known = store.newest(own_authentication.FEED, self._measures)
            self._breakages.seen(
                Look(each.object, each.measure, each.outcome, each.value, each.text, each.polled_at) for each in known
            )
            since = now - self._fresh
            reports = self._breakages.broken(held, since=since)
            new = [each for each in reports if each.new and self._broke_in_use(each, store, now=now)]
            doubted = self._breakages.doubtful(len(new), since=since)
            self._doubt(len(new) if doubted else 0)
            still = [each for each in reports if not each.new]
            return still if doubted else [*still, *new], self._breakages.repaired(held, since=since)
        finally:
            store.close()

    def _doubt(self, keys: int) -> None:
        if bool(keys) != self._doubted and keys:
            own_log.authentication_doubted(keys)
        self._doubted = bool(keys)

    def _broke_in_use(self, report: Report, store: OutsideStore, *, now: float) -> bool:
        """Whether it was well before, and mail of it is sent now: else nothing broke, and there is nothing to hold."""
        was_well = [place for place in report.measures if store.was(own_authentication.FEED, *place, 1.0)]
        if not was_well or not self._config.core_database.exists():
            return False
        core = Database.open_read_only(self._config.core_database, SCHEMA)
        try:
            return any(self._in_use(core, report.key, *place, now=now) for place in was_well)
        finally:
            core.close()

    def _in_use(self, core: Database, key: Key, object_: str, measure: str, *, now: float) -> bool:
        if key.type == "spf-domain":
            return bool(core.rows(_SENDS, (now - SENDS, object_)))
        if core.rows(_SIGNS, (object_, measure.removeprefix("dkim-key."), now - SIGNS)):
            return True
        hour = int((now - SENDS) // HOUR)
        return (object_, measure) in self._keys and bool(core.rows(_SIGNED, (hour, f" {object_} ")))


_SENDS = "SELECT 1 FROM attempt WHERE time >= ? AND sender_domain = ? LIMIT 1"
_SIGNS = "SELECT 1 FROM learned WHERE kind = 'dkim-selector' AND name = ? AND value = ? AND last_seen >= ?"
_SIGNED = "SELECT 1 FROM sent_as WHERE hour >= ? AND instr(' ' || signed_by || ' ', ?) LIMIT 1"

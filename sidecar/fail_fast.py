"""Tells core which of our domains' authentication is broken, and which is well again, for core to hold their mail.

Reads what the authentication feed told and what sends now; what is believed stands in policies/breakage.py, and whether
anything is held is core's to say.
"""

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from parsers.feeds import own_authentication
from parsers.observation import Outcome
from policies.breakage import HOST_MEASURES, MEASURES, Breakages, HostRepairs, Look, Report, Wanted
from policies.fail_fast import PTR, TLS
from policies.key import Key
from policies.sent_as import HOUR
from sidecar import own_log, postfix
from sidecar.config import Config, ConfigError
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.database import Database, StoreError
from sidecar.outside_store import Known, OutsideStore
from sidecar.own_domains import configured_keys
from sidecar.statements import SCHEMA
from sidecar.threads import in_thread

EVERY: Final = 30.0
SENDS: Final = HOUR
"""Seconds in which a domain must have been tried to send for."""
SIGNS: Final = 1800.0
"""Seconds in which our signer must have used a key: one that was replaced is no longer anybody's."""

Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class _Held(NamedTuple):
    """What core says of it."""

    broken: list[Key]
    """Held by our own looks."""
    waiting: dict[Key, Wanted]
    """Held by a provider's replies until this host is repaired."""


class _Judged(NamedTuple):
    """What to tell core."""

    broken: list[Report]
    repaired: list[Key]
    still: list[Key]
    """Of those that wait: broken as far as we can see, too."""
    well: list[Key]


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
        self._host = HostRepairs()
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
            judged = await in_thread(lambda: self._judged(held))
            if any(judged):
                await self._tell(judged)
        except (CoreUnreachable, CoreRefused):
            return  # whoever asks core says so
        except StoreError as error:
            own_log.look_incomplete(str(error))
        except Exception as error:  # noqa: BLE001  # an error of ours here must not end feeds and alerts
            own_log.look_failed(error)

    async def _core(self, more: dict[str, Any]) -> _Held:
        answer = await self._ask_core({"command": "authentication", **more})
        for text, why in answer.get("said", {}).items():
            key = Key.read(text)
            if self._said.get(key) != why:
                self._said[key] = why
                own_log.authentication_broken(text, more["evidence"][text], why_not=why)
        waiting = {Key.read(text): Wanted(*wanted) for text, wanted in answer.get("waiting", {}).items()}
        return _Held([Key.read(text) for text in answer["broken"]], waiting)

    async def _tell(self, judged: _Judged) -> None:
        told = [
            {"key": str(each.key), "what": each.what, "evidence": each.evidence, "looks": each.looks}
            for each in judged.broken
        ]
        evidence = {each["key"]: each["evidence"] for each in told}
        keys = {name: [str(key) for key in getattr(judged, name)] for name in ("repaired", "still", "well")}
        await self._core({"broken": told, "evidence": evidence, **keys})
        for key in (*judged.repaired, *judged.well):
            self._said.pop(key, None)
            own_log.authentication_repaired(str(key))

    def _judged(self, held: _Held) -> _Judged:
        """Raises StoreError."""
        now = self._clock()
        if not self._config.outside_database.exists():
            return _Judged([], [], [], [])
        store = OutsideStore.open_read_only(self._config.outside_database)
        try:
            known = store.newest(own_authentication.FEED, self._measures)
            self._breakages.seen(map(_look, known))
            since = now - self._fresh
            reports = self._breakages.broken(held.broken, since=since)
            new = [each for each in reports if each.new and self._broke_in_use(each, store, now=now)]
            doubted = self._breakages.doubtful(len(new), since=since)
            self._doubt(len(new) if doubted else 0)
            still = [each for each in reports if not each.new]
            repaired = self._breakages.repaired(held.broken, since=since)
            self._host.seen(self._looks_at_host(store, held.waiting, now=now))
            return _Judged(
                still if doubted else [*still, *new], repaired, *self._host.judged(held.waiting, since=since)
            )
        finally:
            store.close()

    def _looks_at_host(self, store: OutsideStore, waiting: Mapping[Key, Wanted], *, now: float) -> Iterator[Look]:
        for known in store.newest(own_authentication.FEED, [HOST_MEASURES[PTR]]):
            if _is_address(known.object):  # of domains the same measure tells something else
                yield _look(known)
        if any(each.leaf == TLS for each in waiting.values()):
            yield self._look_at_postfix(now=now)

    def _look_at_postfix(self, *, now: float) -> Look:
        """Tell whether Postfix uses TLS to others at all; one instance or service that does may be the one that counts."""
        if self._config.postfix.reach:
            return Look("postfix", HOST_MEASURES[TLS], Outcome.UNKNOWN, None, "its Postfix is on another host", now)
        try:
            instances = postfix.instances(Path(self._config.postfix.config_directory))
            levels = {each.name: _tls_levels(each.config_directory) for each in instances}
        except postfix.PostfixError as error:
            return Look("postfix", HOST_MEASURES[TLS], Outcome.UNKNOWN, None, str(error), now)
        uses = any(found - {"none"} for found in levels.values())
        text = ", ".join(f"{name}: {' '.join(sorted(found))}" for name, found in levels.items())
        return Look("postfix", HOST_MEASURES[TLS], Outcome.OK, float(uses), text, now)

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


TLS_SETTINGS: Final = ("smtp_tls_security_level", "smtp_enforce_tls", "smtp_use_tls")


def tls_level(values: Mapping[str, str]) -> str:
    """Give the level that smtp(8) works with: smtp_tls_security_level, or what the two older settings mean."""
    if level := values.get("smtp_tls_security_level", ""):
        return level.lower()
    if values.get("smtp_enforce_tls") == "yes":
        return "encrypt"
    return "may" if values.get("smtp_use_tls") == "yes" else "none"


def _tls_levels(directory: Path) -> set[str]:
    """Give the levels of main.cf and of services in master.cf. Raises PostfixError."""
    of_services = postfix.service_settings(directory, expand=True)
    also = {value.lower() for name, value in of_services.items() if name.endswith(f"/{TLS_SETTINGS[0]}")}
    return {tls_level(postfix.parameters(directory, *TLS_SETTINGS)), *also}


def _look(known: Known) -> Look:
    return Look(known.object, known.measure, known.outcome, known.value, known.text, known.polled_at)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_SENDS = "SELECT 1 FROM attempt WHERE time >= ? AND sender_domain = ? LIMIT 1"
_SIGNS = "SELECT 1 FROM learned WHERE kind = 'dkim-selector' AND name = ? AND value = ? AND last_seen >= ?"
_SIGNED = "SELECT 1 FROM sent_as WHERE hour >= ? AND instr(' ' || signed_by || ' ', ?) LIMIT 1"

"""Reload: configuration and rules are read again while core works, and taken over all at once or not at all.

They are read by a process of their own, for that is a second of work during which no policy answer may wait; what it
found is put together here in pieces, between which answers are given.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import pickle
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from policies import routing
from policies.access import Wiring
from policies.classify import RuleSet
from policies.rule import Provider
from policies.rules import RuleError
from sidecar import mail_host, pools, postfix, rules
from sidecar.config import (
    DEFAULT_PATH,
    Config,
    ConfigError,
    HygieneConfig,
    Mode,
    PostfixConfig,
    SuppressionConfig,
    load,
)
from sidecar.core_parts import Parts
from sidecar.hygiene import open_hygiene
from sidecar.quota import read_quotas
from sidecar.routes import routes_of, routing_in_turns
from sidecar.site import check_strategies, engine_settings, listeners, wiring
from sidecar.systemd import notify

_LOG = logging.getLogger("sidecar.core")

LIVE: Final = frozenset(
    {
        "mode",
        "route",
        "transport",
        "pool",
        "warm_up",
        "canary",
        "react",
        "rules.directory",
        "policy.milters_quarantine",
        "store.retention_days",
        "store.audit_days",
        "subqueues.hold_max_hours",
        "subqueues.lane",
        "subqueues.pushback",
    }
)
"""Settings of core that change without a restart."""
_OF_CORE: Final = frozenset(
    {
        "runtime_directory",
        "log.source",
        "log.syslog_names",
        "log.host",
        "policy.listen",
        "store.path",
        "store.redis",
        "fleet.host",
        "fleet.prefix",
        "fleet.password_file",
        "store.hourly_days",
        "store.daily_days",
        "store.addresses",
        "postfix.config_directory",
        "postfix.reach",
        "postfix.ssh_config",
        "postfix.transport_table",
        "subqueues.scale",
        "authentication.hold",
        "authentication.domains",
        "report.campaign_headers",
        "report.segment_headers",
        "quota",
        *(f"hygiene.{field.name}" for field in dataclasses.fields(HygieneConfig)),
        *(f"suppression.{field.name}" for field in dataclasses.fields(SuppressionConfig)),
    }
)
"""Settings that core reads when it starts; all others are read by other processes, when those start."""
_WITHIN: Final = 60.0
"""Seconds after which a reading is given up: a Postfix command hangs, or a disk."""
_OWN_CODE: Final = str(Path(__file__).resolve().parents[1])


class ReloadError(Exception):
    """Something is bad in what was read; what was in force stays in force."""


class Source(NamedTuple):
    """Where core's configuration came from when it began."""

    path: Path | None
    """None: the usual place."""
    mode: Mode | None
    """By --act or --observe; goes before the configuration's."""

    def applied(self, config: Config) -> Config:
        """Give the configuration the mode of the command line, if there is one."""
        return config if self.mode is None else dataclasses.replace(config, mode=self.mode)


class Packed(NamedTuple):
    """A file of rules as it travels: each rule by itself, for making all their expressions at once takes too long."""

    provider: Provider
    rules: tuple[bytes, ...]


class Reading(NamedTuple):
    """What the reading process found: all good."""

    config: Config
    instances: tuple[postfix.Instance, ...]
    wiring: Mapping[str, Wiring]
    routes: tuple[routing.Route, ...]
    steered: pools.Wanted
    own: tuple[Packed, ...]
    """The admin's files of rules."""


def read(source: Source, began: PostfixConfig) -> Reading:
    """Read everything again, of the Postfix that core began with. Raises ConfigError, PostfixError or RuleError."""
    config = wanted = source.applied(load(source.path))
    mail_host.check(config)
    file = source.path or DEFAULT_PATH
    read_quotas(config, file=file)
    open_hygiene(config.hygiene, file=file)
    own = rules.own_providers(config.rules.directory)
    check_strategies(config, rules.together(own))
    same = dataclasses.replace(began, transport_table=config.postfix.transport_table)
    config = dataclasses.replace(config, postfix=same)
    instances = mail_host.instances(config)
    packed = tuple(
        Packed(dataclasses.replace(provider, rules=()), tuple(map(pickle.dumps, provider.rules))) for provider in own
    )
    return Reading(
        wanted,
        instances,
        wiring(config, instances),
        routes_of(config, pools.names(config)),
        pools.wanted(config, instances),
        packed,
    )


def main() -> None:
    """In the reading process: a pickled Reading, or in its place the text of an error, to standard output."""
    source, began = pickle.load(sys.stdin.buffer)  # noqa: S301  # from core, who started us
    found: Reading | str
    try:
        found = read(source, began)
    except (ConfigError, postfix.PostfixError, RuleError) as error:
        found = str(error)
    pickle.dump(found, sys.stdout.buffer)


async def read_again(source: Source, began: PostfixConfig) -> Reading:
    """Have everything read by another process. Raises ReloadError."""
    paths = os.pathsep.join(filter(None, (_OWN_CODE, os.environ.get("PYTHONPATH"))))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", "from sidecar.reload import main; main()",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    try:
        async with asyncio.timeout(_WITHIN):
            written, _ = await process.communicate(pickle.dumps((source, began)))
    except TimeoutError:
        raise ReloadError(f"configuration and rules could not be read within {_WITHIN:.0f} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if process.returncode:
        raise ReloadError(f"the process that reads configuration and rules ended with status {process.returncode}")
    found: Reading | str = pickle.loads(written)  # noqa: S301  # our own process wrote it
    if isinstance(found, str):
        raise ReloadError(found)
    return found


async def unpacked(own: tuple[Packed, ...]) -> RuleSet:
    """Put the rules together: with each rule that is unpacked its expressions are made, and others get a turn after it."""
    providers = []
    for packed in own:
        made = []
        for rule in packed.rules:
            made.append(pickle.loads(rule))  # noqa: S301  # as above
            await asyncio.sleep(0)
        providers.append(dataclasses.replace(packed.provider, rules=tuple(made)))
    return rules.together(tuple(providers))


def changed(old: Any, new: Any, within: str = "") -> Iterator[str]:
    """Name the settings that differ, as `log.source`."""
    for field in dataclasses.fields(old):
        one, other = getattr(old, field.name), getattr(new, field.name)
        if dataclasses.is_dataclass(one):
            yield from changed(one, other, f"{within}{field.name}.")
        elif one != other:
            yield f"{within}{field.name}"


def in_force(old: Config, new: Config) -> Config:
    """Take over what may change while core works, and of the rest what it began with."""
    return dataclasses.replace(
        old,
        mode=new.mode,
        route=new.route,
        transport=new.transport,
        pool=new.pool,
        warm_up=new.warm_up,
        canary=new.canary,
        react=new.react,
        rules=new.rules,
        policy=dataclasses.replace(old.policy, milters_quarantine=new.policy.milters_quarantine),
        store=dataclasses.replace(old.store, retention_days=new.store.retention_days, audit_days=new.store.audit_days),
        subqueues=dataclasses.replace(
            new.subqueues, scale=old.subqueues.scale, failsafe_after_minutes=old.subqueues.failsafe_after_minutes
        ),
    )


class Reload:
    """Reads again when it is told to, one time after another, and remembers what came of the last."""

    def __init__(self, parts: Parts, source: Source) -> None:
        self._parts = parts
        self._source = source
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.at = 0.0
        """When the last one ended, 0 before the first."""
        self.error = ""
        """Of the last one; "" where it was taken over."""
        self.waiting: tuple[str, ...] = ()
        """Settings that have changed and want a restart, of core first, then of others."""

    def by_signal(self) -> None:
        """Begin; what comes of it is in our log and in the status."""
        self._task = asyncio.get_running_loop().create_task(self._quietly())

    async def _quietly(self) -> None:
        with contextlib.suppress(ReloadError):
            await self.now()

    async def now(self) -> None:
        """Read, and take over. Raises ReloadError when something is bad; nothing has changed then."""
        async with self._turn:
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                reading = await read_again(self._source, self._parts.config.postfix)
                self._take_over(reading, await unpacked(reading.own), await routing_in_turns(reading.routes))
                self.error = ""
            except ReloadError as error:
                self.error = str(error)
                _LOG.error("nothing is taken over, what was in force stays: %s", error)
                raise
            finally:
                self.at = time.time()
                notify("READY=1")

    def _take_over(self, reading: Reading, rule_set: RuleSet, routes: routing.Routing) -> None:
        """From one policy answer to the next."""
        parts = self._parts
        config = in_force(parts.config, reading.config)
        parts.access.configure(
            routing=routes,
            milters_quarantine=config.policy.milters_quarantine,
            act=config.mode is Mode.ACT,
            wiring=reading.wiring,
            steering=parts.steering if reading.steered.anything else None,
        )
        if parts.steering is not None:
            pools.configure(parts.steering, reading.steered)
        parts.engine.take_over(rule_set, engine_settings(config, reading.instances, reading.wiring))
        different = set(changed(config, reading.config))
        if listeners(config, reading.instances) != listeners(config, parts.instances):
            different.add("policy.listen")  # Postfix has other instances than before
        self.waiting = (*sorted(different & _OF_CORE), *sorted(different - _OF_CORE))
        parts.config, parts.instances = config, reading.instances
        _LOG.info(
            "configuration and rules read again: mode %s, %d rules%s",
            config.mode,
            len(rule_set.rules),
            self._restarts(),
        )

    def _restarts(self) -> str:
        ours = [name for name in self.waiting if name in _OF_CORE]
        others = [name for name in self.waiting if name not in _OF_CORE]
        said = f"; core is to be restarted for {', '.join(ours)}" if ours else ""
        return said + (f"; the other processes are to be restarted for {', '.join(others)}" if others else "")

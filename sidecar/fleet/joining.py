"""Makes core one of a fleet where `store.redis` says so, and keeps it from harm by that.

The Redis client is loaded by these calls alone: one host by itself does without.
"""

import asyncio
import contextlib
import functools
import logging
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from policies.buckets import Quotas
from policies.engine import Engine
from policies.fleet.host import Host
from policies.fleet.presence import Presence
from policies.steering import Steering
from sidecar.config import Config, ConfigError
from sidecar.control import ask_core_async
from sidecar.database import StoreUnavailable
from sidecar.fleet import address
from sidecar.store import Store
from sidecar.suppression import Suppression

if TYPE_CHECKING:
    from sidecar.channels import Channel
    from sidecar.core_parts import Lag, Parts
    from sidecar.fleet.commands import FleetCommands
    from sidecar.fleet.exchange import Exchange
    from sidecar.fleet.maps import SharedMaps
    from sidecar.fleet.pages import SharedPages
    from sidecar.fleet.quotas import SharedQuotas
    from sidecar.fleet.redis_store import RedisStore
    from sidecar.fleet.suppressions import SharedSuppressions
    from sidecar.fleet.warm_ups import SharedWarmUps
    from sidecar.incident_store import IncidentStore

_LOG = logging.getLogger("sidecar.fleet")
AGAIN_AFTER = 5.0
"""Seconds."""
ERASED_WITHIN = 600.0
"""Seconds that the outside process may look through its store for a person."""


def exchange(config: Config, engine: Engine) -> "Exchange":
    """Join the engine with its fleet; nothing is asked yet. Raises ConfigError."""
    from sidecar.fleet.exchange import Exchange  # noqa: PLC0415  # only a fleet pays for the client

    return Exchange(Host(name(config), engine, steady=time.monotonic), _store(config))


def suppressions(
    config: Config, fleet: "Exchange", suppression: Suppression, store: Store, thread: ThreadPoolExecutor
) -> "SharedSuppressions":
    """Join the suppression list with the fleet's, in the thread that all SQL runs in; nothing is asked yet.

    Raises ConfigError, StoreError.
    """
    from sidecar.fleet.change_log import ChangeLog  # noqa: PLC0415  # only a fleet pays for the client
    from sidecar.fleet.suppressions import SharedSuppressions  # noqa: PLC0415  # as above

    async def erase_outside(person: str) -> None:
        request = {"command": "erase", "address": person}
        await ask_core_async(config.outside_socket, request, timeout=ERASED_WITHIN)

    changes = ChangeLog(_store(config, fleet))
    return SharedSuppressions(
        name(config), changes, store.outbox, suppression, thread=thread, erase_outside=erase_outside
    )


def quotas(
    config: Config, fleet: "Exchange | None", buckets: Quotas | None, *, store: Store, thread: ThreadPoolExecutor
) -> "SharedQuotas | None":
    """Have this host's part of each bucket follow its need, where a quota is the fleet's; nothing is asked yet.

    Until the fleet's store is met it is the equal part that `learning` found.

    Raises ConfigError.
    """
    if fleet is None or buckets is None or not any(quota.fleet for quota in buckets.quotas.values()):
        return None
    from sidecar.fleet.quotas import SharedQuotas  # noqa: PLC0415  # only a fleet pays for the client

    async def remember(alone: float) -> None:
        keep = functools.partial(store.fleet_part.keep, fleet.host.name, alone)
        with contextlib.suppress(StoreUnavailable):  # a full disk; commits say so already
            await asyncio.get_running_loop().run_in_executor(thread, keep)

    return SharedQuotas(fleet.host, _store(config, fleet), buckets, remember=remember)


def learning(
    config: Config,
    fleet: "Exchange | None",
    steering: Steering,
    *,
    store: Store,
    engine: Engine,
    thread: ThreadPoolExecutor,
) -> "tuple[SharedWarmUps, SharedMaps] | tuple[None, None]":
    """Join how far warm-ups have come, and what was learned about names, with the other hosts', in the thread that all SQL
    runs in; and find which part of all budgets was ours. Nothing is asked yet.

    Raises ConfigError, StoreError.
    """
    if fleet is None:
        return None, None
    from sidecar.fleet.maps import SharedMaps  # noqa: PLC0415  # only a fleet pays for the client
    from sidecar.fleet.warm_ups import SharedWarmUps  # noqa: PLC0415  # as above

    fleet.host.contact.alone_before = store.fleet_part.read(fleet.host.name)
    warm_ups = SharedWarmUps(
        fleet.host,
        _store(config, fleet),
        steering.warm_ups,
        store.fleet_warm_ups,
        tell=engine.telling.tell,
        thread=thread,
    )
    return warm_ups, SharedMaps(fleet.host, _store(config, fleet), engine, store.taught, thread=thread)


def commands(config: Config, fleet: "Exchange | None") -> "FleetCommands | None":
    """Have hosts do what an admin asks of all of them on one; nothing is asked yet. Raises ConfigError."""
    if fleet is None:
        return None
    from sidecar.fleet.commands import FleetCommands  # noqa: PLC0415  # only a fleet pays for the client

    def members() -> dict[str, bool]:
        return {str(row["host"]): not row["silent"] for row in fleet.host.standing()["hosts"]}

    return FleetCommands(name(config), _store(config, fleet), members)


def pages(config: Config, rows: "IncidentStore", channels: "Sequence[Channel]") -> "SharedPages | None":
    """Have what several hosts see be told once, where there is a fleet; nothing is asked yet. Raises ConfigError, StoreError."""
    if not config.store.redis:
        return None
    from sidecar.fleet.pages import SharedPages  # noqa: PLC0415  # only a fleet pays for the client

    return SharedPages(name(config), _store(config), rows, channels)


def name(config: Config) -> str:
    """Give what the fleet calls this host."""
    return config.fleet.host or socket.gethostname()


def _store(config: Config, fleet: "Exchange | None" = None) -> "RedisStore":
    """Connect to the store; what listens there follows `fleet` to another server. Raises ConfigError."""
    from sidecar.fleet.redis_store import RedisStore  # noqa: PLC0415  # only a fleet pays for the client

    try:
        address.check(config.store.redis)
        store = RedisStore(config.store.redis, prefix=config.fleet.prefix, password=_password(config))
    except ValueError as error:
        raise ConfigError(f"store.redis: {error}") from None  # the cause may carry the password
    if fleet is not None:
        store.fleet_server = fleet.server
    return store


async def keep_up(fleet: "Exchange", wake: Callable[[], None]) -> None:
    """Keep exchanging until cancelled. An error of ours there is told, and this host alone for a while: mail goes on."""
    fleet.wake_engine = wake
    while True:
        try:
            await fleet.run()
        except Exception:  # noqa: BLE001  # whatever it is, the mail of this host must not stand still for it
            _LOG.exception("the exchange with the fleet failed; it begins again in %g s", AGAIN_AFTER)
        await asyncio.sleep(AGAIN_AFTER)


def presence(name: str, parts: "Parts", lag: "Lag") -> Presence:
    """Tell the others how the host `name` is."""
    engine = parts.engine
    return Presence(
        name,
        0.0,
        sidecar=_version(),
        mode=str(parts.config.mode),
        held=len(engine.books.ours),
        live=len(engine.messages),
        subqueues=len(engine.subqueues.all()),
        lag=round(lag.seconds, 3),
        helper=parts.hands.reachable,
    )


def _version() -> str:
    try:
        return version("postfix-sidecar")
    except PackageNotFoundError:  # run from its source, without being installed
        return ""


def _password(config: Config) -> str:
    path = config.fleet.password_file
    if not path:
        return ""
    try:
        password = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"fleet.password_file: {path}: cannot be read: {error}") from error
    if not password:
        raise ConfigError(f"fleet.password_file: {path}: empty; wanted the password")
    return password

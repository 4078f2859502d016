"""Quotas in core: their configuration, their way to the store, and what the control socket asks of them.

Knows the order of things: what is charged is in memory at once and in the store half a second later. It has no rule of
its own about who may send how much.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from policies.bucket import Bucket, Taken
from policies.buckets import Quotas
from policies.quota import ALMOST, Quota
from policies.telling import Telling
from sidecar.config import Config, ConfigError, QuotaConfig
from sidecar.database import StoreUnavailable
from sidecar.quota_store import QuotaTable
from sidecar.rules import organizational_domain

if TYPE_CHECKING:
    from policies.quota_condition import Where

_LOG = logging.getLogger("sidecar.quota")

STORE_EVERY: Final = 0.5
PRUNE_EVERY: Final = 600.0
_LISTED: Final = 1_000

Request = Mapping[str, Any]
Answer = dict[str, Any]


def read_quotas(config: Config, *, file: Path) -> tuple[Quota, ...]:
    """Give the quotas of the configuration, checked. Raises ConfigError."""
    names = set[str]()
    quotas = []
    for number, row in enumerate(config.quota):
        key = f"{file}: quota[{number}]"
        if not row.name or not all(sign.isascii() and (sign.isalnum() or sign in "-_.") for sign in row.name):
            raise ConfigError(f"{key}.name: found {row.name!r}, wanted letters, digits, - _ and .")
        if row.name in names:
            raise ConfigError(f"{key}.name: there is a quota {row.name} before it; wanted a name of its own")
        if row.warn > 1:
            raise ConfigError(f"{key}.warn: found {row.warn}, wanted a share from 0 to 1, as 0.8")
        names.add(row.name)
        quotas.append(_quota(row, key, store=config.store.redis))
    return tuple(quotas)


def _quota(row: QuotaConfig, key: str, *, store: str) -> Quota:
    """`store`: the fleet's, "" where this host is none of a fleet."""
    where = _where(row.where, f"{key}.where") if row.where else None
    return Quota(
        row.name, row.per, row.count, row.limit, row.within,
        burst=row.burst or row.limit,
        warn=row.warn,
        defers=row.defer,
        where=where.holds if where else None,
        by_provider=where is not None and where.by_provider,
        keys=row.keys,
        fleet=row.fleet and bool(store),
    )  # fmt: skip


def _where(text: str, key: str) -> "Where":
    """The language of conditions is loaded where somebody uses it: core starts sooner without. Raises ConfigError."""
    from parsers.expression import ExpressionError  # noqa: PLC0415  # as said
    from policies.quota_condition import read_condition  # noqa: PLC0415  # as said

    try:
        return read_condition(text)
    except ExpressionError as error:
        raise ConfigError(f"{key}: {error}") from error


def open_quotas(
    quotas: tuple[Quota, ...], table: QuotaTable, provider_of: Callable[[str], str | None], *, now: float
) -> Quotas:
    """Make the buckets, as full as they were. Raises StoreError."""
    opened = Quotas(quotas, organizational=organizational_domain, provider_of=provider_of)
    for row in table.all():
        opened.restore(row, now=now)
    return opened


class QuotaBook:
    """The buckets' way to the store, and people's to the buckets."""

    def __init__(self, quotas: Quotas, table: QuotaTable, thread: ThreadPoolExecutor, telling: Telling) -> None:
        self.quotas = quotas
        self._table = table
        self._thread = thread
        self._telling = telling
        self._unstored: dict[tuple[str, str], Taken] = {}
        self._turn = asyncio.Lock()
        self._failure = ""

    async def run(self) -> None:
        pruned = time.monotonic()
        while True:
            await asyncio.sleep(STORE_EVERY)
            if await self.store() and time.monotonic() - pruned > PRUNE_EVERY:
                pruned = time.monotonic()
                await self._prune(now=time.time())

    async def store(self) -> bool:
        """Write what has changed; tell whether it is stored. What is not is kept, one row a bucket, for the next time."""
        async with self._turn:
            self._unstored.update(((row.quota, row.key), row) for row in self.quotas.changed())
            if not self._unstored:
                return True
            rows = list(self._unstored.values())
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._table.put, rows)
            except StoreUnavailable as error:
                if not self._failure:
                    _LOG.warning("quotas: %s; what is in use is in memory alone until the store takes writes", error)
                self._failure = str(error)
                # Ever new senders push out ever more; what is left of those in the store goes with time.
                self._unstored = {key: row for key, row in self._unstored.items() if row.at}
                return False
            self._unstored.clear()
            self._failure = ""
            return True

    async def _prune(self, *, now: float) -> None:
        """Delete rows that say nothing: all has come back, or there is no such quota."""
        rates = {name: quota.rate for name, quota in self.quotas.quotas.items()}
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._table.prune, rates, now)
        except StoreUnavailable as error:
            _LOG.warning("quotas: old rows stay: %s", error)

    # By hand.

    async def answer(self, request: Request) -> Answer:
        """The control command "quota". Raises ValueError for a request that makes no sense."""
        do = _DO.get(str(request.get("do", "")))
        if do is None:
            raise ValueError(f"do={request.get('do')!r}: wanted one of {', '.join(_DO)}")
        name = str(request.get("quota") or "")
        if name and name not in self.quotas.quotas:
            raise ValueError(f"{name}: no such quota; known: {', '.join(self.quotas.quotas)}")
        return await do(self, request, name)

    async def _list(self, request: Request, name: str) -> Answer:
        limit = min(int(request.get("limit", 50)), _LISTED)
        buckets = self.quotas.buckets(name, now=time.time())
        return {"buckets": [_said(bucket) for bucket in buckets[: max(limit, 0)]], "in_use": len(buckets)}

    async def _show(self, request: Request, name: str) -> Answer:
        key = str(request.get("key", ""))
        found = [bucket for bucket in self.quotas.buckets(name, now=time.time()) if bucket.key == key]
        return {"buckets": [_said(bucket) for bucket in found]}

    async def _reset(self, request: Request, name: str) -> Answer:
        key, who, now = str(request.get("key", "")), str(request.get("who") or "control socket"), time.time()
        found = [bucket for bucket in self.quotas.buckets(name, now=now) if bucket.key == key]
        if not found:
            raise ValueError(f"{key}: nothing is in use of {name or 'any quota'}")
        for bucket in found:
            taken = self.quotas.reset(bucket.quota.name, key, now=now)
            why = f"{bucket.quota.name} for {key}: {taken:.1f} of {bucket.quota.burst} were in use"
            rule = f"quota/{bucket.quota.name}"
            self._telling.tell("quota-reset", why, now=now, rule=rule, by_whom=who)
        return {"reset": [bucket.quota.name for bucket in found], "key": key, "stored": await self.store()}


_DO: Final[Mapping[str, Callable[[QuotaBook, Request, str], Awaitable[Answer]]]] = {
    "list": QuotaBook._list,  # noqa: SLF001  # the table of this class's own answers
    "show": QuotaBook._show,  # noqa: SLF001  # as above
    "reset": QuotaBook._reset,  # noqa: SLF001  # as above
}


def _said(bucket: Bucket) -> Answer:
    quota = bucket.quota
    return {
        "quota": quota.name,
        "per": str(quota.per),
        "key": bucket.key,
        "count": str(quota.counted),
        "limit": quota.limit,
        "within": str(quota.within),
        "burst": quota.burst,
        "in_use": round(bucket.taken, 3),
        "room": max(0, int(quota.capacity - bucket.taken + ALMOST)),
        "part": round(quota.part, 4),
        "room_again_s": round(bucket.wait(bucket.taken), 3),
        "under_way": bucket.unsettled,
        "beyond": bucket.beyond,
        "defers": quota.defers,
    }

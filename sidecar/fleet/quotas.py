"""A host's part of each bucket that the fleet has together: asked for by need, given back when it is not used.

Nobody waits for it: smtpd is answered by the part that is at hand. The rules are in `policies.fleet.allowance`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from policies.bucket import Bucket
from policies.buckets import Quotas
from policies.fleet.allowance import HOLDS, LEAST, RENEWED, UNASKED, WHOLE, Allowance, Wish, fair, lend
from policies.fleet.host import Host
from policies.fleet.terms import ROUND
from policies.quota import SECONDS
from sidecar.fleet.redis_store import Read, StoreSilent, Swap, goes_on

_LOG = logging.getLogger("sidecar.fleet")

LOOK: Final = 0.5
"""Seconds between two looks at who needs more."""
AT_ONCE: Final = 16
TRIES: Final = 4
ROOM: Final = 4.0
"""A host asks for so many times what is in use there: that it has to ask again before it is full is rare."""
NAME: Final = "quota:"
DECLARED: Final = "declared:"

Place = tuple[str, str]
"""A quota and a key."""


class Store(Protocol):
    """What is wanted of `RedisStore`. Each raises StoreSilent."""

    async def read(self, names: Sequence[str]) -> list[Read]: ...

    async def swap(self, swaps: Sequence[Swap]) -> list[Read | None]: ...

    async def texts(self, names: Sequence[str]) -> tuple[float, list[str]]: ...

    async def put(self, name: str, text: str) -> None: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class Lease:
    part: float = 0.0
    fair: float = 1.0
    """What it may want, as the store said last."""
    ends: float = 0.0
    """By our steady clock."""
    asked: float = 0.0


class SharedQuotas:
    def __init__(self, host: Host, store: Store, quotas: Quotas, *, clock: Callable[[], float] = time.time) -> None:
        """`clock`: that by which the buckets drain."""
        self.silent = "not asked yet"
        """Why the store does not answer; "" while it does."""
        self.leases: dict[Place, Lease] = {}
        self._host = host
        self._store = store
        self._quotas = quotas
        self._clock = clock
        self._base = 1.0
        self._declared = ""
        """The life of the store that we have told what we hold."""
        self._all_declared = ""
        """... that all hosts have."""
        self._looked = 0.0

    async def run(self) -> None:
        """Ask and give back until cancelled."""
        try:
            while goes_on():
                try:
                    await self.look()
                    self.silent = ""
                except StoreSilent as error:
                    if not self.silent:
                        _LOG.warning("quotas: the fleet's store is silent: %s; each host keeps its part", error)
                    self.silent = str(error)
                await asyncio.sleep(LOOK * random.uniform(0.8, 1.0))
        finally:
            await self._store.close()

    def status(self) -> Mapping[str, Any]:
        return {"silent": self.silent, "part": round(self._base, 4), "lent": len(self.leases)}

    async def look(self) -> None:
        """Have buckets be as large as they may, then ask for those that need more or less. Raises StoreSilent."""
        if not self._host.takes_part or self._host.contact.roll is None:
            return  # as without a fleet
        now = self._host.steady()
        self._take_part()
        for place, lease in list(self.leases.items()):
            if lease.part and now >= lease.ends:
                lease.part = 0.0
                self._resize(place, lease)
        pressed = {(bucket.quota.name, bucket.key) for bucket in self._quotas.pressed}
        self._quotas.pressed.clear()
        due = {place: None for place in pressed if self._needs(place, now)}
        due.update((place, None) for place, lease in self.leases.items() if now - lease.asked >= RENEWED)
        server = self._host.contact.server
        if self._declared != server:
            due.update(dict.fromkeys(self.leases))
        places = list(due)
        for start in range(0, len(places), AT_ONCE):
            try:
                await self._ask(places[start : start + AT_ONCE])
            except StoreSilent:
                self._press(places[start:])
                raise
            await asyncio.sleep(0)
        await self._declare(server, now)

    def _take_part(self) -> None:
        base = UNASKED * self._host.contact.alone
        if base != self._base:
            self._base = base
            self._quotas.take_part(base, now=self._clock())
            for place, lease in self.leases.items():
                self._resize(place, lease)

    def _needs(self, place: Place, now: float) -> bool:
        """Whether there might be more to have than at the last time."""
        lease, bucket = self.leases.get(place), self._quotas.bucket(*place)
        return bucket is not None and (
            lease is None or now - lease.asked >= ROUND or lease.part < self._want(bucket) / 2
        )

    def _want(self, bucket: Bucket) -> float:
        """What we would have beside what is ours without asking."""
        used = bucket.level_at(self._clock())
        wanted = max(ROOM * used, 2.0) / bucket.quota.burst if used or bucket.beyond else 0.0
        return max(0.0, min(1.0, wanted) - self._base)

    def _wish(self, bucket: Bucket, lease: Lease) -> Wish:
        """Make the bucket as small as it should be, and only then say what we hold."""
        quota = bucket.quota
        least = max(0.0, bucket.level_at(self._clock()) / bucket.quota.burst - self._base)
        want = self._want(bucket)
        lease.part = max(least, min(lease.part, want, max(lease.fair, 0.0)))
        self._resize((quota.name, bucket.key), lease)
        return Wish(self._host.name, lease.part, want, quota.burst / quota.limit * SECONDS[quota.within])

    async def _ask(self, places: Sequence[Place]) -> None:
        """Raises StoreSilent."""
        sent = self._host.steady()
        for place in places:
            if self._quotas.bucket(*place) is None:  # what is in use of it is not known any more, until the loan ends
                self.leases.pop(place, None)
        places = [place for place in places if self._quotas.bucket(*place) is not None]
        names = {place: f"{NAME}{place[0]}:{place[1]}" for place in places}
        waiting = dict(zip(places, await self._store.read(list(names.values())), strict=True))
        for _ in range(TRIES):
            swaps, made = [], {}
            for place, read in waiting.items():
                bucket = self._quotas.bucket(*place)
                assert bucket is not None  # nothing of it goes while `places` is looked through, but by another message
                lease = self.leases.setdefault(place, Lease())
                wish = self._wish(bucket, lease)
                made[place] = allowance = self._lent(read, wish)
                others = {host: loan for host, loan in allowance.loans.items() if host != self._host.name}
                lease.fair = fair(others, wish.want, self._pool())
                swaps.append(Swap(names[place], read, allowance.text()))
            again = self._host.steady()
            quicker = dict(zip(waiting, await self._store.swap(swaps), strict=True))
            for place, other in quicker.items():
                if other is None:
                    self._is_lent(place, made[place], sent)
            waiting, sent = {place: other for place, other in quicker.items() if other is not None}, again
            if not waiting:
                return
        self._press(list(waiting))

    def _lent(self, read: Read, wish: Wish) -> Allowance:
        contact = self._host.contact
        try:
            before = Allowance.read(read.text) if read.text else None
        except ValueError:
            before = None  # written anew, as what a store lost
        return lend(
            before,
            wish,
            self._pool(),
            may_grow=contact.standing.quorate and contact.is_fresh(now=self._host.steady() - ROUND),
            all_declared=self._all_declared == read.server,
            server=read.server,
            at=read.at,
        )

    def _pool(self) -> float:
        """What nobody may use without asking."""
        roll = self._host.contact.roll
        return WHOLE - UNASKED * sum(member.alone for member in roll.members.values()) if roll is not None else 0.0

    def _is_lent(self, place: Place, allowance: Allowance, sent: float) -> None:
        lease = self.leases[place]
        lease.part, lease.ends, lease.asked = allowance.part(self._host.name), sent + HOLDS, sent
        self._resize(place, lease)
        if lease.part < LEAST and self._host.name not in allowance.loans:
            del self.leases[place]

    def _resize(self, place: Place, lease: Lease) -> None:
        part = min(1.0, self._base + lease.part) if lease.part else None
        self._quotas.resize(*place, part, now=self._clock())

    def _press(self, places: Sequence[Place]) -> None:
        for place in places:
            bucket = self._quotas.bucket(*place)
            if bucket is not None:
                self._quotas.pressed[bucket] = None

    async def _declare(self, server: str, now: float) -> None:
        """Say that all that we hold is in the books of this store, and hear of who has said so. Raises StoreSilent."""
        roll = self._host.contact.roll
        if roll is None or self._all_declared == server or now - self._looked < ROUND:
            return
        self._looked = now
        if self._declared != server:
            await self._store.put(f"{DECLARED}{self._host.name}", server)
            self._declared = server
        _, said = await self._store.texts([f"{DECLARED}{host}" for host in roll.members])
        if all(each == server for each in said):
            self._all_declared = server

"""A host's part of each bucket that the fleet has together: asked for by need, given back when it is not used.

Nobody waits for it: smtpd is answered by the part that is at hand. The rules are in `policies.fleet.allowance`.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from policies.bucket import Bucket
from policies.buckets import Quotas
from policies.fleet.allowance import (
    APART,
    AWAY,
    HOLDS,
    LEAST,
    RENEWED,
    UNASKED,
    Allowance,
    Wish,
    equal,
    faded,
    fair,
    lend,
    unlent,
)
from policies.fleet.host import Host
from policies.fleet.terms import ROUND
from policies.quota import SECONDS
from sidecar.fleet.redis_store import Read, StoreSilent, goes_on
from sidecar.fleet.rewriting import Declaring, Store, rewrite

_LOG = logging.getLogger("sidecar.fleet")

LOOK: Final = 0.5
"""Seconds between two looks at who needs more."""
TRY_AGAIN: Final = 5.0
AT_ONCE: Final = 16
ROOM: Final = 4.0
"""A host asks for so many times what is in use there: that it has to ask again before it is full is rare."""
NAME: Final = "quota:"
DECLARED: Final = "declared:"

STEPS: Final = 16
"""In which our part goes over to another while the whole quota drains once: a step touches all buckets."""
FINE_STEPS: Final = 64
"""... and what is lent, which is in few."""
ENOUGH: Final = 4.0
"""After so many times it has gone over."""
BACK: Final = 5.0
"""Seconds in which a host that was away says what it has in use, before others are lent what was left to it."""

Place = tuple[str, str]
"""A quota and a key."""


@dataclass(slots=True)
class Lease:
    part: float = 0.0
    fair: float = 1.0
    """What it may want, as the store said last."""
    ends: float = 0.0
    """By our steady clock; from then on there is less of it."""
    asked: float = 0.0


class SharedQuotas:
    def __init__(
        self,
        host: Host,
        store: Store,
        quotas: Quotas,
        *,
        remember: Callable[[float], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`remember`: keeps what we may take of any budget when we are alone, for the next start; `clock`: that by which
        the buckets drain."""
        self.silent = "not asked yet"
        """Why the store does not answer; "" while it does."""
        self.bad = 0
        """Allowances that cannot be read."""
        self.leases: dict[Place, Lease] = {}
        self._host = host
        self._store = store
        self._quotas = quotas
        self._clock = clock
        self._drains = {
            name: quota.burst / quota.limit * SECONDS[quota.within]
            for name, quota in quotas.quotas.items()
            if quota.fleet
        }
        """Seconds in which a whole quota comes back."""
        self._parts = dict.fromkeys(self._drains, 1.0)
        """Of each quota what is ours without asking."""
        self._stepped = -math.inf
        self._heard = -math.inf
        """When we last had word of a majority, by our steady clock."""
        self._away: dict[str, float] = {}
        """Hosts that may be on their own, and until when we take them for that."""
        self._remember = remember
        self._remembered = before = host.contact.alone_before
        if host.takes_part and before:  # as it was when we heard last, until we hear again
            self._parts = dict.fromkeys(self._drains, equal({host.name: before}, host.name))
            quotas.take_part(self._parts, now=clock())
        self.declaring = Declaring(store, host.name, DECLARED)

    async def run(self) -> None:
        """Ask and give back until cancelled."""
        try:
            while goes_on():
                try:
                    await self.look()
                    self.silent = ""
                    await self._keep()
                except StoreSilent as error:
                    if not self.silent:
                        _LOG.warning("quotas: the fleet's store is silent: %s; each host keeps its part", error)
                    self.silent = str(error)
                except Exception:  # noqa: BLE001  # an error of ours here must not end core: it answers Postfix
                    _LOG.exception("quotas of the fleet")
                    await asyncio.sleep(TRY_AGAIN)
                await asyncio.sleep(LOOK * random.uniform(0.8, 1.0))
        finally:
            await self._store.close()

    async def _keep(self) -> None:
        alone = self._host.contact.alone
        if self._host.contact.roll is not None and alone != self._remembered:
            await self._remember(alone)
            self._remembered = alone

    def status(self) -> Mapping[str, Any]:
        return {
            "silent": self.silent,
            "part": round(min(self._parts.values()), 4),
            "lent": len(self.leases),
            "bad": self.bad,
        }

    async def look(self) -> None:
        """Have buckets be as large as they may, then ask for those that need more or less. Raises StoreSilent."""
        if not self._host.takes_part or self._host.contact.roll is None:
            return  # as without a fleet
        now = self._host.steady()
        self._look_who_is_away(now)
        self._take_part(now)
        self._fade(now)
        pressed = {(bucket.quota.name, bucket.key) for bucket in self._quotas.pressed}
        self._quotas.pressed.clear()
        due = {place: None for place in pressed if self._needs(place, now)}
        due.update((place, None) for place, lease in self.leases.items() if now - lease.asked >= RENEWED)
        server = self._host.contact.server
        if self.declaring.server != server:
            due.update(dict.fromkeys(self.leases))
        places = list(due)
        for start in range(0, len(places), AT_ONCE):
            try:
                await self._ask(places[start : start + AT_ONCE])
            except StoreSilent:
                self._press(places[start:])
                raise
            await asyncio.sleep(0)
        await self.declaring.say(server, self._alone(), now=now)

    def _take_part(self, now: float) -> None:
        """Have what is ours without asking: our part of a quarter, and when we are apart for long more and more, to an
        equal part of all of it."""
        contact = self._host.contact
        base, apart = UNASKED * contact.alone, contact.apart(now=now) - APART
        parts = dict.fromkeys(self._drains, base)
        if apart > 0:
            alone = {**self._alone(), self._host.name: contact.alone}
            whole = equal(alone, self._host.name)
            parts = {
                name: whole + (base - whole) * faded(_step(apart, drain), drain) for name, drain in self._drains.items()
            }
        changed = {name: part for name, part in parts.items() if part != self._parts[name]}
        if not changed:
            return
        ended = any(part < self._parts[name] for name, part in changed.items())
        self._parts = parts
        self._quotas.take_part(changed, now=self._clock())
        for place, lease in self.leases.items():
            self._resize(place, lease)
        if ended:  # what is in use beyond our part has to be told, before it is lent to others
            self._press([(bucket.quota.name, bucket.key) for bucket in self._beyond_our_part(changed)])

    def _beyond_our_part(self, names: Iterable[str]) -> list[Bucket]:
        return [
            bucket
            for name in names
            for bucket in self._quotas.buckets(name, now=self._clock())
            if bucket.taken > self._parts[name] * bucket.quota.burst
        ]

    def _fade(self, now: float) -> None:
        """Have less and less of what was lent by a store that we cannot reach any more."""
        for place, lease in list(self.leases.items()):
            drain = self._drains[place[0]]
            if lease.part and now - lease.ends >= drain / FINE_STEPS:
                lease.part *= faded(now - lease.ends, drain)
                lease.ends = now
                lease.part = lease.part if lease.part >= LEAST else 0.0
                self._resize(place, lease)

    def _look_who_is_away(self, now: float) -> None:
        """Leave their equal parts to those of whom nothing is heard, and for a moment to all after we heard nothing."""
        contact = self._host.contact
        assert contact.roll is not None
        apart = contact.apart(now=now)
        if now - apart - self._heard >= AWAY:
            self._away = dict.fromkeys(contact.roll.members, now + BACK)
        self._heard = now - apart
        for host, member in contact.roll.members.items():
            if contact.roll_at - member.agreed >= AWAY:
                self._away[host] = now + BACK
        self._away = {host: until for host, until in self._away.items() if until > now}

    def _alone(self) -> dict[str, float]:
        """Tell what each host may take of any budget when it is alone."""
        roll = self._host.contact.roll
        return {host: member.alone for host, member in roll.members.items()} if roll is not None else {}

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
        return max(0.0, min(1.0, wanted) - self._parts[bucket.quota.name])

    def _wish(self, bucket: Bucket, lease: Lease) -> Wish:
        """Make the bucket as small as it should be, and only then say what we hold."""
        quota = bucket.quota
        least = max(0.0, bucket.level_at(self._clock()) / quota.burst - self._parts[quota.name])
        want = self._want(bucket)
        lease.part = max(least, min(lease.part, want, max(lease.fair, 0.0)))
        self._resize((quota.name, bucket.key), lease)
        return Wish(self._host.name, lease.part, want, self._drains[quota.name])

    async def _ask(self, places: Sequence[Place]) -> None:
        """Raises StoreSilent."""
        for place in places:
            if self._quotas.bucket(*place) is None:  # what is in use of it is not known any more, until the loan ends
                self.leases.pop(place, None)
        names = {place: f"{NAME}{place[0]}:{place[1]}" for place in places if self._quotas.bucket(*place) is not None}
        done = await rewrite(self._store, names, self._asked, self._host.steady)
        for place, (allowance, sent) in done.items():
            self._is_lent(place, allowance, sent)
        self._press([place for place in names if place not in done])

    def _asked(self, place: Place, read: Read) -> Allowance:
        lease = self.leases.setdefault(place, Lease(ends=self._host.steady()))
        bucket = self._quotas.bucket(*place)
        if bucket is None:  # dropped while we waited for the store
            return self._lent(read, Wish(self._host.name, lease.part, 0.0, self._drains[place[0]]))
        wish = self._wish(bucket, lease)
        allowance = self._lent(read, wish)
        others = {host: loan for host, loan in allowance.loans.items() if host != self._host.name}
        lease.fair = fair(others, wish.want, self._pool())
        return allowance

    def _lent(self, read: Read, wish: Wish) -> Allowance:
        contact = self._host.contact
        try:
            before = Allowance.read(read.text) if read.text else None
        except ValueError as error:
            self.bad += 1
            if self.bad == 1:
                _LOG.warning("the fleet's store has a quota that we cannot read, and is told anew: %s", error)
            before = None  # as what a store lost
        return lend(
            before,
            wish,
            self._pool(),
            may_grow=contact.standing.quorate and contact.is_fresh(now=self._host.steady() - ROUND),
            all_declared=self.declaring.complete == read.server,
            server=read.server,
            at=read.at,
        )

    def _pool(self) -> float:
        """What nobody may use without asking."""
        return unlent(self._alone(), self._away.keys() - {self._host.name})

    def _is_lent(self, place: Place, allowance: Allowance, sent: float) -> None:
        lease = self.leases[place]
        lease.part, lease.asked = allowance.part(self._host.name), sent
        if self._host.contact.standing.quorate:  # else a majority elsewhere counts from when we left it
            lease.ends = sent + HOLDS
        self._resize(place, lease)
        if lease.part < LEAST and self._host.name not in allowance.loans:
            del self.leases[place]

    def _resize(self, place: Place, lease: Lease) -> None:
        part = min(1.0, self._parts[place[0]] + lease.part) if lease.part else None
        self._quotas.resize(*place, part, now=self._clock())

    def _press(self, places: Sequence[Place]) -> None:
        for place in places:
            bucket = self._quotas.bucket(*place)
            if bucket is not None:
                self._quotas.pressed[bucket] = None


def _step(seconds: float, drain: float) -> float:
    """Round down to whole steps; infinite: it is over."""
    return seconds // (drain / STEPS) * (drain / STEPS) if seconds < ENOUGH * drain else math.inf

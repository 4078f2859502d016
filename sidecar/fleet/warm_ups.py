"""A host's part of what one address may carry today, where all hosts of the fleet send from it: asked for by need, and given
back when it is not used.

Nobody waits for it: smtpd is answered by the part that is at hand. The rules are in `policies.fleet.budget`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from policies.fleet.budget import TALLY, Budget, Share, Terms, Wish, attend, fair, uncounted
from policies.fleet.host import Host
from policies.fleet.terms import FORGOTTEN_AFTER, ROUND
from policies.key import EVERYWHERE
from policies.steering import Tell
from policies.warm_up import Level, Plan, WarmUps
from sidecar.database import StoreUnavailable
from sidecar.fleet.redis_store import Read, StoreSilent, goes_on
from sidecar.fleet.rewriting import Declaring, Store, rewrite
from sidecar.fleet.warm_up_memory import WarmUpMemory

_LOG = logging.getLogger("sidecar.fleet")

LOOK: Final = 0.5
"""Seconds between two looks at who needs more."""
TOLD_EVERY: Final = 5.0
"""Seconds between two times that counts are told."""
RENEWED: Final = 60.0
"""Seconds after which it is asked anew for what there is, and given back what is not needed."""
TRY_AGAIN: Final = 5.0
AT_ONCE: Final = 16
AHEAD: Final = 2.0
"""So many times what was sent in the last minute, and what was turned away, a host would have at hand."""
AT_HAND: Final = 0.1
"""Of its part of a figure that is its own without asking, so much is not given back: who begins to send need not wait."""
NAME: Final = "warm-up:"
DECLARED: Final = "declared-warm-up:"

Place = tuple[str, str]
"""Transport and provider."""


class _Counts(NamedTuple):
    promised: int
    turned_away: int


_NOTHING: Final = _Counts(0, 0)


@dataclass(slots=True)
class Lease:
    day: int
    asked: float = -1e9
    """By our steady clock."""
    fair: float = 1e18
    """What we may want, as the store said last."""
    told: Share | None = None
    since: float = 0.0
    """When this minute began, by our steady clock ..."""
    counted: _Counts = _NOTHING
    """... what was counted by then ..."""
    before: _Counts = _NOTHING
    """... and by the beginning of the one before."""


class SharedWarmUps:
    def __init__(
        self,
        host: Host,
        store: Store,
        warm_ups: WarmUps,
        memory: WarmUpMemory,
        *,
        tell: Tell,
        thread: ThreadPoolExecutor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Reads core's store, so in its thread, before any mail is asked about. `clock`: that of the days here."""
        self.silent = "not asked yet"
        """Why the store does not answer; "" while it does."""
        self.bad = 0
        """Budgets that cannot be read."""
        self._host = host
        self._store = store
        self._warm_ups = warm_ups
        self._memory = memory
        self._tell = tell
        self._thread = thread
        self._clock = clock
        self._leases: dict[Place, Lease] = {}
        self._unkept: dict[Place, Level] = {}
        self.declaring = Declaring(store, host.name, DECLARED)
        warm_ups.alone = 0.0  # until we have met the fleet we go on with what we had
        for level in memory.levels():
            warm_ups.learn(level)

    async def run(self) -> None:
        """Ask and give back until cancelled."""
        try:
            while goes_on():
                try:
                    await self.look()
                    self.silent = ""
                except StoreSilent as error:
                    if not self.silent:
                        _LOG.warning("warm-ups: the fleet's store is silent: %s; each host goes by its part", error)
                    self.silent = str(error)
                except Exception:  # noqa: BLE001  # an error of ours here must not end core: it answers Postfix
                    _LOG.exception("warm-ups of the fleet")
                    await asyncio.sleep(TRY_AGAIN)
                await self.keep()
                await asyncio.sleep(LOOK * random.uniform(0.8, 1.0))
        finally:
            await self._store.close()

    def status(self) -> Mapping[str, Any]:
        return {"silent": self.silent, "shared": len(self._leases), "bad": self.bad}

    async def look(self) -> None:
        """Ask for what is due. Raises StoreSilent."""
        contact, now = self._host.contact, self._host.steady()
        if not self._host.takes_part:
            self._warm_ups.alone = None  # as without a fleet
            return
        if contact.roll is None or not any(plan.fleet for plan in self._warm_ups.plans):
            self._warm_ups.alone = self._warm_ups.alone or 0.0
            return
        # Whom nobody has heard of for so long others leave nothing.
        self._warm_ups.alone = contact.alone if contact.apart(now=now) < FORGOTTEN_AFTER else 0.0
        anew = self.declaring.server != contact.server
        due = [level for level in self._levels() if self._is_due(level, now, anew=anew)]
        for start in range(0, len(due), AT_ONCE):
            await self._ask(due[start : start + AT_ONCE])
            await asyncio.sleep(0)
        await self.declaring.say(contact.server, contact.roll.members, now=now)

    async def keep(self) -> None:
        """Have our store know how far the fleet has come."""
        if not self._unkept:
            return
        kept, self._unkept = self._unkept, {}
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._memory.keep, list(kept.values()))
        except StoreUnavailable:  # a full disk; commits say so already
            self._unkept = kept | self._unkept

    def _levels(self) -> list[Level]:
        today = self._warm_ups.day(self._clock())
        plans = [plan for plan in self._warm_ups.plans if self._warm_ups.shares(plan) and today >= plan.started]
        return [level for plan in plans for level in self._warm_ups.levels(plan.transport)]

    def _is_due(self, level: Level, now: float, *, anew: bool) -> bool:
        lease = self._leases.get((level.transport, level.provider))
        if lease is None or lease.day != level.day or anew or level.day > self._warm_ups.day(self._clock()):
            return True
        since = now - lease.asked
        pressed = level.turned_away > lease.before.turned_away or 2 * level.promised > level.figure
        told = lease.told is not None and self._share(level, lease)[2:] == lease.told[2:]
        pressed = pressed or lease.told is None or level.refused != lease.told.refused
        return since >= RENEWED or (since >= ROUND and pressed) or (since >= TOLD_EVERY and not told)

    def _share(self, level: Level, lease: Lease) -> Share:
        place = (level.transport, level.provider)
        known = self._warm_ups.fleet.get(place)
        ready = AT_HAND * (self._warm_ups.alone or 0.0) * (known.figure if known is not None else level.figure)
        new = level.promised - lease.before.promised + level.turned_away - lease.before.turned_away
        want = level.promised + max(AHEAD * new, ready)
        return Share(level.figure, want, *(getattr(level, name) for name in TALLY))

    async def _ask(self, levels: Sequence[Level]) -> None:
        """Raises StoreSilent."""
        names = {(level.transport, level.provider): f"{NAME}{level.transport}:{level.provider}" for level in levels}
        done = await rewrite(self._store, names, self._asked, self._host.steady)
        for place, (budget, sent) in done.items():
            self._is_lent(place, budget, sent)

    def _asked(self, place: Place, read: Read) -> Budget:
        level, plan = self._found(place)
        today = self._warm_ups.day(read.at)
        if level.day > today == self._warm_ups.day(self._clock()):
            self._warm_ups.set_back(level, today)
        before = self._known(read.text, place)
        if before is not None and before.level.day == level.day and self._host.name in before.shares:
            self._warm_ups.recall(level, before.shares[self._host.name].promised)
        wish = self._wish(level)
        contact, now = self._host.contact, self._host.steady()
        assert contact.roll is not None
        terms = Terms(
            plan,
            self._warm_ups.fleet.get((place[0], EVERYWHERE)) if place[1] != EVERYWHERE else None,
            {host: member.alone for host, member in contact.roll.members.items()},
            may_grow=contact.standing.quorate and contact.is_fresh(now=now - ROUND),
            all_declared=self.declaring.complete == read.server,
            server=read.server,
            today=today,
        )
        budget = attend(before, wish, terms, provider=place[1])
        self._leases[place].fair = fair(budget, wish)
        self._leases[place].told = wish.share
        return budget

    def _found(self, place: Place) -> tuple[Level, Plan]:
        level = next(each for each in self._warm_ups.levels(place[0]) if each.provider == place[1])
        return level, next(plan for plan in self._warm_ups.plans if plan.transport == place[0])

    def _wish(self, level: Level) -> Wish:
        """Keep as little as we should, and only then say what that is."""
        place, now = (level.transport, level.provider), self._host.steady()
        lease = self._leases.get(place)
        if lease is None or lease.day != level.day:
            lease = self._leases[place] = Lease(level.day, since=now)
        share = self._share(level, lease)
        if now - lease.since >= RENEWED:
            lease.since, lease.before, lease.counted = now, lease.counted, _Counts(level.promised, level.turned_away)
        self._warm_ups.resize(level, max(float(level.promised), min(level.figure, share.want, lease.fair)))
        return Wish(
            self._host.name, level.day, share._replace(lent=level.figure), level.held, self._warm_ups.fleet.get(place)
        )

    def _known(self, text: str, place: Place) -> Budget | None:
        try:
            return _read(text, place) if text else None
        except ValueError as error:
            self.bad += 1
            if self.bad == 1:
                _LOG.warning("the fleet's store has a warm-up that we cannot read, and is told anew: %s", error)
            return None

    def _is_lent(self, place: Place, budget: Budget, sent: float) -> None:
        lease, (level, _) = self._leases[place], self._found(place)
        lease.asked = sent
        share = budget.shares.get(self._host.name)
        if share is not None and level.day == budget.level.day:
            self._warm_ups.resize(level, share.lent)
        before, total = self._warm_ups.fleet.get(place), budget.total()
        self._warm_ups.learn(total)
        if before is None or uncounted(before) != uncounted(total):
            self._unkept[place] = total
        if total.stepped and not (before is not None and before.stepped and before.day == total.day):
            self._tell_of(total, budget.stepped_by)

    def _tell_of(self, total: Level, by: str) -> None:
        why = f"{total.transport} at {total.provider} steps back to {total.figure:.0f} a day for all hosts"
        by_whom = "warm-up" if by == self._host.name else f"host {by}"
        self._tell("warm-up", why, by_whom=by_whom, now=self._clock())


def _read(text: str, place: Place) -> Budget:
    """Raises ValueError."""
    budget = Budget.read(text)
    found = budget.level.transport, budget.level.provider
    if found != place:
        raise ValueError(f"a budget of {' at '.join(found)}; wanted that of {' at '.join(place)}")
    return budget

"""A month of warm-up against providers that punish growth, with a listing in the middle.

    python benchmarks/warm_up.py [--json] [--a-day N] [--factor F] [--seeds N]

A warm address and a new one share the mail of a pool; what they carry, and what becomes of it, goes through the same
`Steering` as in core. Each provider keeps, for each address, the volume that it is used to: more than so many times that
in a day is put off with a reply against the address, and each such day costs reputation. What is not sent is forgotten.
On day 15 the new address is listed for two days: every provider refuses it, and a poll finds it a quarter of an hour
later. What was refused is tried again over the same address, as Postfix does. Beside our schedule run a calendar that
doubles whatever was sent, and none at all. Exit status 1 when our schedule is throttled, or a message is lost.
"""

import argparse
import heapq
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policies.commands import Attempt  # after the path
from policies.figures import Kind  # as above
from policies.key import EVERYWHERE, Key  # as above
from policies.pools import Member, Pool  # as above
from policies.reacting import Do, Reactions, Rule, Signal  # as above
from policies.routing import Mail, read_route  # as above
from policies.signs import Sign  # as above
from policies.steering import Settings, Steering  # as above
from policies.warm_up import DAY, Plan, Spent, WarmUps  # as above

FIRST = 20_041
"""The first day, a Monday, since 1970-01-01."""
DAYS = 35
OLD, NEW = "ip-1", "ip-2"
SHARES = {"google": 45.0, "microsoft": 25.0, "yahoo": 12.0, "gmx": 6.0, "orange": 4.0, "comcast": 3.0}
SMALL = 20
"""Providers that share the rest."""
WEEKDAYS = (1.0, 1.2, 1.0, 1.1, 0.9, 0.25, 0.25)
"""How much of the daily mail there is, from Monday on."""
LISTED, DELISTED = 14.4, 16.4
"""Days after the first."""
FOUND_AFTER = 900.0
FORGOTTEN = 0.97
"""What a provider remembers of a volume from one day to the next."""
RETRY = 1_800.0
LIFETIME = 5 * DAY


@dataclass(slots=True)
class Provider:
    """What it thinks of each address."""

    factor: float
    floor: float
    """A day, that anybody may send."""
    used_to: dict[str, float] = field(default_factory=dict)
    health: dict[str, float] = field(default_factory=dict)
    today: Counter[str] = field(default_factory=Counter)
    punished: set[str] = field(default_factory=set)

    def offer(self, address: str) -> bool:
        """Whether a message is accepted."""
        allowed = max(self.floor, self.factor * self.used_to.get(address, 0.0)) * self.health.get(address, 1.0)
        if self.today[address] >= allowed:
            if address not in self.punished:
                self.punished.add(address)
                self.health[address] = 0.7 * self.health.get(address, 1.0)
            return False
        self.today[address] += 1
        return True

    def night(self) -> None:
        for address in {*self.used_to, *self.today}:
            self.used_to[address] = max(FORGOTTEN * self.used_to.get(address, 0.0), float(self.today[address]))
            self.health[address] = min(1.0, self.health.get(address, 1.0) + 0.05)
        self.today.clear()
        self.punished.clear()


class Calendar(WarmUps):
    """Twice as much each day, whatever was sent, and to whom."""

    def refuses(self, transport: str, counts: Mapping[str, int], *, now: float) -> Spent | None:
        if transport != NEW:
            return None
        whole = next(iter(self.levels(NEW)), None)
        (plan,) = self.plans
        figure = plan.start_per_day * 2.0 ** (self.day(now) - plan.started)
        spent = whole.promised if whole is not None and whole.day == self.day(now) else 0
        return Spent(EVERYWHERE, "spent") if spent + sum(counts.values()) > figure else None


class Nothing(WarmUps):
    """Its share from the first day on."""

    def refuses(self, transport: str, counts: Mapping[str, int], *, now: float) -> Spent | None:  # noqa: ARG002  # whatever it is
        return None


class NoHands:
    """Nothing is held here."""

    def hold(self, key: Key, seconds: float, *, rule: str, line: str, by_whom: str, now: float) -> None: ...

    def open(self, key: Key, *, rule: str, line: str = "", by_whom: str, now: float) -> None: ...

    def resume(self, key: Key, *, by_whom: str, now: float) -> bool:  # noqa: ARG002  # as the engine has it
        return False


class Result(NamedTuple):
    """What became of a month."""

    injected: int
    delivered: int
    queued: int
    lost: int
    throttled: int
    """Replies of providers that found it too much."""
    refused_listed: int
    """Attempts over the new address while it was listed."""
    sent_while_out: int
    """Messages that the policy service sent over it after the listing was found and before it ended."""
    over_new: int
    warm_on: int
    """The day after the first on which its share was no longer limited, 0: never."""
    back_after_h: float
    """Hours from the delisting until it carries half its share again, -1: never."""
    figures: tuple[int, ...]
    """What the new address delivered, by day."""


class Month:
    def __init__(self, kind: type[WarmUps], *, a_day: int, factor: float, seed: int) -> None:
        self._random = random.Random(seed)
        self._a_day = a_day
        self._names = [*SHARES, *(f"mx{i}.example" for i in range(SMALL))]
        self._weights = [*SHARES.values(), *(5.0 / SMALL for _ in range(SMALL))]
        floor = max(5.0, a_day / 100)
        self._providers = {name: Provider(factor, floor, {OLD: a_day * 2.0}) for name in self._names}
        plan = Plan(NEW, FIRST, max(5, a_day // 200), 1.4, a_day // 2)
        self._said: list[str] = []
        rules = (Rule("listed", Signal.LISTED, Do.LEAVE_POOL), Rule("blocked", Signal.IP_BLOCKED, Do.LEAVE_POOL))
        pools = {"bulk": Pool("bulk", (Member(OLD), Member(NEW)))}
        settings = Settings(pools, (), {"192.0.2.2": (NEW,)})
        self.warm_ups = kind([plan])
        self._steering = Steering(settings, self.warm_ups, Reactions(rules, NoHands()), tell=self._tell)
        self._route = read_route("pool:bulk", "tenant = news")
        self._waiting: list[tuple[float, int, float, str, str]] = []
        """(time of the next try, number, arrival, transport, provider)."""
        self._counts: Counter[str] = Counter()
        self._by_day: Counter[int] = Counter()
        self._share: dict[int, list[int]] = {}
        """Hour -> [sent over the new address, all]."""

    def _tell(self, kind: str, why: str, *, now: float, line: str = "", rule: str = "", by_whom: str) -> None:  # noqa: ARG002  # not of interest
        self._said.append(f"day {now / DAY - FIRST:.1f}: {kind} {why}")

    def run(self) -> Result:
        number, told, warm_on = 0, False, 0
        for day in range(DAYS):
            for now in self._times(day):
                self._retry(now)
                there = LISTED * DAY + FOUND_AFTER <= now - FIRST * DAY < DELISTED * DAY
                if there is not told:
                    told = there
                    found = [Sign(Signal.LISTED, Kind.ADDRESS, "192.0.2.2", "*", "listed by zen")] if there else []
                    self._steering.signs(found, now=now)
                self._steering.look(now=now)
                number += 1
                self._arrive(number, now, out=told)
            for provider in self._providers.values():
                provider.night()
            whole = next(iter(self.warm_ups.levels(NEW)), None)
            warm_on = warm_on or (day + 1 if whole is not None and whole.warm else 0)
        count = self._counts
        return Result(
            number, count["delivered"], len(self._waiting), count["lost"], count["throttled"], count["listed"],
            count["while-out"], sum(self._by_day.values()), warm_on, self._back_after(),
            tuple(self._by_day[day] for day in range(DAYS)),
        )  # fmt: skip

    def _times(self, day: int) -> Iterator[float]:
        """Mail of a day: half of it spread, half in two bursts."""
        total = int(self._a_day * WEEKDAYS[day % 7] * self._random.uniform(0.9, 1.1))
        hours = [self._random.uniform(0, 24) for _ in range(total // 2)]
        for begin in (9.0, 16.0):
            hours += [self._random.uniform(begin, begin + 0.5) for _ in range(total // 4)]
        yield from ((FIRST + day) * DAY + hour * 3600 for hour in sorted(hours))

    def _arrive(self, number: int, now: float, *, out: bool) -> None:
        queue_id = f"4c{number:08d}"
        (name,) = self._random.choices(self._names, self._weights)
        mail = Mail(
            name, "a@b.example", "b.example", "n@s.example", "s.example", "s.example", "news", "", "postfix", 1, 1
        )
        found = self._steering.steer(self._route, mail, {name: 1}, queue_id, now=now)
        transport = found.transport if found else ""
        self._steering.answered(transport, {name: 1}, ("postfix", queue_id), now=now)
        self._counts["while-out"] += out and transport == NEW
        hour = self._share.setdefault(int((now - FIRST * DAY) // 3600), [0, 0])
        hour[0] += transport == NEW
        hour[1] += 1
        self._try(number, now, now, transport, name)

    def _try(self, number: int, now: float, arrival: float, transport: str, name: str) -> None:
        listed = transport == NEW and LISTED <= now / DAY - FIRST < DELISTED
        accepted = not listed and self._providers[name].offer(transport)
        if accepted:
            self._counts["delivered"] += 1
            if transport == NEW:
                self._by_day[int(now // DAY) - FIRST] += 1
        else:
            self._counts["listed" if listed else "throttled"] += 1
            if now - arrival > LIFETIME:
                self._counts["lost"] += 1
            else:
                heapq.heappush(self._waiting, (now + RETRY, number, arrival, transport, name))
        status, scope = ("sent", "") if accepted else ("deferred", "ip")
        self._steering.attempted(
            Attempt(
                now, "mx", "postfix", f"4c{number:08d}", "s.example", "b.example", name, "", "", status, "", "", "", scope,
                0.0, "", service=transport, reply="" if accepted else "421 4.7.0 too much of this address",
            ),
            now=now,
        )  # fmt: skip

    def _retry(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            at, number, arrival, transport, name = heapq.heappop(self._waiting)
            self._try(number, at, arrival, transport, name)

    def _back_after(self) -> float:
        """As of the share that it had in the day before it was listed."""
        hours = range(int(LISTED * 24) - 24, int(LISTED * 24))
        usual = [self._share[hour] for hour in hours if hour in self._share]
        half = 0.5 * sum(new for new, _ in usual) / max(1, sum(all_ for _, all_ in usual))
        for hour in range(int(DELISTED * 24), DAYS * 24):
            lately = [self._share[each] for each in range(hour - 5, hour + 1) if each in self._share]
            if lately and sum(new for new, _ in lately) >= half * sum(all_ for _, all_ in lately) and half:
                return hour - DELISTED * 24
        return -1.0


KINDS: Mapping[str, type[WarmUps]] = {"ours": WarmUps, "calendar, doubling": Calendar, "no warm-up": Nothing}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--a-day", type=int, default=8_000, help="messages on an average weekday (%(default)s)")
    parser.add_argument("--factor", type=float, default=2.0, help="growth that providers put up with (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="months to play (%(default)s)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, list[Result]] = {
        name: [Month(kind, a_day=given.a_day, factor=given.factor, seed=seed).run() for seed in range(given.seeds)]
        for name, kind in KINDS.items()
    }
    if given.json:
        print(json.dumps({name: [result._asdict() for result in results] for name, results in found.items()}))
    else:
        _print(found)
    return int(any(result.throttled or result.lost or result.sent_while_out for result in found["ours"]))


def _print(found: Mapping[str, list[Result]]) -> None:
    heads = ("injected", "delivered", "queued", "lost", "throttled", "refused_listed", "sent_while_out", "over_new")
    print(f"{'':<20}", *(f"{head:>14}" for head in heads), f"{'warm on day':>12}", f"{'back after h':>13}")
    for name, results in found.items():
        for result in results:
            row: dict[str, Any] = result._asdict()
            print(
                f"{name:<20}",
                *(f"{row[head]:>14}" for head in heads),
                f"{result.warm_on:>12}",
                f"{result.back_after_h:>13.1f}",
            )
    print("delivered over the new address, by day:", *found["ours"][0].figures)


if __name__ == "__main__":
    sys.exit(main())

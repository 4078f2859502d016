"""The ramp against hidden limits: how long a backlog takes to drain, and how many deferrals that costs.

    python benchmarks/ramp.py [--json] [--backlog N] [--model FILE.py:NAME] [--arrivals] [--reaction S] [--untold]
    python benchmarks/ramp.py --sweep 200 [--backlog N] [--reaction S] [--jitter PART] [--loss PART]

Everything is pushed at full speed until the first refusal is seen; then a sub-queue opens. Its policy sees accepted
and refused, a reaction time later, and is asked once a second for its allowance. Beside ours run two comparators:
`stop` (300 s, then full speed) and `steps` (300 s, one probe, then 10, 25, 50, 100 % of full speed). "base" is the
optimum that knows the limit plus the first pause. A model is any class with one method, `offer(now) -> bool`; where
it has no `optimum(backlog)` of its own, the best constant pace stands for it. `--sweep` tries limits drawn at random,
none of them among those that the policy was tuned on, and prints how drain and deferrals spread.
Exit status 1 when a bar is missed.
"""

import argparse
import heapq
import importlib.util
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.ramp_models import CASES, PUSH, Case, Limit, draw  # after the path
from policies.subqueue import Pacing, State, SubQueue  # as above

PAUSE = 300.0
HORIZON = 4e6
"""Seconds after which a drain counts as never."""
BATCH = 150
"""Messages released at once, at the most."""


class Policy(Protocol):
    state: State

    def refused(self, *, began: float, now: float) -> None: ...
    def accepted(self, *, began: float, now: float) -> None: ...
    def allowance(self, *, now: float, held: int) -> int: ...
    def spent(self, count: int, *, now: float) -> None: ...
    def passes(self, *, now: float, held: int) -> bool: ...
    def next_at(self, *, now: float, held: int) -> float: ...


class Stop:
    """Nothing for PAUSE seconds after a refusal, then full speed: what a plain suspension does."""

    def __init__(self, *, now: float) -> None:
        self.state = State.PAUSED
        self.until = now + PAUSE

    def refused(self, *, began: float, now: float) -> None:
        if began >= self.until:
            self.state, self.until = State.PAUSED, now + PAUSE

    def accepted(self, *, began: float, now: float) -> None:
        pass

    def allowance(self, *, now: float, held: int) -> int:
        if now >= self.until:
            self.state = State.RAMPING
        return held if self.state is State.RAMPING else 0

    def spent(self, count: int, *, now: float) -> None:
        pass

    def passes(self, *, now: float, held: int) -> bool:
        return not held and now >= self.until

    def next_at(self, *, now: float, held: int) -> float:
        del held
        return max(now, self.until)


class Steps(Stop):
    """PAUSE, one probe, then so many percent of full speed for a minute each."""

    SHARES = (0.10, 0.25, 0.50, 1.00)

    def __init__(self, *, now: float) -> None:
        super().__init__(now=now)
        self.credit, self.at, self.since = 0.0, now, math.inf
        self.out = False

    def refused(self, *, began: float, now: float) -> None:
        if began >= self.until:
            self.state, self.until, self.out, self.since = State.PAUSED, now + PAUSE, False, math.inf

    def accepted(self, *, began: float, now: float) -> None:
        if self.state is State.PROBING and began >= self.until:
            self.state, self.since, self.at, self.credit = State.RAMPING, now, now, 0.0

    def allowance(self, *, now: float, held: int) -> int:
        del held
        if self.state is State.PAUSED and now >= self.until:
            self.state = State.PROBING
        if self.state is State.PROBING:
            return int(not self.out)
        if self.state is State.RAMPING:
            share = self.SHARES[min(len(self.SHARES) - 1, int((now - self.since) / 60))]
            self.credit = min(PUSH, self.credit + share * PUSH * (now - self.at))
            self.at = now
            return int(self.credit)
        return 0

    def spent(self, count: int, *, now: float) -> None:
        del now
        self.out = True
        self.credit -= count

    def next_at(self, *, now: float, held: int) -> float:
        del held
        return self.until if self.state is State.PAUSED else now + (1.0 if self.state is State.RAMPING else 5.0)


@dataclass(frozen=True, slots=True)
class World:
    """What lies between a policy and the provider."""

    reaction: float = 1.0
    """Seconds from an attempt to the sight of its outcome."""
    jitter: float = 0.0
    """The part by which that varies, both ways; outcomes then come in another order than attempts."""
    loss: float = 0.0
    """The part of outcomes that is never seen."""
    told: bool = True
    """The policy is told what was accepted before the first refusal."""
    seed: int = 1


POLICIES: dict[str, Callable[[float, int, float], Policy]] = {
    "ours": lambda now, accepted, during: SubQueue(Pacing(), now=now, accepted=accepted, during=during),
    "stop": lambda now, *_: Stop(now=now),
    "steps": lambda now, *_: Steps(now=now),
}


class Drained(NamedTuple):
    seconds: float
    """Until the backlog has left; infinite where it never did."""
    deferrals: int
    """Without those in flight at the first refusal."""
    first: int
    """In flight at the first refusal."""
    probes: int
    """The most that were out at a time."""
    in_pause: int
    """Messages let out while paused."""
    out_of_order: int
    """Releases of a message while an older one waited."""
    state: State | None
    """Of the sub-queue in the end; None: it never opened."""
    backlog_p95: float
    arrivals_p95: float
    """Seconds of waiting."""


class Drain:
    """One run: a backlog, a limit, a policy."""

    def __init__(
        self,
        limit: Limit,
        policy: str,
        *,
        backlog: int,
        arrivals: float = 0.0,
        world: World = World(),  # frozen
        horizon: float = HORIZON,
    ) -> None:
        self.limit, self.backlog, self.world, self.horizon = limit, backlog, world, horizon
        self.random = random.Random(world.seed)
        self.make = POLICIES[policy]
        self.gap = 1 / arrivals if arrivals else math.inf
        self.next_arrival = self.gap
        self.born = [0.0] * backlog
        self.waiting = list(range(backlog))
        self.flying: list[tuple[float, int, float, int, bool]] = []
        self.done: dict[int, float] = {}
        self.left = backlog
        self.order = 0
        self.free = 0.0
        self.deferrals = self.first = self.probes = self.in_pause = self.out_of_order = 0
        self.probing: set[int] = set()

    def run(self) -> Drained:
        opened, began = self._push()
        if opened == math.inf:
            return self._result(self.backlog / PUSH, None)
        policy = self.make(opened, len(self.done) if self.world.told else 0, opened)
        policy.refused(began=began, now=opened)
        end = self._pace(policy, opened)
        return self._result(end, policy.state)

    def _push(self) -> tuple[float, float]:
        """Push at full speed until the first refusal is seen; tell when that is, and when its attempt began."""
        now, opened, began = 0.0, math.inf, 0.0
        while now < opened and self.waiting:
            seen, accepted = self._offer(heapq.heappop(self.waiting), now)
            if not accepted and opened == math.inf:
                opened, began = seen, now
            now += 1 / PUSH
        while self.flying and self.flying[0][0] <= opened:
            at, _, _, message, accepted = heapq.heappop(self.flying)
            self._land(message, at, accepted=accepted, first=True)
        return opened, began

    def _offer(self, message: int, at: float) -> tuple[float, bool]:
        """Try a message; tell when the outcome is seen, and what it is."""
        accepted = self.limit.offer(at)
        seen = at + self.world.reaction * (1 + self.world.jitter * self.random.uniform(-1, 1))
        self.order += 1
        heapq.heappush(self.flying, (seen, self.order, at, message, accepted))
        return seen, accepted

    def _land(self, message: int, at: float, *, accepted: bool, first: bool) -> None:
        self.probing.discard(message)
        if accepted:
            self.done[message] = at
            self.left -= message < self.backlog
            return
        heapq.heappush(self.waiting, message)
        if first:
            self.first += 1
        else:
            self.deferrals += 1

    def _pace(self, policy: Policy, opened: float) -> float:
        now, asked, self.free = opened, -math.inf, opened
        drained = math.inf
        while self.left or self._arrivals_wait():
            if not self.left:
                drained = min(drained, now)
            ask_at = max(now, asked + 1.0, policy.next_at(now=now, held=len(self.waiting)))
            landing = self.flying[0][0] if self.flying else math.inf
            now = max(now, min(ask_at, landing, self.next_arrival))
            if now > self.horizon:
                return drained
            if landing <= now:
                at, _, began, message, accepted = heapq.heappop(self.flying)
                self._land(message, at, accepted=accepted, first=began < opened)
                if self.random.random() >= self.world.loss:
                    (policy.accepted if accepted else policy.refused)(began=began, now=now)
            elif self.next_arrival <= now:
                self._arrive(policy, now)
            else:
                asked = now
                self._release(policy, now)
        return min(drained, now)

    def _arrivals_wait(self) -> bool:
        """What came while the backlog left is seen out too, until nothing waits: for how long did it wait?"""
        return self.gap < math.inf and bool(self.waiting)

    def _arrive(self, policy: Policy, now: float) -> None:
        self.born.append(self.next_arrival)
        self.next_arrival += self.gap
        if not self.waiting and policy.passes(now=now, held=0):
            policy.spent(1, now=now)
            self._send(len(self.born) - 1, now)
        else:
            heapq.heappush(self.waiting, len(self.born) - 1)

    def _release(self, policy: Policy, now: float) -> None:
        count = min(policy.allowance(now=now, held=len(self.waiting)), len(self.waiting), BATCH)
        if count <= 0:
            return
        state = policy.state
        policy.spent(count, now=now)
        self.in_pause += count * (state is State.PAUSED)
        for _ in range(count):
            message = heapq.heappop(self.waiting)
            self.out_of_order += bool(self.waiting) and self.waiting[0] < message
            if state is State.PROBING:
                self.probing.add(message)
                self.probes = max(self.probes, len(self.probing))
            self._send(message, now)

    def _send(self, message: int, now: float) -> None:
        self.free = max(self.free, now)
        self._offer(message, self.free)
        self.free += 1 / PUSH

    def _result(self, seconds: float, state: State | None) -> Drained:
        waits = [[], []]  # type: list[list[float]]
        for message, at in self.done.items():
            waits[message >= self.backlog].append(at - self.born[message])
        return Drained(
            seconds,
            self.deferrals,
            self.first,
            self.probes,
            self.in_pause,
            self.out_of_order,
            state,
            *(sorted(wait)[int(0.95 * (len(wait) - 1))] if wait else 0.0 for wait in waits),
        )


def row(case: Case, policy: str, backlog: int, *, world: World = World(), arrivals: bool = False) -> dict[str, Any]:
    limit = case.make(backlog)
    rate = case.rate / 2 if arrivals else 0.0
    drained = Drain(limit, policy, backlog=backlog, arrivals=rate, world=world).run()
    known = hasattr(limit, "optimum")
    optimum = limit.optimum(backlog) if known else best_constant(lambda: case.make(backlog), backlog)
    return {
        "limit": case.name,
        "policy": policy,
        "backlog": backlog,
        "optimum_s": optimum,
        "optimum_is": "known" if known else "the best constant pace",
        **drained._asdict(),
        "over_optimum": drained.seconds / optimum,
        "over_base": drained.seconds / (optimum + PAUSE),
        "deferrals_per_1000": 1000 * drained.deferrals / backlog,
        "missed": list(missed(case, drained, optimum, backlog)) if policy == "ours" and not arrivals else [],
    }


def best_constant(make: Callable[[], Limit], backlog: int) -> float:
    """Seconds that a backlog takes at the best constant pace, refused messages tried again: an estimate of the optimum.

    Infinite where no pace from full speed down to a message in ten minutes drains it within the horizon.
    """
    best, pace = math.inf, PUSH
    while pace > 1 / 600 and backlog / pace < min(best, HORIZON):
        best = min(best, constant(make(), backlog, pace))
        pace /= 1.1
    return best


def constant(limit: Limit, backlog: int, pace: float) -> float:
    """Seconds that a backlog takes at a pace; infinite where fewer than one in two hundred is accepted."""
    accepted = 0
    for attempt in range(200 * backlog):
        accepted += limit.offer(attempt / pace)
        if accepted == backlog:
            return (attempt + 1) / pace
    return math.inf


def missed(case: Case, drained: Drained, optimum: float, backlog: int) -> Iterator[str]:
    """Name the bars that a run of ours misses."""
    if case.bar < math.inf:
        moving = case.name.startswith("moving")
        ratio = drained.seconds / optimum if moving and backlog >= 30_000 else drained.seconds / (optimum + PAUSE)
        bar = case.bar if backlog >= 30_000 else 2.0
        if ratio > bar:
            yield f"drain {ratio:.2f} > {bar}"
    allowed = 3.0 if backlog >= 30_000 else 15.0
    if case.limited and 1000 * drained.deferrals / backlog > allowed:
        yield f"deferrals {1000 * drained.deferrals / backlog:.1f} > {allowed:g}"
    if drained.probes > 1:
        yield f"{drained.probes} probes at once"
    if drained.in_pause or drained.out_of_order:
        yield f"{drained.in_pause} in a pause, {drained.out_of_order} out of order"


def named(spec: str) -> Case:
    """Load another model, FILE.py:NAME; without an `optimum` of its own only times and deferrals are reported."""
    path, _, name = spec.rpartition(":")
    module_spec = importlib.util.spec_from_file_location("model", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return Case(name, lambda _: getattr(module, name)(), 1.0, math.inf)


def report(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'limit':20} {'backlog':>7} {'policy':>6} {'drain s':>9} {'/optimum':>8} {'/base':>6} {'defer/1000':>10}  missed"
    )
    for each in rows:
        over = [f"{each[name]:.2f}" for name in ("over_optimum", "over_base")]
        print(
            f"{each['limit']:20} {each['backlog']:7} {each['policy']:>6} {each['seconds']:9.0f} {over[0]:>8} {over[1]:>6} "
            f"{each['deferrals_per_1000']:10.1f}  {'; '.join(each['missed'])}"
        )
        if each["arrivals_p95"]:
            print(f"{'':20} p95 wait: backlog {each['backlog_p95']:.0f} s, arrivals {each['arrivals_p95']:.0f} s")
    if any(each["optimum_is"] != "known" for each in rows):
        print("optimum: the best constant pace, for the model knows none")
    for backlog in sorted({each["backlog"] for each in rows}):
        print(f"geometric mean over base, ours, {backlog}: {mean_over_base(rows, backlog):.3f}")


def mean_over_base(rows: list[dict[str, Any]], backlog: int) -> float:
    ratios = [r["over_base"] for r in rows if r["policy"] == "ours" and r["backlog"] == backlog and r["over_base"]]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def sweep(count: int, backlog: int, world: World) -> dict[str, Any]:
    """Drain against `count` limits drawn at random; tell how the results spread."""
    ratios, deferrals, worst = [], [], []
    for seed in range(count):
        drawn = draw(seed)
        limit = drawn.make()
        base = limit.optimum(backlog) + drawn.first_pauses
        drained = Drain(limit, "ours", backlog=backlog, world=world, horizon=10 * base).run()
        ratio = min(drained.seconds / base, 10.0)
        ratios.append(ratio)
        deferrals.append(1000 * drained.deferrals / backlog)
        worst.append((round(ratio, 2), round(deferrals[-1], 1), drawn.name))
    return {
        "limits": count,
        "backlog": backlog,
        "over_base_geometric_mean": math.exp(sum(map(math.log, ratios)) / count),
        "over_base": {f"p{p}": percentile(ratios, p) for p in (50, 75, 90, 95, 100)},
        "deferrals_per_1000": {f"p{p}": percentile(deferrals, p) for p in (50, 75, 90, 95, 100)},
        "slowest": sorted(worst, reverse=True)[:10],
    }


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, percent * len(values) // 100)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="The ramp against hidden limits.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--backlog", type=int, action="append")
    parser.add_argument("--model", metavar="FILE.py:NAME")
    parser.add_argument("--policy", choices=POLICIES, action="append")
    parser.add_argument("--arrivals", action="store_true", help="mail keeps coming at half of the limit")
    parser.add_argument("--reaction", type=float, default=1.0, help="seconds until an outcome is seen")
    parser.add_argument("--jitter", type=float, default=0.0, help="the part by which that varies")
    parser.add_argument("--loss", type=float, default=0.0, help="the part of outcomes that is never seen")
    parser.add_argument("--untold", action="store_true", help="nothing is told of what was accepted before")
    parser.add_argument("--sweep", type=int, metavar="COUNT", help="so many limits drawn at random, ours alone")
    asked = parser.parse_args(arguments)
    world = World(asked.reaction, asked.jitter, asked.loss, not asked.untold)
    if asked.sweep:
        for backlog in asked.backlog or [3_000]:
            print(json.dumps(sweep(asked.sweep, backlog, world), indent=2))
        return 0
    cases = [named(asked.model)] if asked.model else list(CASES)
    rows = [
        row(case, policy, backlog, world=world, arrivals=asked.arrivals)
        for backlog in asked.backlog or [3_000, 30_000]
        for case in cases
        for policy in asked.policy or list(POLICIES)
    ]
    if asked.json:
        print(json.dumps(rows, allow_nan=True))
    else:
        report(rows)
    return int(any(each["missed"] for each in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

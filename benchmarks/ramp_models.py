"""Hidden limits: what mailbox providers are seen to do to a sender, as small models with one method.
None of them is known to the learner; each knows the shortest time in which a backlog could have left."""

import math
import random
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

PUSH = 60.0
"""Messages a second that the MTA can push."""


class Limit(Protocol):
    def offer(self, now: float) -> bool:
        """One attempt at `now` (seconds, never falling); True when the provider accepts."""
        ...


class Window:
    """`count` accepted in each `per` seconds, counted from zero; the rest is refused until the window ends."""

    def __init__(self, count: int, per: float, *, phase: float = 0.0) -> None:
        self.count, self.per, self.phase = count, per, phase
        self._window, self._used = -1, 0

    def offer(self, now: float) -> bool:
        window = math.floor((now + self.phase) / self.per)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used >= self.count:
            return False
        self._used += 1
        return True

    def optimum(self, backlog: int) -> float:
        windows = (backlog - 1) // self.count
        return max(0.0, windows * self.per - self.phase) + (backlog - windows * self.count) / PUSH


class Sliding:
    """`count` accepted in any `per` seconds. With a small count and the time of a transaction: connections."""

    def __init__(self, count: int, per: float) -> None:
        self.count, self.per = count, per
        self._taken: deque[float] = deque()

    def offer(self, now: float) -> bool:
        while self._taken and self._taken[0] <= now - self.per:
            self._taken.popleft()
        if len(self._taken) >= self.count:
            return False
        self._taken.append(now)
        return True

    def optimum(self, backlog: int) -> float:
        return max(backlog / PUSH, (backlog - 1) // self.count * self.per)


class Bucket:
    """A token bucket: `rate` a second, `burst` at once; a refusal costs nothing more."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._tokens, self._at = burst, 0.0

    def offer(self, now: float) -> bool:
        self._tokens = min(self.burst, self._tokens + self.rate * (now - self._at))
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def optimum(self, backlog: int) -> float:
        return max(backlog / PUSH, (backlog - self.burst) / self.rate)


class Penalty(Bucket):
    """A bucket whose refusal shuts the key out for `seconds`; `extended`: each attempt meanwhile starts them anew."""

    def __init__(self, rate: float, burst: float, seconds: float, *, extended: bool = False) -> None:
        super().__init__(rate, burst)
        self.seconds, self.extended = seconds, extended
        self._until = -math.inf

    def offer(self, now: float) -> bool:
        if now < self._until:
            if self.extended:
                self._until = now + self.seconds
            return False
        accepted = super().offer(now)
        if not accepted:
            self._until = now + self.seconds
        return accepted


class Reputation(Bucket):
    """A bucket whose rate falls by `cut` on each episode of refusals and recovers by `gain` of the full rate for
    each minute without one. Refusals less than a minute apart are one episode."""

    def __init__(
        self, rate: float, burst: float, *, cut: float = 0.3, gain: float = 0.05, compound: bool = False
    ) -> None:
        super().__init__(rate, burst)
        self.full, self.cut, self.gain, self.compound = rate, cut, gain, compound
        self._refused = -math.inf
        self._minute = 0.0

    def offer(self, now: float) -> bool:
        while now >= self._minute + 60:
            self._minute += 60
            if self._minute >= self._refused + 60:
                self.rate = min(self.full, self.rate + self.gain * (self.rate if self.compound else self.full))
        accepted = super().offer(now)
        if not accepted:
            if now >= self._refused + 60:
                self.rate *= 1 - self.cut
            self._refused = now
        return accepted

    def optimum(self, backlog: int) -> float:
        return (backlog - self.burst) / self.full


class Moving(Bucket):
    """A bucket whose rate is another from each of `moves` (seconds, rate) on."""

    def __init__(self, rate: float, burst: float, moves: tuple[tuple[float, float], ...]) -> None:
        super().__init__(rate, burst)
        self.first, self.moves = rate, moves
        self._left = deque(moves)

    def offer(self, now: float) -> bool:
        while self._left and now >= self._left[0][0]:
            at, rate = self._left.popleft()
            if self._at < at:
                self._tokens = min(self.burst, self._tokens + self.rate * (at - self._at))
                self._at = at
            self.rate = rate
        return super().offer(now)

    def optimum(self, backlog: int) -> float:
        left = backlog - self.burst
        for (start, rate), (end, _) in pairwise(((0.0, self.first), *self.moves, (math.inf, 0.0))):
            if left <= rate * (end - start):
                return start + left / rate
            left -= rate * (end - start)
        raise AssertionError("the last rate holds forever")


class Shared(Bucket):
    """A bucket which traffic that is not ours draws on: `other` of its rate on average, swinging from none to twice
    that over `swing` seconds, at random instants."""

    def __init__(self, rate: float, burst: float, *, other: float = 0.3, swing: float = 1800.0, seed: int = 1) -> None:
        super().__init__(rate, burst)
        self.other, self.swing = other, swing
        self._random = random.Random(seed)
        self._next = 0.0

    def offer(self, now: float) -> bool:
        while self._next <= now:
            super().offer(self._next)
            self._next += self._random.expovariate(self._share(self._next) + 0.01 * self.rate)
        return super().offer(now)

    def _share(self, now: float) -> float:
        return self.rate * self.other * (1 - math.cos(2 * math.pi * now / self.swing))

    def optimum(self, backlog: int) -> float:
        left, now = backlog - self.burst, 0.0
        while left > 0:
            now += 1
            left -= self.rate * 0.99 - self._share(now)
        return now


class Recipients(Bucket):
    """A bucket that counts recipients: a message has one to `most` of them, evenly spread."""

    def __init__(self, rate: float, burst: float, most: int, *, seed: int = 1) -> None:
        super().__init__(rate, burst)
        self.most = most
        self._random = random.Random(seed)
        self._wanted = self._random.randint(1, most)

    def offer(self, now: float) -> bool:
        self._tokens = min(self.burst, self._tokens + self.rate * (now - self._at))
        self._at = now
        if self._tokens < self._wanted:
            return False
        self._tokens -= self._wanted
        self._wanted = self._random.randint(1, self.most)
        return True

    def optimum(self, backlog: int) -> float:
        return (backlog * (1 + self.most) / 2 - self.burst) / self.rate


class Chance:
    """Refuses `ratio` of everything at random; no limit at all."""

    def __init__(self, ratio: float, *, seed: int = 1) -> None:
        self.ratio = ratio
        self._random = random.Random(seed)

    def offer(self, now: float) -> bool:  # noqa: ARG002  # the time of day is no matter to it
        return self._random.random() >= self.ratio

    def optimum(self, backlog: int) -> float:
        return backlog / PUSH / (1 - self.ratio)


class Known(Protocol):
    """A limit that also knows the shortest time (seconds) in which a backlog could have left."""

    def offer(self, now: float) -> bool: ...
    def optimum(self, backlog: int) -> float: ...


class Case(NamedTuple):
    name: str
    make: Callable[[int], Known]
    """A fresh limit for a backlog of so many messages; the limits that move do it during the drain."""
    rate: float
    """Messages a second that it lets through in the long run; arrivals come at half of that."""
    bar: float
    """Drain over base allowed with 30,000 messages; moving limits: over the optimum."""
    limited: bool = True
    """False: there is no limit, deferrals are not ours to avoid."""


CASES = (
    Case("window 100/60 s", lambda _: Window(100, 60), 100 / 60, 1.1),
    Case("window 1000/3600 s", lambda _: Window(1000, 3600), 1000 / 3600, 1.35),
    Case("bucket 1.67/s", lambda _: Bucket(1.67, 100), 1.67, 1.1),
    Case("bucket 10/s", lambda _: Bucket(10, 50), 10, 1.1),
    Case("penalty 300 s", lambda _: Penalty(1.67, 100, 300), 1.67, 1.35),
    Case("penalty, extended", lambda _: Penalty(1.67, 100, 300, extended=True), 1.67, 1.35),
    Case("reputation 3/s", lambda _: Reputation(3, 100), 3, 1.8),
    Case("connections 10", lambda _: Sliding(10, 3), 10 / 3, 1.35),
    Case("moving up", lambda n: Moving(1.67, 100, ((0.3 * n / 1.67, 5.0),)), 1.67, 1.5),
    Case("moving down", lambda n: Moving(5, 100, ((0.5 * n / 5, 1.67),)), 1.67, 1.5),
    Case("shared", lambda _: Shared(3, 100), 1.5, 1.5),
    Case("recipients", lambda _: Recipients(5, 100, 5), 5 / 3, 1.35),
    Case("by day", lambda n: Window(n // 3, 86400), 1000 / 86400, 1.5),
    Case("random 10 %", lambda _: Chance(0.1), 50.0, 1.35, limited=False),
)


class Drawn(NamedTuple):
    """A limit drawn at random."""

    name: str
    make: Callable[[], Known]
    first_pauses: float
    """Seconds that the prescribed pauses take (300, doubling with each failed probe) before a shut-out can end."""


def draw(seed: int) -> Drawn:
    """Draw a kind of limit and its parameters: 0.05 to 40 messages/s, windows of seconds to days, bursts of 1 to 1000.

    A burst is worth two seconds of the rate at least: releases go once a second, so none smaller can be used up.
    """
    chosen = random.Random(seed)

    def between(low: float, high: float) -> float:
        return math.exp(chosen.uniform(math.log(low), math.log(high)))

    rate = between(0.05, 40)
    burst = max(between(1, 1000), 2 * rate)
    count = round(between(20, 1500))
    kinds: dict[str, Callable[[], Drawn]] = {
        "window": lambda: _drawn(Window, count, count / rate),
        "sliding": lambda: _drawn(Sliding, count, count / rate),
        "bucket": lambda: _drawn(Bucket, rate, burst),
        "penalty": lambda: _drawn(Penalty, rate, burst, between(60, 3600)),
        "extended": lambda: _drawn(Penalty, rate, burst, between(60, 3600), extended=True),
        "reputation": lambda: _drawn(Reputation, rate, burst, cut=chosen.uniform(0.15, 0.5), gain=between(0.01, 0.2)),
        "moving": lambda: _drawn(
            Moving, rate, burst, ((chosen.uniform(0.2, 0.7) * 3000 / rate, rate * between(1 / 5, 5)),)
        ),
        "shared": lambda: _drawn(Shared, rate, burst, other=chosen.uniform(0.1, 0.4), swing=between(60, 7200)),
        "recipients": lambda: _drawn(Recipients, rate * 3, max(burst, 5), 5),
    }
    return kinds[chosen.choice(sorted(kinds))]()


def _drawn(kind: Callable[..., Known], *arguments: Any, **named: Any) -> Drawn:
    limit = kind(*arguments, **named)
    told = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in arguments]
    told += [f"{name}={value:.3g}" for name, value in named.items()]
    pauses = _first_pauses(limit.seconds, extended=limit.extended) if isinstance(limit, Penalty) else 300.0
    return Drawn(f"{type(limit).__name__}({', '.join(told)})", lambda: kind(*arguments, **named), pauses)


def _first_pauses(seconds: float, *, extended: bool) -> float:
    total = pause = 300.0
    while (pause if extended else total) < seconds:
        pause = min(3600.0, 2 * pause)
        total += pause
    return total

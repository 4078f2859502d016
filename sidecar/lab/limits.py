"""Hidden limits of simulated providers: what each kind accepts, and when it would accept next.

Time is an argument (seconds of any steady clock), so that the optimum of a drain can be worked out without waiting.
"""

from collections.abc import Callable
from random import Random
from typing import Protocol

from sidecar.lab.scenario import Kind, Limit


class Model(Protocol):
    """One identity's account under one limit."""

    def offer(self, now: float) -> bool:
        """True: accepted, and counted. False: refused."""

    def opens_at(self, now: float) -> float:
        """Earliest time at which an offer will be accepted, if none is made before."""


class Window:
    """n accepted in each `per` seconds; windows follow each other from the first offer on."""

    def __init__(self, n: int, per: float) -> None:
        self.n, self.per = n, per
        self.start = float("-inf")
        self.used = 0

    def offer(self, now: float) -> bool:
        self._turn(now)
        if self.used >= self.n:
            return False
        self.used += 1
        return True

    def opens_at(self, now: float) -> float:
        self._turn(now)
        return now if self.used < self.n else self.start + self.per

    def _turn(self, now: float) -> None:
        if self.start == float("-inf"):
            self.start = now
        elif now >= self.start + self.per:
            self.start += (now - self.start) // self.per * self.per
            self.used = 0


class Bucket:
    """rate a second on average, `burst` at once; a refusal costs nothing more."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.tokens = float(burst)
        self.seen: float | None = None

    def offer(self, now: float) -> bool:
        self._fill(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def opens_at(self, now: float) -> float:
        self._fill(now)
        return now if self.tokens >= 1 else now + (1 - self.tokens) / self.rate + 1e-6

    def _fill(self, now: float) -> None:
        if self.seen is not None:
            self.tokens = min(self.burst, self.tokens + (now - self.seen) * self.rate)
        self.seen = now


class Penalty:
    """A bucket whose first refusal shuts the identity out for `penalty` seconds.

    With `extended`, each attempt meanwhile starts the seconds anew.
    """

    def __init__(self, bucket: Bucket, penalty: float, *, extended: bool) -> None:
        self.bucket, self.penalty, self.extended = bucket, penalty, extended
        self.shut_until = float("-inf")

    def offer(self, now: float) -> bool:
        shut = now < self.shut_until
        if not shut and self.bucket.offer(now):
            return True
        if not shut or self.extended:
            self.shut_until = now + self.penalty
        return False

    def opens_at(self, now: float) -> float:
        return self.bucket.opens_at(max(now, self.shut_until))


class Reputation:
    """A bucket whose rate falls by 30 % on each episode of refusals and recovers by 5 % a minute.

    An episode is over after `quiet` seconds without a refusal; `minute` is the minute of the recovery.
    """

    def __init__(self, rate: float, burst: int, *, quiet: float, minute: float) -> None:
        self.full, self.quiet, self.minute = rate, quiet, minute
        self.bucket = Bucket(rate, burst)
        self.refused_at = float("-inf")
        self.grown_at: float | None = None

    def offer(self, now: float) -> bool:
        self._recover(now)
        if self.bucket.offer(now):
            return True
        if now - self.refused_at > self.quiet:
            self.bucket.rate *= 0.7
        self.refused_at = now
        return False

    def opens_at(self, now: float) -> float:
        return self.bucket.opens_at(now)

    def _recover(self, now: float) -> None:
        if self.grown_at is not None:
            self.bucket.rate = min(self.full, self.bucket.rate * 1.05 ** ((now - self.grown_at) / self.minute))
        self.grown_at = now


class Changing:
    """A bucket whose rate takes the next of `factors` each `per` seconds, in a circle."""

    def __init__(self, rate: float, burst: int, per: float, factors: tuple[float, ...]) -> None:
        self.full, self.per, self.factors = rate, per, factors
        self.bucket = Bucket(rate, burst)
        self.start: float | None = None

    def offer(self, now: float) -> bool:
        self._turn(now)
        return self.bucket.offer(now)

    def opens_at(self, now: float) -> float:
        self._turn(now)
        return self.bucket.opens_at(now)

    def _turn(self, now: float) -> None:
        if self.start is None:
            self.start = now
        self.bucket.rate = self.full * self.factors[int((now - self.start) // self.per) % len(self.factors)]


class Chance:
    """A part refused at random: the receiver's load, no limit at all."""

    def __init__(self, share: float, random: Random) -> None:
        self.share, self.random = share, random

    def offer(self, now: float) -> bool:
        del now
        return self.random.random() >= self.share

    def opens_at(self, now: float) -> float:
        return now


class Connections:
    """n at the same time: connections, or at a later stage transactions. `done` gives one back."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.open = 0

    def offer(self, now: float) -> bool:
        del now
        if self.open >= self.n:
            return False
        self.open += 1
        return True

    def opens_at(self, now: float) -> float:
        return now

    def done(self) -> None:
        self.open -= 1


def model(limit: Limit, scale: float, random: Random) -> Model:
    """A fresh account under `limit`, times divided by `scale`."""
    return _KINDS[limit.kind](limit, scale, random)


_KINDS: dict[Kind, Callable[[Limit, float, Random], Model]] = {
    Kind.WINDOW: lambda it, scale, _: Window(it.n, it.per / scale),
    Kind.BUCKET: lambda it, _, __: Bucket(it.rate, it.burst),
    Kind.PENALTY: lambda it, scale, _: Penalty(Bucket(it.rate, it.burst), it.penalty / scale, extended=False),
    Kind.PENALTY_EXTENDED: lambda it, scale, _: Penalty(Bucket(it.rate, it.burst), it.penalty / scale, extended=True),
    Kind.REPUTATION: lambda it, scale, _: Reputation(it.rate, it.burst, quiet=30 / scale, minute=60 / scale),
    Kind.CONNECTIONS: lambda it, _, __: Connections(it.n),
    Kind.MOVING: lambda it, scale, _: Changing(it.rate, it.burst, it.per / scale, (1.0, 1 / it.factor, 1.0, it.factor)),
    Kind.RANDOM: lambda it, _, random: Chance(it.share, random),
    Kind.SHARED: lambda it, scale, _: Changing(it.rate, it.burst, it.per / scale, (1.0, max(0.05, 1 - 2 * it.share))),
}


def optimum(account: Model, messages: int, capacity: float) -> float:
    """Seconds that a sender needs who knows the hidden limit, never refused and never idle.

    `capacity` is what the sending side manages a second without any limit.
    """
    now = 0.0
    for _ in range(messages):
        now = max(now + 1 / capacity, account.opens_at(now))
        account.offer(now)
        if isinstance(account, Connections):
            account.done()
    return now

"""One bucket of a quota, those that are looked up together, and what a message under way has taken of them.

Knows how a bucket drains and which of many has not been in use; whose it is and when it is charged is said in `buckets`.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from parsers.policy_protocol import PolicyRequest
from policies.quota import Limited, Quota, warning

_LOOKED_AT: Final = 100
"""Buckets that get another chance before one is dropped that has been in use since."""


class Bucket:
    """What one key has taken of a quota and what has not come back yet."""

    __slots__ = ("at", "beyond", "easy", "gone", "key", "placed", "quota", "rate", "stage", "taken", "unsettled")

    def __init__(self, quota: Quota, key: str, *, now: float, taken: float = 0.0) -> None:
        self.quota = quota
        self.key = key
        self.rate = quota.rate
        self.taken = taken
        self.at = now
        """When `taken` was true."""
        self.unsettled = 0
        """Of that, by messages that have not ended."""
        self.easy = quota.easy
        """With more in use somebody has to look closer."""
        self.beyond = 0
        """Recipients that it had no room for, since the start or a reset."""
        self.stage = _BELOW
        self.placed = now
        """`at`, when it was last looked at for being dropped."""
        self.gone = False
        """Another one is in its place, or none; messages under way still count on it."""

    def level_at(self, now: float) -> float:
        """What is in use; a clock set back takes nothing away and gives nothing."""
        return max(0.0, self.taken - (now - self.at) * self.rate) if now > self.at else self.taken

    def drain(self, now: float) -> None:
        """Let come back what has."""
        self.taken = self.level_at(now)
        self.at = now

    def give_back(self, count: int, *, since: float, now: float) -> None:
        """Give back what a message took at `since` and later, less what would have come back by itself until now.

        Without that share two messages could use the same room: one that is given up after an hour gives back an hour
        less. So never more is let in than the limit says, and sometimes a little less.
        """
        self.drain(now)
        back = count - max(0.0, now - since) * self.rate
        self.taken = max(0.0, self.taken - max(0.0, back))

    def resize(self, quota: Quota, *, now: float) -> None:
        """Go by another part of the same quota from now on; what is in use stays."""
        self.drain(now)
        self.quota = quota
        self.rate = quota.rate
        self.easy = -1.0 if self.stage else quota.easy

    def wait(self, level: float) -> float:
        """Seconds until there is room for one more."""
        return max(0.0, (level + 1.0 - self.quota.capacity) / self.rate)

    def charge(self) -> Limited | None:
        """Take one for a message that has not ended, after `drain`; gives what is to be said of it."""
        self.taken += 1.0
        self.unsettled += 1
        if self.taken >= self.quota.warn_at:
            return self._say_once(_WARNED)
        if self.stage and self.taken < self.quota.capacity * (self.quota.warn or 1.0) / 2:
            self._at_stage(_BELOW)
        return None

    def say_beyond(self) -> Limited | None:
        """One more is let in without room; gives what is to be said of it."""
        return self._say_once(_OVER)

    def _say_once(self, stage: int) -> Limited | None:
        """Once; again when it was half as full in between."""
        if stage <= self.stage:
            return None
        self._at_stage(stage)
        return warning(self.quota, self.key, self.taken)

    def _at_stage(self, stage: int) -> None:
        self.stage = stage
        self.easy = -1.0 if stage else self.quota.easy


_BELOW, _WARNED, _OVER = range(3)
"""What was said of a bucket; of one of which something was, each recipient is looked at closer."""


class Taken(NamedTuple):
    """A bucket as the store keeps it: only what messages took that have ended."""

    quota: str
    key: str
    taken: float
    at: float
    """0 where the bucket is gone, and nothing taken."""


Buckets: TypeAlias = tuple[Bucket, ...]


class Group:
    """Quotas that have the same keys, and so are looked up together."""

    __slots__ = ("buckets", "key_of", "keys", "quotas", "where")

    def __init__(self, quotas: tuple[Quota, ...], key_of: Callable[[PolicyRequest], str]) -> None:
        self.quotas = quotas
        self.key_of = key_of
        """Whose buckets a question concerns; "" is nobody's: mail without a login has no tenant, a bounce no sender."""
        self.where = quotas[0].where
        """Only what this holds for is counted; such a quota is a group by itself."""
        self.keys = quotas[0].keys
        self.buckets = OrderedDict[str, Buckets]()
        """One of each quota."""

    def unused(self) -> str:
        """Find a key that was not in use for long: the first that was not since it was looked at the last time.

        So being used costs nothing, where the order of last uses would cost each recipient something.
        """
        for _ in range(_LOOKED_AT):
            key, buckets = next(iter(self.buckets.items()))
            used = buckets[0].at  # of the others, too: they are charged together
            if used <= buckets[0].placed and not buckets[0].unsettled:
                return key
            buckets[0].placed = used
            self.buckets.move_to_end(key)
        return next(iter(self.buckets))


class Open:
    """What one SMTP transaction has taken, where that is more than one recipient of each bucket."""

    __slots__ = ("asked", "begun", "first", "further", "more", "others", "since", "whole")

    def __init__(self, since: float, first: Buckets, *, recipients: int = 0) -> None:
        """`recipients`: 1 where the first was charged to each of these buckets."""
        self.since = since
        self.first = first
        """What the first recipient is charged to."""
        self.further = tuple(bucket for bucket in first if not bucket.quota.by_message)
        """And each one after it."""
        self.asked = recipients
        """Recipients that we let through, charged or not."""
        self.begun = bool(recipients)
        """One was let through: what counts messages is charged, or has said that it is beyond."""
        self.whole = bool(recipients)
        """The first was charged to each of `first`."""
        self.more = 0
        """Recipients that were charged to each of `further`."""
        self.others = Counter[Bucket]()
        """What was charged apart from that."""

    def charged(self) -> dict[Bucket, int]:
        """Recipients by bucket; 1 where messages are counted."""
        charged = dict(self.others)
        for bucket in self.first if self.whole else ():
            charged[bucket] = charged.get(bucket, 0) + 1
        for bucket in self.further if self.more else ():
            charged[bucket] = charged.get(bucket, 0) + self.more
        return charged


One: TypeAlias = tuple[float, Buckets]
"""A message of which one recipient is charged to each of these buckets, and when that was: nearly all mail."""

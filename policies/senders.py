"""What mail of an envelope domain signs as, learned from the log.

A policy request carries the envelope sender alone; the DKIM domain and the header From come in log
lines, mostly later. Most envelope domains sign alike every time: for those the habit stands in for
the line that has not come yet. Where signatures differ from message to message (a shared bounce
domain), only a message's own lines count.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

_TELLING = 0.95
"""Share of an envelope domain's messages that must carry a domain before it is called its habit."""
_FORGET = 10_000
"""Counts are halved beyond this, so that a change of habit shows within days, not years."""

_MOST = 200_000
"""Envelope domains remembered; beyond that the one learned first is forgotten."""

MOST_NEWS: Final = 10_000
MOST_HEARD_OF_ONE: Final = 20
"""Domains that others may say one envelope domain signs as."""
_AGAIN = 600.0
"""Seconds after which a key that still signs is told to the store again: by its last time one sees which are in use."""


class Habit(NamedTuple):
    """One (envelope domain, domain) pair, as the store keeps it; of "dkim-selector" (signing domain, selector)."""

    kind: str
    envelope_domain: str
    domain: str


class _Counts:
    __slots__ = ("habits", "heard", "of", "total")

    def __init__(self) -> None:
        self.total = 0
        self.of: dict[str, int] = {}
        self.heard = False
        """All of it is what other hosts of the fleet told."""
        self.habits: tuple[str, ...] = ()
        """What (nearly) all carry: asked for with each arriving message, and changed seldom."""

    def changed(self) -> None:
        self.habits = tuple(domain for domain, count in self.of.items() if count >= _TELLING * self.total)


class SenderHabits:
    """By kind of identity ("dkim-domain", "from-domain") and envelope domain."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], _Counts] = {}
        self.learned: list[Habit] = []
        """New pairs since the last look, for the store."""
        self.news: list[Habit] | None = None
        """Pairs for the other hosts of the fleet; None: there are none. One longer than MOST_NEWS has lost some."""
        self._signed: dict[tuple[str, str], float] = {}
        """(signing domain, selector) -> when the store was last told."""

    def saw(self, kind: str, envelope_domain: str, domains: tuple[str, ...]) -> None:
        """One message of this envelope domain carried exactly these domains."""
        counts = self._of(kind, envelope_domain)
        told = self._seen_here(counts)
        counts.total += 1
        for domain in domains:
            if domain not in counts.of:
                self._learn(Habit(kind, envelope_domain, domain), told)
            counts.of[domain] = counts.of.get(domain, 0) + 1
        if counts.total > _FORGET:
            counts.total //= 2
            counts.of = {domain: count // 2 for domain, count in counts.of.items() if count > 1}
        counts.changed()

    def signed(self, domain: str, selector: str, *, now: float) -> None:
        """Our own signer used this key; what a header claims is not heard, for anybody can write it."""
        key = (domain, selector)
        if not selector or now - self._signed.get(key, -_AGAIN) < _AGAIN:
            return
        if len(self._signed) >= _MOST and key not in self._signed:
            del self._signed[next(iter(self._signed))]
        self._signed[key] = now
        self.learned.append(Habit("dkim-selector", domain, selector))

    def named(self, kind: str, envelope_domain: str, domain: str) -> None:
        """A reply to mail of this envelope domain named `domain`: it was one of the message's, if not all."""
        counts = self._of(kind, envelope_domain)
        if domain in counts.of:
            return
        self._learn(Habit(kind, envelope_domain, domain), self._seen_here(counts))
        if not counts.total:
            counts.total = 1
            counts.of[domain] = 1
            counts.changed()

    def habits(self, kind: str, envelope_domain: str) -> tuple[str, ...]:
        """List the domains that (nearly) all mail of this envelope domain carries."""
        counts = self._counts.get((kind, envelope_domain))
        return counts.habits if counts is not None else ()

    def envelope_domains(self, kind: str, domain: str) -> list[str]:
        """List the envelope domains some of whose mail carries `domain`."""
        return [envelope for (known, envelope), counts in self._counts.items() if known == kind and domain in counts.of]

    def restore(self, habit: Habit) -> None:
        """Take back what the store kept: one stored domain is a habit again, several must prove themselves anew."""
        counts = self._of(habit.kind, habit.envelope_domain)
        counts.total += 1
        counts.of[habit.domain] = 1
        counts.changed()

    # A fleet's.

    def hear(self, habit: Habit) -> bool:
        """Another host saw it. Whether it counts here: only as long as nobody here has seen such mail.

        As with what the store kept: one is a habit, several must prove themselves.
        """
        counts = self._counts.get((habit.kind, habit.envelope_domain))
        if counts is None:
            if len(self._counts) >= _MOST:
                return False
            counts = self._of(habit.kind, habit.envelope_domain)
            counts.heard = True
        if counts.heard and habit.domain not in counts.of and len(counts.of) < MOST_HEARD_OF_ONE:
            counts.total += 1
            counts.of[habit.domain] = 1
            counts.changed()
        return habit.domain in counts.of

    def seen(self, limit: int) -> list[Habit]:
        """Give what was seen here, the latest `limit` of it."""
        found = [
            Habit(kind, envelope, domain)
            for (kind, envelope), counts in self._counts.items()
            if not counts.heard
            for domain in counts.of
        ]
        return found[-limit:]

    def here(self, kind: str, envelope_domain: str) -> tuple[tuple[str, ...], bool]:
        """Tell what counts as its habit here, and whether such mail was seen here."""
        counts = self._counts.get((kind, envelope_domain))
        return (counts.habits, not counts.heard) if counts is not None else ((), False)

    def _seen_here(self, counts: _Counts) -> Collection[str]:
        """Forget what others told of mail that is seen here now; give that."""
        if not counts.heard:
            return ()
        told, counts.of, counts.total, counts.heard = counts.of, {}, 0, False
        return told

    def _learn(self, habit: Habit, told: Collection[str]) -> None:
        """`told`: what other hosts know."""
        self.learned.append(habit)
        if self.news is not None and habit.domain not in told and len(self.news) <= MOST_NEWS:
            self.news.append(habit)

    def _of(self, kind: str, envelope_domain: str) -> _Counts:
        counts = self._counts.get((kind, envelope_domain))
        if counts is None:
            if len(self._counts) >= _MOST:
                del self._counts[next(iter(self._counts))]
            counts = self._counts[kind, envelope_domain] = _Counts()
        return counts

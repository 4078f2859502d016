"""What one host has in hand of what the fleet shares, by its own clock: may it probe, and how fast may mail leave?

Leases run from when they were asked for, pauses from when they were heard of: whatever was delayed, the host errs to
the careful side. `now` is the host's steady clock, `at` the store's.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from policies.fleet.book import Book, Wish, Word
from policies.fleet.roll import Asking, Roll, Standing, offered
from policies.fleet.row import Row
from policies.fleet.terms import ALONE_AFTER, FRESH, LEASE, NEVER
from policies.subqueue import State

_UNHEARD = Standing(quorate=False, reserved=1.0)


@dataclass(slots=True)
class Contact:
    """How a host stands with the fleet."""

    host: str
    roll: Roll | None = None
    """As it was read or written last; who is of it and their parts are as they are now, when they were met is not."""
    roll_at: float = NEVER
    server: str = ""
    met: float = NEVER
    agreed: float = NEVER
    """Store's times, as in `Member`."""
    alone: float = 0.0
    """The part of a budget that is ours when we are alone."""
    alone_before: float = 0.0
    """As `alone`, when the program that ran here before heard last; 0: never. Nothing is claimed by it."""
    alone_at: float = math.inf
    """From then on we are, by our clock; infinite: we never met the fleet's store."""
    standing: Standing = _UNHEARD
    standing_at: float = -math.inf

    def asking(self) -> Asking:
        members = self.roll.members if self.roll is not None else {}
        return Asking(self.host, self.server, self.met, self.agreed, self.alone, members)

    def answered(self, roll: Roll, *, at: float, sent: float, now: float) -> None:
        """The roll was written by our question, which we sent at `sent`."""
        self.read(roll, at=at)
        self.renewed(roll.standing(at=at), at=at, sent=sent, now=now)

    def read(self, roll: Roll, *, at: float) -> None:
        """The roll stood so at `at`, and who is of it and their parts do since our question wrote our entry."""
        if roll.server != self.server:
            self.agreed = NEVER
        self.roll, self.roll_at, self.server = roll, at, roll.server
        self.alone = offered(roll, self.host)

    def renewed(self, standing: Standing, *, at: float, sent: float, now: float) -> None:
        """Our entry was written, and nothing else of the roll than the times of entries has changed."""
        self.met = at
        self.standing, self.standing_at = standing, sent
        if standing.quorate:
            self.agreed = at
        if standing.quorate or self.alone_at == math.inf:
            self.alone_at = now + ALONE_AFTER

    def saw(self, server: str, standing: Standing, *, sent: float) -> None:
        """How the roll stands was asked at `sent`: what books are written by, and nothing about us."""
        if server == self.server:
            self.standing, self.standing_at = standing, sent

    def is_fresh(self, *, now: float) -> bool:
        """Whether a book may be written by the roll as we have it."""
        return now - self.standing_at <= FRESH

    def is_alone(self, *, now: float) -> bool:
        return now >= self.alone_at

    def apart(self, *, now: float) -> float:
        """Tell for how many seconds we have heard of no majority; below 0: we never met the fleet's store."""
        return now - self.alone_at + ALONE_AFTER


class _Lease(NamedTuple):
    value: float
    """A token, or messages/s."""
    ceiling: float
    ends: float


_NONE = _Lease(0.0, 1.0, -math.inf)


@dataclass(slots=True)
class Replica:
    """One key, as one host sees it."""

    row: Row
    pause_ends: float
    """By our clock."""
    _lead: _Lease = _NONE
    _share: _Lease = _NONE
    _refused_in: int | None = None
    _pause: float = 0.0
    _short: float = 0.0
    _why: tuple[str, str] = field(default=("", ""))
    _by_itself: bool = False
    """Whether a probe of ours, sent alone, went well in this era."""

    # What becomes known.

    def refused(self, era: int, pause: float, *, short: float = 0.0, rule: str, line: str, now: float) -> None:
        """An attempt of ours, begun in `era`, was refused: nothing leaves here from now on, whatever others know.

        For `pause` seconds, or `short` ones, as in `Row`.
        """
        said = self.row.state is State.PAUSED and not self._by_itself
        if era != self.row.era or self._refused_in == era or said:
            return
        self._refused_in, self._pause, self._short, self._why = era, pause, short, (rule, line)
        self._by_itself = False
        self.pause_ends = max(self.pause_ends, now + pause)

    def stands(self, state: State, ceiling: float) -> None:
        """Where the key stands while it is ours alone; a refusal before that need not be told any more."""
        self.row = self.row._replace(state=state, ceiling=ceiling)
        self._refused_in = None

    def heard(self, row: Row, *, at: float, now: float) -> bool:
        """Take a row that was sent at `at`; whether it is news."""
        if row == self.row or not row.supersedes(self.row):
            return False
        if row.era != self.row.era:
            self._refused_in, self._by_itself = None, False
        if row.state is State.PAUSED:
            self.pause_ends = now + row.left(at=at)
            self._lead = self._share = _NONE
        self.row = row
        return True

    def came_from(self, book: Book, host: str, *, at: float, sent: float, now: float) -> bool:
        """Take what the book, read at `at` for a question of `sent`, has for us; whether its row is news."""
        news = self.heard(book.row, at=at, now=now)
        lead, share = book.lead, book.lent().get(host)
        ours = lead is not None and lead.host == host and lead.expires > at
        self._lead = (
            _Lease(lead.token, 1.0, sent + min(LEASE, lead.expires - at)) if ours and lead is not None else _NONE
        )
        self._share = _NONE
        if share is not None:
            self._share = _Lease(share.rate, book.row.ceiling, sent + min(LEASE, share.expires - at))
        return news

    # What we want of the book.

    def wish(self, host: str, *, need: int, word: Word | None = None) -> Wish:
        return Wish(host, self.row, need, self._refused_in, self._pause, self._short, word, *self._why)

    @property
    def is_shared(self) -> bool:
        """Whether a store ever had this key: until then it is ours alone."""
        return self.row.serial > 0

    @property
    def has_news(self) -> bool:
        """Whether there is a refusal that the fleet has not heard of."""
        return self._refused_in is not None

    @property
    def has_share(self) -> bool:
        return self._share.value > 0

    # What may be done.

    def token(self, *, now: float) -> int | None:
        """Give our fencing token while we lead."""
        return int(self._lead.value) if now < self._lead.ends else None

    def may_probe(self, contact: Contact, *, now: float) -> bool:
        """Whether the probe is ours to send: we lead, or are alone and the pause is over, as far as we know."""
        if self.row.state is State.CLOSED or (self._refused_in is not None and now < self.pause_ends):
            return False
        if self.token(now=now) is not None:
            return self.row.state is State.PROBING
        return contact.is_alone(now=now) and now >= self.pause_ends and not self._ramps_alone

    def probed_alone(self) -> None:
        """The probe that we sent alone went well."""
        self._by_itself = True
        self._refused_in = None  # nothing to tell: what it paused for is over

    def rate(self, contact: Contact, *, now: float) -> float:
        """Messages/s that may leave from here; infinite where the fleet knows no limit."""
        if self._refused_in is not None:
            return 0.0
        if self.row.state is State.CLOSED:
            return math.inf
        if now < self._share.ends and self.row.state is State.RAMPING:
            return self._share.value * min(1.0, self.row.ceiling / self._share.ceiling)
        if contact.is_alone(now=now) and self._ramps_alone:
            return contact.alone * self.row.ceiling
        return 0.0

    @property
    def _ramps_alone(self) -> bool:
        return self.row.state is State.RAMPING or self._by_itself

"""One host of a fleet: which books it asks for and when, what it brings to them, and what it makes of the answers.

It stands between the engine, whose sub-queues move by themselves, and the rows that all hosts share.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from policies.engine import Engine
from policies.fleet.book import Book, Glance, Had, Wish, Word, sorted_json
from policies.fleet.replica import Contact, Replica
from policies.fleet.row import Row
from policies.fleet.terms import DUE_AFTER, NEVER, SILENT_AFTER
from policies.key import Key
from policies.limit import Aftermath
from policies.parked import OpenSubQueue
from policies.subqueue import State, SubQueue
from policies.subqueues import DOMAIN_TYPES

RECONCILED = 30.0
"""Seconds after which a book is looked at in which nothing is wanted: what was pushed may have been lost."""
CROWD = 20
"""Hosts; where there are more, they are in each other's way in what all of them do at once."""
ENGINE = "engine"
_ALMOST = 0.5
"""Seconds by which a pause here and the fleet's may end apart."""
_LEAST = 1.0
"""Messages/s that a fleet begins with where no pace is known."""
_NONE = Aftermath()
_MOST_AT_ONCE = 10_000
"""Messages that a host may have had accepted between two looks; more is a count that began anew."""


class Part:
    """This host's part in one key: what it asks the fleet for, and what it is let do (`policies.subqueue.Fleet`)."""

    __slots__ = (
        "_host",
        "_others",
        "_written",
        "accepted",
        "asked",
        "before",
        "had",
        "had_told",
        "heard",
        "need",
        "order",
        "pause",
        "paused_in",
        "replica",
        "seen",
        "word",
    )

    def __init__(self, host: "Host", replica: Replica) -> None:
        self._host = host
        self.replica = replica
        self.need = 0
        self.accepted = 0
        self.before = (0, 0.0)
        """Messages that the provider took from us before the first refusal, and in how many seconds."""
        self.had: Had | None = None
        """What became of what we had under way at the first refusal of this era."""
        self.had_told: Had | None = None
        """The same, as the book has it."""
        self.word: Word | None = None
        self.order: State | None = None
        self.pause = 0.0
        """Of the order."""
        self.asked = -math.inf
        """When its book was asked for last."""
        self.seen: tuple[State, float] | None = None
        """Where the sub-queue was when we looked last: state, and since when."""
        self.paused_in = -1
        """The era of the fleet's pause that the sub-queue was in last."""
        self._others = 0
        self.heard: dict[str, int] = {}
        """What other hosts have had accepted, as we heard last."""
        self._written: tuple[Row | None, str] = (None, "")
        """A row, and how it is written: hundreds of books are looked at again and again whose rows have not changed."""

    @property
    def shared(self) -> bool:
        """Whether the fleet decides: it knows the key, and we do as we say."""
        return self.replica.is_shared and self._host.takes_part

    def may_probe(self) -> bool:
        return not self.shared or self.replica.may_probe(self._host.contact, now=self._host.steady())

    def leads(self) -> bool:
        return not self.shared or self.replica.token(now=self._host.steady()) is not None

    def rate(self, own: float) -> float:
        return self.replica.rate(self._host.contact, now=self._host.steady()) if self.shared else own

    def elsewhere(self) -> int:
        return self._others if self.shared else 0

    def wish(self, name: str) -> Wish:
        before, during = self.before
        wish = self.replica.wish(name, need=self.need, word=self.word)
        wish = wish._replace(accepted=self.accepted, before=before, during=during, had=self.had)
        if self.order is None:
            return wish
        return wish._replace(order=self.order, pause=self.pause)

    def written(self) -> str:
        """Give the row that we know as its book has it."""
        row, text = self._written
        if row is not self.replica.row:
            row = self.replica.row
            self._written = row, (text := sorted_json(row.values()))
        return text

    def is_settled(self) -> bool:
        """Whether there is nothing that the fleet still has to hear from us."""
        return not self.replica.has_news and self.word is None and self.order is None

    def ask_again(self, *, now: float) -> float:
        """Give the time at which to look at the book again, by our steady clock."""
        if not self.is_settled():  # we said so, and do not know whether it was heard
            return self.asked + DUE_AFTER
        if not self.wants_some(now=now):
            return self.asked + RECONCILED
        row = self.replica.row
        waits = row.state is State.PAUSED and now < self.replica.pause_ends and self.had == self.had_told
        return self.asked + (RECONCILED if waits or row.state is State.CLOSED else DUE_AFTER)

    def wants_some(self, *, now: float) -> bool:
        """Whether the book has, or is to have, anything of ours."""
        replica = self.replica
        return bool(self.need) or replica.has_share or self.had != self.had_told or replica.token(now=now) is not None

    def learn_of(self, book: Book, name: str, elsewhere: int | None) -> int:
        """Take what others need and have had accepted; how much that is since the last time."""
        self.had_told = book.had.get(name)
        if elsewhere is not None:
            self._others = elsewhere
            return 0
        others = {host: share for host, share in book.lent().items() if host != name}
        self._others = sum(share.need for share in others.values())
        taken = 0
        for host, share in others.items():
            since = share.accepted - self.heard.get(host, share.accepted)
            taken += since if 0 < since <= _MOST_AT_ONCE else 0
            self.heard[host] = share.accepted
        return taken


class Host:
    def __init__(self, name: str, engine: Engine, *, steady: Callable[[], float]) -> None:
        """`steady` gives the seconds of a clock that nobody sets."""
        self.name = name
        self.contact = Contact(name)
        self.parts: dict[Key, Part] = {}
        self.urgent: set[Key] = set()
        """Whose books are to be asked for at once."""
        self.steady = steady
        self.stirred: Callable[[], None] = lambda: None
        """Called when something should be told at once."""
        self._engine = engine
        self._following: Key | None = None
        self._place = zlib.crc32(name.encode(errors="surrogateescape")) / (1 << 32)
        """Of 1: what all hosts do at their own times, each does at another."""
        engine.subqueues.moved = self._moved
        engine.releases_at(self._place)
        for sub in engine.subqueues.all():
            self._take_back(sub)

    @property
    def takes_part(self) -> bool:
        """Who only observes holds nothing, and so says nothing about what others may let go."""
        return self._engine.settings.act

    @property
    def is_of_many(self) -> bool:
        """Whether so many hosts may do the same that each had better do it in its round than all of them at once."""
        return self.contact.roll is not None and len(self.contact.roll.members) > CROWD

    # What happens here.

    def _moved(self, sub: OpenSubQueue, by_whom: str) -> None:
        """A sub-queue may be in another state. What it did by itself, or by hand, the fleet is to hear."""
        machine = sub.machine
        if not isinstance(machine, SubQueue):
            return
        if not self._engine.orders.concerns_others(sub):
            machine.fleet = None
            return
        part = self.parts.get(sub.key)
        if part is None:
            part = self.parts[sub.key] = Part(self, Replica(_unknown(sub, machine), pause_ends=self.steady()))
        machine.fleet = part
        part.before = machine.before
        place = (machine.state, machine.since)
        if part.seen == place:
            return
        part.seen = place
        if self._following != sub.key:
            self._tell(sub, machine, part, by_hand=by_whom != ENGINE)
            if machine.state is not State.PROBING or sub.held or not self.is_of_many:
                self.hurry(sub.key)

    def hurry(self, key: Key) -> None:
        """Have a book asked for at once."""
        self.urgent.add(key)
        self.stirred()

    def _take_back(self, sub: OpenSubQueue) -> None:
        """One that was open when we began: the fleet knows better, or else is told where it stands."""
        machine = sub.machine
        if not isinstance(machine, SubQueue) or not self._engine.orders.concerns_others(sub):
            return
        left = max(0.0, machine.pause_ends - machine.since)
        row = _unknown(sub, machine)._replace(state=machine.state, until=left)
        part = self.parts[sub.key] = Part(self, Replica(row, pause_ends=self.steady()))
        self.urgent.add(sub.key)
        part.seen = (machine.state, machine.since)
        machine.fleet = part

    def _tell(self, sub: OpenSubQueue, machine: SubQueue, part: Part, *, by_hand: bool) -> None:
        replica, now = part.replica, self.steady()
        match machine.state:
            case State.PAUSED:
                pause = machine.pause_ends - machine.since
                if by_hand and replica.is_shared:
                    part.order, part.pause = State.PAUSED, pause
                else:
                    short = machine.short_pause
                    replica.refused(replica.row.era, pause, short=short, rule=sub.rule, line=sub.line, now=now)
            case State.RAMPING if not replica.is_shared:
                replica.stands(State.RAMPING, max(machine.pace, _LEAST))
            case State.RAMPING if replica.token(now=now) is None and self.contact.is_alone(now=now):
                replica.probed_alone()
            case State.CLOSED if not replica.is_shared:
                del self.parts[sub.key]
            case State.CLOSED if not by_hand and (token := replica.token(now=now)) is not None:
                part.word = Word(token, State.CLOSED, replica.row.ceiling)
            case State.CLOSED:
                part.order = State.CLOSED

    def look(self, keys: Iterable[Key]) -> list[Key]:
        """Bring up to date what we need, what was accepted, and the pace that we set where we lead.

        Of these keys, list those whose books are to be asked for now. Keys that are over are forgotten.
        """
        now = self.steady()
        due = []
        for key in keys:
            part, sub = self.parts.get(key), self._engine.subqueues.get(key)
            if part is None:
                continue
            if sub is None and self._is_over(part):
                del self.parts[key]
                self.urgent.discard(key)
                continue
            machine = sub.machine if sub is not None else None
            if sub is not None and isinstance(machine, SubQueue) and machine.fleet is part:
                lately, part.accepted = machine.taken - part.accepted, machine.taken
                part.need = 0 if machine.state is State.PAUSED else sub.held + max(0, lately)
                self._lead(machine, part, now)
                part.had = _had(machine, part)
            if key in self.urgent or part.ask_again(now=now) <= now:
                due.append(key)
        return due

    def _lead(self, machine: SubQueue, part: Part, now: float) -> None:
        row = part.replica.row
        if machine.state is not State.RAMPING or (token := part.replica.token(now=now)) is None:
            return
        if row.state is State.PROBING or (row.ceiling, row.exploring) != (machine.pace, machine.exploring):
            part.word = Word(token, State.RAMPING, machine.pace, machine.exploring)

    def _is_over(self, part: Part) -> bool:
        return part.replica.row.state is State.CLOSED and part.replica.is_shared and part.is_settled()

    # What the store says.

    def found(self, rows: Mapping[Key, Row], *, at: float, now: float) -> None:
        """Take all rows that a store has, at `at` of its clock. What it lacks is told by whom it was changed last.

        Of what is left, many hosts, who all do this at once after a restart, look again at different times of the next RECONCILED.
        """
        for key, row in rows.items():
            if (part := self.parts.get(key)) is None or part.replica.row is not row:
                self.heard(row, at=at, now=now)
        steady = self.steady()
        for key, part in self.parts.items():
            row = part.replica.row
            there = rows.get(key)
            lacks = there is None or (there is not row and row.supersedes(there))
            if not part.shared or (lacks and row.host == self.name) or not part.is_settled():
                self.urgent.add(key)
            elif self.is_of_many and not part.wants_some(now=steady):
                part.asked = steady - RECONCILED * self._place

    def looks_only(self, key: Key) -> bool:
        """Whether we have nothing to say of a key, and want nothing of its book but to know where it stands."""
        part = self.parts.get(key)
        said = part is not None and key not in self.urgent and part.is_settled()
        return said and part is not None and not part.wants_some(now=self.steady())

    def as_known(self, key: Key, glance: Glance) -> Row | None:
        """Give the row of a book that was glanced at, if it is as we know it."""
        part = self.parts.get(key)
        return part.replica.row if part is not None and glance.row == part.written() else None

    def looked(self, key: Key, glance: Glance, *, at: float) -> bool:
        """Take a look at a book, at `at` of the store's clock; whether it is as we know it, needs nobody and teaches nothing."""
        part, row = self.parts.get(key), self.as_known(key, glance)
        if part is None or row is None:
            return False
        now = self.steady()
        quiet = {
            State.PAUSED: now < part.replica.pause_ends,
            State.PROBING: glance.led_until > at,
            State.RAMPING: False,  # the books of a ramp say what others have had accepted
            State.CLOSED: True,
        }[row.state] or at < glance.settled  # until then nobody leads, and nobody is lent anything
        part.asked = now if quiet else part.asked
        return quiet

    def wish(self, key: Key) -> Wish:
        """Give what we bring to a book and want of it."""
        part = self.parts[key]
        part.asked = self.steady()
        self.urgent.discard(key)
        return part.wish(self.name)

    def answered(
        self,
        key: Key,
        book: Book,
        wish: Wish,
        *,
        at: float,
        sent: float,
        now: float,
        elsewhere: int | None = None,
    ) -> None:
        """The book was written with our wish. `at`: of the store's clock; `sent`: of our steady one; `now`: as everywhere.

        `elsewhere`: messages that others need, where their shares are not given.
        """
        part = self.parts.get(key)
        if part is None:
            return
        if part.word is wish.word:
            part.word = None
        if part.order is wish.order:
            part.order = None
        part.replica.came_from(book, self.name, at=at, sent=sent, now=self.steady())
        taken = part.learn_of(book, self.name, elsewhere)
        sub = self._engine.subqueues.get(key)
        if sub is not None and isinstance(sub.machine, SubQueue):
            sub.machine.taken_elsewhere(taken, now=now)
            if elsewhere is None:
                sub.machine.taken_before(*_before(book), now=now)
            if part.paused_in == book.row.era:
                sub.machine.had_aftermath(book.aftermath(but=self.name))
        self._reconcile(part, now=now)
        if sub is not None and part.need:
            self._engine.subqueues.schedule(sub, now=now)

    def heard(self, row: Row, *, at: float, now: float) -> None:
        """Take a row that was pushed, or found in the store, at `at` of its clock."""
        if row.key.type not in DOMAIN_TYPES:  # no host of ours says so; an address would hold all mail to a provider
            return
        part, steady = self.parts.get(row.key), self.steady()
        if part is None:
            if row.state is State.CLOSED:
                return
            part = self.parts[row.key] = Part(self, Replica(row, pause_ends=steady + row.left(at=at)))
        elif not part.replica.heard(row, at=at, now=steady):
            return
        self._reconcile(part, now=now)
        if part.need and not self.is_of_many:
            self.hurry(row.key)

    def is_news(self, row: Row) -> bool:
        """Whether it is later than what we know of its key; of one that is over and forgotten nothing is."""
        part = self.parts.get(row.key)
        if part is None:
            return row.state is not State.CLOSED
        return row is not part.replica.row and row.supersedes(part.replica.row)

    def _reconcile(self, part: Part, *, now: float) -> None:
        """Have our sub-queue stand where the fleet's stands, unless we have something to say first."""
        row = part.replica.row
        sub = self._engine.subqueues.get(row.key)
        if not part.shared or not part.is_settled():
            return
        if sub is not None and sub.machine.state is State.PAUSED is row.state:
            part.paused_in = row.era
        if self._agrees(sub, part, now=now):
            return
        self._following = row.key
        try:
            self._engine.orders.follow(row, left=max(0.0, part.replica.pause_ends - self.steady()), now=now)
            part.paused_in = row.era if row.state is State.PAUSED else part.paused_in
        finally:
            self._following = None

    def _agrees(self, sub: OpenSubQueue | None, part: Part, *, now: float) -> bool:
        row = part.replica.row
        if sub is None:
            return row.state is State.CLOSED
        machine = sub.machine
        if not isinstance(machine, SubQueue) or machine.fleet is not part:  # has become this host's alone
            return True
        left = part.replica.pause_ends - self.steady()
        match row.state:
            case State.PAUSED:
                # Ours may end before the fleet's does, who heard of it late: no probe failed by that.
                if machine.state is State.PROBING:
                    return part.paused_in == row.era or left <= _ALMOST
                as_long = machine.pause_ends >= now + left - _ALMOST
                return (
                    machine.state is State.PAUSED
                    and as_long
                    and not machine.pauses_longer_than(row.until - row.since + _ALMOST)
                )
            case State.PROBING:
                return machine.state is not State.PAUSED
            case State.RAMPING:
                leads = part.replica.token(now=self.steady()) is not None
                as_told = (machine.pace, machine.exploring) == (row.ceiling, row.exploring)
                return machine.state is State.RAMPING and (leads or as_told)
            case State.CLOSED:
                return False

    # For people.

    def standing(self) -> Mapping[str, Any]:
        """Tell how we stand with the fleet."""
        now = self.steady()
        return {
            "host": self.name,
            "takes_part": self.takes_part,
            "server": self.contact.server,
            "majority": self.contact.standing.quorate,
            "alone": self.contact.is_alone(now=now),
            "alone_part": round(self.contact.alone, 4),
            "shared": sum(part.shared for part in self.parts.values()),
            "hosts": self._hosts(),
        }

    def _hosts(self) -> list[Mapping[str, object]]:
        """List who is of the fleet, as the roll was read last: the seconds since each was known to have had an answer."""
        roll, met = self.contact.roll, self.contact.roll_at
        if roll is None:
            return []
        return [
            {
                "host": name,
                "heard_s": round(met - member.met, 1) if member.met > NEVER else None,
                "silent": met - member.met >= SILENT_AFTER,
            }
            for name, member in sorted(roll.members.items())
        ]

    def said(self, key: Key) -> Mapping[str, object] | None:
        """Tell what the fleet knows of a key, and who said so; None where the key is this host's alone."""
        part = self.parts.get(key)
        if part is None or not part.shared:
            return None
        row = part.replica.row
        return {
            "state": str(row.state),
            "ceiling_per_s": round(row.ceiling, 4),
            "host": row.host,
            "leads": part.leads(),
            "held_elsewhere": part.elsewhere(),
        }


def _before(book: Book) -> tuple[int, float]:
    """What all hosts had accepted before the first refusal, and in how many seconds."""
    shares = book.lent().values()
    return sum(share.before for share in shares), max((share.during for share in shares), default=0.0)


def _had(machine: SubQueue, part: Part) -> Had | None:
    """What became of what was under way: of this era only, until mail leaves again."""
    row = part.replica.row
    waits = machine.state in (State.PAUSED, State.PROBING) and row.state in (State.PAUSED, State.PROBING)
    if not waits or part.paused_in != row.era or (aftermath := machine.aftermath) == _NONE:
        return None
    return Had(row.era, aftermath)


def _unknown(sub: OpenSubQueue, machine: SubQueue) -> Row:
    """Give the row of a key of which we do not know what the fleet knows."""
    pace = max(machine.pace, _LEAST)
    return Row(sub.key, State.CLOSED, pace, 0, 0, 0.0, 0.0, sub.rule, sub.line, "")

"""The book of one key, as all hosts share it: the row, who leads, and what of the budget is lent to whom.

Every decision is a function of the book as read: the store only swaps the text it was read from for the new one, if
no other host was quicker. Times are the store's.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Self

from policies.fleet import reading
from policies.fleet.reading import number, whole
from policies.fleet.roll import Standing
from policies.fleet.row import Row
from policies.fleet.terms import GRACE, LEASE
from policies.limit import Aftermath
from policies.subqueue import State


class Lead(NamedTuple):
    """One host sends the probe, and sets the pace of the ramp that follows it."""

    host: str
    token: int
    """The fencing token: each lead has a higher one, and only the last one's word counts."""
    expires: float


class Share(NamedTuple):
    """What of the ceiling a host was lent, for its need."""

    rate: float
    """Messages/s."""
    need: int
    """Messages that it holds."""
    expires: float
    accepted: int = 0
    """Messages that the provider has taken from it, counted since it began to run: what all learn the limit from."""
    before: int = 0
    """Messages that the provider took from it before the first refusal ..."""
    during: float = 0.0
    """... in so many seconds: what it lets through at once, all hosts found together."""


class Word(NamedTuple):
    """What the lead says: that the key ramps and up to which ceiling, or is closed. A probe that fails is a refusal."""

    token: int
    state: State
    ceiling: float
    """Messages/s."""
    exploring: bool = False
    """The ceiling is more than is known to be safe."""


class Had(NamedTuple):
    """What a host had under way when the first refusal of an era came, and what became of it."""

    era: int
    aftermath: Aftermath


class Wish(NamedTuple):
    """What a host brings when it comes to the book, and wants of it."""

    host: str
    known: Row
    """The row as it knows it: the store may have lost it."""
    need: int = 0
    """Messages that it holds; 0 gives back what it was lent."""
    refused_in: int | None = None
    """The era in which an attempt began that was refused; None: there was no refusal."""
    pause: float = 0.0
    """Seconds to pause for, after that refusal ..."""
    short: float = 0.0
    """... and that it may come down to, as in `Row`."""
    word: Word | None = None
    rule: str = ""
    line: str = ""
    """Of the refusal."""
    accepted: int = 0
    """As in `Share`."""
    order: State | None = None
    """What an admin wants: closed, or paused for `pause` seconds."""
    before: int = 0
    during: float = 0.0
    """As in `Share`."""
    had: Had | None = None


class Glance(NamedTuple):
    """What a look at the text of a book shows, where that is as `Book.text` writes it."""

    row: str
    """As it is written there; "" where that cannot be told."""
    led_until: float
    settled: float

    @classmethod
    def at(cls, text: str) -> Self:
        lead = _LEAD.search(text)
        begins = lead.end() if lead is not None else 0
        ends = text.find(_AFTER_ROW, begins) + 1
        rest = _SETTLED.match(text, ends) if ends else None
        if lead is None or rest is None:
            return cls("", -math.inf, -math.inf)
        return cls(text[begins:ends], float(lead["until"] or -math.inf), float(rest["settled"]))


@dataclass(frozen=True, slots=True)
class Book:
    server: str
    """The life of the store that lent what is lent."""
    settled: float
    """Until then nothing is lent."""
    row: Row
    token: int = 0
    """The highest fencing token that was given out."""
    lead: Lead | None = None
    shares: Mapping[str, Share] | None = None
    had: Mapping[str, Had] = field(default_factory=dict)
    """By host."""

    def lent(self) -> Mapping[str, Share]:
        return self.shares or {}

    def aftermath(self, *, but: str = "") -> Aftermath:
        """What the provider did after the first refusal of this era, with what all hosts had under way but one."""
        total = Aftermath()
        for host, had in self.had.items():
            if host != but and had.era == self.row.era:
                total = total.plus(had.aftermath)
        return total

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `text` wrote, by this version or a newer one. Raises ValueError."""
        return reading.read(text, "book", cls._of)

    @classmethod
    def _of(cls, values: Any) -> Self:
        lead = values["lead"]
        return cls(
            reading.text(values["server"]),
            number(values["settled"]),
            Row.of(values["row"]),
            whole(values["token"]),
            Lead(reading.text(lead[0]), whole(lead[1]), number(lead[2])) if lead else None,
            {host: _share_of(share) for host, share in values["shares"].items()},
            {host: _had_of(had) for host, had in values.get("had", {}).items()},
        )

    def text(self) -> str:
        values: dict[str, Any] = {
            "server": self.server,
            "settled": self.settled,
            "row": self.row.values(),
            "token": self.token,
            "lead": self.lead,
            "shares": self.lent(),
            "had": {host: (had.era, *had.aftermath) for host, had in self.had.items()},
        }
        return sorted_json(values)


def sorted_json(values: object) -> str:
    """Write what is in a book as all of it is written."""
    return json.dumps(values, separators=(",", ":"), sort_keys=True)


_TIME: Final = r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
# No pattern looks for the end of the row: a text that somebody made up may have many beginnings, and each would look to the end.
_LEAD: Final = re.compile(rf'"lead":(?:null|\["[^"]*",\d+,(?P<until>{_TIME})\]),"row":(?=\{{)')
_AFTER_ROW: Final = '},"server":"'
_SETTLED: Final = re.compile(rf',"server":"[^"]*","settled":(?P<settled>{_TIME}),')


def _share_of(values: Sequence[Any]) -> Share:
    rate, need, expires, *rest = values
    accepted, before, during = (*rest, 0, 0, 0)[:3]  # older versions write fewer, newer ones more
    return Share(
        number(rate, least=0.0), whole(need), number(expires), whole(accepted), whole(before), number(during, least=0.0)
    )


def _had_of(values: Sequence[Any]) -> Had:
    era, accepted, refused, seconds, *_ = values
    return Had(whole(era), Aftermath(whole(accepted), whole(refused), number(seconds, least=0.0)))


def attend(book: Book | None, wish: Wish, standing: Standing, *, server: str, at: float) -> Book:
    """Give the book after a host came to it, at `at` of the clock of `server`.

    What it knows, a refusal and the lead's word are taken always; a lead and a share of the budget only in a store
    that has settled, where a majority of the hosts is.
    """
    book = _of_this_store(book, wish.known, server=server, at=at)
    if wish.known.supersedes(book.row):
        book = replace(book, row=_by_this_clock(wish.known, at), lead=None)
    book = _ordered(book, wish, at=at)
    book = _refused(book, wish, at=at)
    book = _said(book, wish, at=at)
    book = _went_on(book, wish, at=at)
    book = replace(book, shares={host: share for host, share in book.lent().items() if share.expires > at})
    if pool(book, standing, at=at) is None:
        return book
    book = _lead(book, wish, at=at)
    return lend(book, wish, pool(book, standing, at=at), at=at)


def pool(book: Book, standing: Standing, *, at: float) -> float | None:
    """Tell what all hosts together may be lent, messages/s; None: nobody is lent anything now, nor gives any back."""
    if not standing.quorate or at < book.settled:
        return None
    return book.row.ceiling * (1 - standing.reserved) if book.row.state is State.RAMPING else 0.0


def _of_this_store(book: Book | None, known: Row, *, server: str, at: float) -> Book:
    """Begin anew where the store lived another life when the book was written: what that lent runs out meanwhile.

    So as well where its clock was set back since: by it nothing of that would run out for as long as it was ahead.
    """
    if book is None:
        return Book(server, at + GRACE, _first(known, at), token=known.serial)
    if book.server != server or _is_ahead(book, at):
        return Book(server, at + GRACE, _by_this_clock(book.row, at), token=book.token)
    return book


def _is_ahead(book: Book, at: float) -> bool:
    """Whether it has times that nobody can have written by `at`; a lead without end is one of which the end is not known."""
    ends = [share.expires for share in book.lent().values()]
    if book.lead is not None and book.lead.expires != math.inf:
        ends.append(book.lead.expires)
    late = max(ends, default=at) > at + 2 * LEASE
    return late or book.settled > at + 2 * GRACE or book.row.since > at + LEASE


def _first(known: Row, at: float) -> Row:
    """Take the row of a key that no store has; what no store ever had begins now."""
    if known.serial:
        return _by_this_clock(known, at)
    return known._replace(serial=1, since=at, until=at + max(0.0, known.until - known.since))


def _by_this_clock(row: Row, at: float) -> Row:
    """Rebase the clock of a row that another store's clock wrote: how long its pause was is all that it says for sure."""
    length = max(0.0, row.until - row.since)
    return row._replace(since=min(row.since, at), until=min(row.until, at + length))


def _ordered(book: Book, wish: Wish, *, at: float) -> Book:
    """Do what an admin wants; not close what has been refused since they looked."""
    row = book.row
    if wish.order is State.PAUSED:
        row = row.changed(State.PAUSED, host=wish.host, at=at, pause=wish.pause)
    elif wish.order is State.CLOSED and row.state is not State.CLOSED and wish.known.era == row.era:
        row = row.changed(State.CLOSED, host=wish.host, at=at)
    else:
        return book
    return replace(book, row=row._replace(rule=wish.rule or row.rule, line=wish.line or row.line), lead=None)


def _refused(book: Book, wish: Wish, *, at: float) -> Book:
    """A refusal pauses for all, whoever leads; one of an attempt from before the pause says nothing new.

    Who knows nothing of the key yet has just opened it: its refusal is of now.
    """
    era = book.row.era if wish.refused_in is not None and not wish.known.serial else wish.refused_in
    if era != book.row.era or book.row.state is State.PAUSED:
        return book
    row = book.row.changed(State.PAUSED, host=wish.host, at=at, pause=wish.pause, short=wish.short)
    return replace(book, row=row._replace(rule=wish.rule or row.rule, line=wish.line or row.line), lead=None)


def _went_on(book: Book, wish: Wish, *, at: float) -> Book:
    """Note what became of what was under way; a pause that may be a short one is, where some of that was accepted."""
    had = {host: had for host, had in book.had.items() if had.era == book.row.era}
    if wish.had is not None and wish.had.era == book.row.era:
        had[wish.host] = wish.had
    book = replace(book, had=had)
    row = book.row
    if row.state is State.PAUSED and row.short and book.aftermath().soft:
        return replace(book, row=row.shortened(host=wish.host, at=at))
    return book


def _said(book: Book, wish: Wish, *, at: float) -> Book:
    """Take the lead's word, if it is still the lead's."""
    word, lead = wish.word, book.lead
    if word is None or lead is None or lead.host != wish.host or lead.token != word.token or lead.expires <= at:
        return book
    if (word.state, word.ceiling, word.exploring) == (book.row.state, book.row.ceiling, book.row.exploring):
        return book
    row = book.row.changed(word.state, host=wish.host, at=at, ceiling=word.ceiling, exploring=word.exploring)
    return replace(book, row=row)


def _lead(book: Book, wish: Wish, *, at: float) -> Book:
    """Lend the lead for once the pause is over: to one with held mail where there is one, for it can probe."""
    row, lead = book.row, book.lead
    if row.state is State.CLOSED or (row.state is State.PAUSED and at < row.until):
        return replace(book, lead=None)
    if lead is not None and lead.expires > at and lead.host != wish.host:
        return book
    others = any(share.need for host, share in book.lent().items() if host != wish.host)
    if not wish.need and others:
        return replace(book, lead=None)
    if lead is not None and lead.expires > at:
        return replace(book, lead=lead._replace(expires=at + LEASE))
    token = max(book.token, row.serial) + 1
    if row.state is State.PAUSED:
        row = row.changed(State.PROBING, host=wish.host, at=at)
    return replace(book, row=row, token=token, lead=Lead(wish.host, token, at + LEASE))


def lend(book: Book, wish: Wish, pooled: float | None, *, at: float) -> Book:
    """Lend of the pool by need, but never more than is not lent: the others' shares shrink as they come.

    `sidecar.fleet.book_store` has Redis do the same to the one share.
    """
    others = {host: share for host, share in book.lent().items() if host != wish.host}
    if pooled is None:
        return book
    if not wish.need:
        return replace(book, shares=others)
    fair = pooled * wish.need / (wish.need + sum(share.need for share in others.values()))
    free = pooled - sum(share.rate for share in others.values())
    rate = max(0.0, min(fair, free))
    share = Share(rate, wish.need, at + LEASE, wish.accepted, wish.before, wish.during)
    return replace(book, shares={**others, wish.host: share})


def outer(book: Book, *, led: bool) -> Book:
    """Give all of a book but its shares; where somebody is `led` by it, as if its lead never ran out."""
    lead = book.lead._replace(expires=math.inf) if book.lead is not None and led else book.lead
    return replace(book, lead=lead, shares={})

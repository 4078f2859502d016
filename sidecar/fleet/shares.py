"""One host's shares in the books that hundreds of hosts share: renewed without reading the others', and beside whoever leads.

In a small fleet books are read and swapped as a whole, and of this only `write` is in use.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from policies.fleet.book import Book, Share, Wish, attend, outer, pool
from policies.fleet.host import Host
from policies.key import Key
from sidecar.fleet.book_store import Around, BookStore, Change, Changed, Outer, mine
from sidecar.fleet.redis_store import Read, RedisStore, Swap

BOOK: Final = "book:"
SHARES_A_SECOND: Final = 30.0
"""Of others, about, that a host reads of a book in which it has a share: what they have had accepted tells of the limit."""


class Visit(NamedTuple):
    """One book, and what becomes of it with our wish."""

    key: Key
    read: Read
    before: Book | None
    wish: Wish
    book: Book

    @property
    def changes(self) -> bool:
        return self.book != self.before


class _Known(NamedTuple):
    """A book, as we heard of it last."""

    around: Around
    book: Book
    """Without shares, and as if its lead never ran out."""
    mine: float | None
    """When our share runs out."""
    at: float
    """Of the store's clock, when by our steady one it was ..."""
    seen: float
    whole_at: float
    """When all shares were read last, by our steady clock ..."""
    holders: int
    """... and how many there were."""


class Shares:
    def __init__(self, host: Host, store: RedisStore, *, read: Callable[[Key, str], Book | None]) -> None:
        """`read` the text of a key's book; None: it is no good."""
        self._host = host
        self._store = store
        self._books = BookStore(store)
        self._read = read
        self._known: dict[Key, _Known] = {}

    async def renew(self, keys: Sequence[Key], *, now: Callable[[], float]) -> dict[Key, Read | None]:
        """Renew our shares of books of which we want nothing more; give the other keys, with what stands there where that is known.

        `now`: the engine's clock. Raises StoreSilent.
        """
        left: dict[Key, Read | None] = dict.fromkeys(keys)
        asked = self._renewals(keys)
        for _ in range(2):  # what stands around the shares may have been another
            sent = self._host.steady()
            answers = await self._books.change(list(asked.values())) if asked else []
            again: list[Key] = []
            for (key, change), answer in zip(asked.items(), answers, strict=True):
                if isinstance(answer, Outer):
                    again += [key] if self._is_around(key, answer.read, sent) else []
                elif isinstance(answer, Read):
                    left[key] = answer
                elif self._is_renewed(key, change, answer, sent=sent, now=now()):
                    del left[key]
            asked = self._renewals(again)
        return left

    def _renewals(self, keys: Iterable[Key]) -> dict[Key, Change]:
        return {key: change for key in keys if (change := self._renewal(key)) is not None}

    def _renewal(self, key: Key) -> Change | None:
        """Give what we want of a book, if that is no more than our share of it: all else would stay as it is."""
        known, part = self._known.get(key), self._host.parts.get(key)
        if known is None or part is None or not self._host.is_of_many:
            return None
        lead, standing, now = known.book.lead, self._host.contact.standing, self._host.steady()
        if lead is None or lead.host == self._host.name or not self._host.contact.is_fresh(now=now):
            return None
        wish, at = self._host.wish(key), known.at + now - known.seen
        book = attend(known.book, wish, standing, server=known.book.server, at=at)
        pooled = pool(known.book, standing, at=at)
        if pooled is None or outer(book, led=True) != known.book:
            return None
        whole = now - known.whole_at >= known.holders / SHARES_A_SECOND
        return Change(
            f"{BOOK}{key}", known.book.server, known.book.settled, known.around, None, known.mine, wish, pooled, whole
        )

    def _is_around(self, key: Key, read: Read, sent: float) -> bool:
        """Take what now stands around the shares; whether it is any good."""
        book, around, known = self._read(key, read.text), Around.shares_of(read.text), self._known[key]
        if book is None or around is None:
            del self._known[key]
            return False
        self._known[key] = known._replace(around=around, book=outer(book, led=True), at=read.at, seen=sent)
        return True

    def _is_renewed(self, key: Key, change: Change, answer: Changed, *, sent: float, now: float) -> bool:
        """Take our share, and the others' where they were told as well; whether that could be read."""
        known = self._known[key]
        self._known[key] = known._replace(mine=answer.share.expires if answer.share is not None else None)
        book: Book | None = replace(known.book, shares=_of(self._host.name, answer.share))
        if answer.text:
            book = self._read(key, answer.text)
            self._known[key] = self._known[key]._replace(whole_at=sent, holders=answer.holders)
        if book is None:
            return False
        elsewhere = None if answer.text else answer.needs
        self._host.answered(key, book, change.wish, at=answer.at, sent=sent, now=now, elsewhere=elsewhere)
        return True

    async def write(self, visits: Sequence[Visit], *, sent: float) -> tuple[list[Visit], dict[Key, Read | None]]:
        """Have books stand as our visits leave them, which were read for a question of `sent`.

        Give those that do, and the keys where another was quicker, with what stands there if that is known. Raises StoreSilent.
        """
        changes = {
            visit.key: change for visit in visits if visit.changes and (change := self._change(visit)) is not None
        }
        swapped = [visit for visit in visits if visit.changes and visit.key not in changes]
        swaps = [Swap(f"{BOOK}{visit.key}", visit.read, visit.book.text()) for visit in swapped]
        others = await self._store.swap(swaps) if swaps else []
        quicker: dict[Key, Read | None] = {
            visit.key: other for visit, other in zip(swapped, others, strict=True) if other is not None
        }
        answers = await self._books.change(list(changes.values())) if changes else []
        lent: dict[Key, Share | None] = {}
        for key, answer in zip(changes, answers, strict=True):
            if isinstance(answer, Changed):
                lent[key] = answer.share
            else:
                quicker[key] = answer if isinstance(answer, Read) else None
        done = [self._as_written(visit, changes, lent) for visit in visits if visit.key not in quicker]
        self._keep(done, sent)
        return done, quicker

    def _change(self, visit: Visit) -> Change | None:
        """Give a visit's change, if it is to leave others' shares as they are by then; None: all of the text is swapped."""
        key, read, before, wish, book = visit
        if before is None or before.server != read.server or not self._host.is_of_many:
            return None
        known, new = Around.shares_of(read.text), Around.shares_of(book.text())
        if known is None or new is None:
            return None
        led = book.lead is not None and book.lead.host != wish.host
        mere = led and outer(book, led=False) == outer(before, led=False)
        pooled = pool(book, self._host.contact.standing, at=read.at)
        ours = mine(before, wish.host)
        return Change(f"{BOOK}{key}", read.server, book.settled, known, None if mere else new, ours, wish, pooled)

    def _as_written(self, visit: Visit, changes: Mapping[Key, Change], lent: Mapping[Key, Share | None]) -> Visit:
        if visit.key not in lent or changes[visit.key].pooled is None:
            return visit
        others = {host: share for host, share in visit.book.lent().items() if host != visit.wish.host}
        shares = {**others, **_of(visit.wish.host, lent[visit.key])}
        return visit._replace(book=replace(visit.book, shares=shares))

    def _keep(self, visits: Iterable[Visit], sent: float) -> None:
        """Remember how books stand, of keys that there are."""
        if not self._host.is_of_many:
            self._known.clear()
            return
        for visit in visits:
            key, read, _, wish, book = visit
            if (around := Around.shares_of(book.text() if visit.changes else read.text)) is None:
                continue
            self._known[key] = _Known(
                around, outer(book, led=True), mine(book, wish.host), read.at, sent, sent, len(book.lent())
            )
        if len(self._known) > 2 * len(self._host.parts):
            self._known = {key: known for key, known in self._known.items() if key in self._host.parts}


def _of(host: str, share: Share | None) -> dict[str, Share]:
    return {host: share} if share is not None else {}

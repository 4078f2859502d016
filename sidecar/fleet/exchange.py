"""One host's task with the fleet: goes its rounds, hears what others push, and keeps what came of it at hand.

Nobody waits for it: what it is told is in memory, what it is asked is answered from there. It works in small slices, so
that no policy answer waits for it either. With the store silent it backs off, and policies/fleet says what that means.
"""

import asyncio
import contextlib
import functools
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from policies.fleet.book import Book, Glance, attend
from policies.fleet.host import CROWD, Host
from policies.fleet.roll import Roll, concerns_one, enrol
from policies.fleet.row import Row, pushed_text, read_pushed
from policies.fleet.terms import DUE_AFTER, NEVER, ROUND
from policies.key import Key
from sidecar.fleet.presences import Presences
from sidecar.fleet.redis_store import Read, RedisStore, StoreSilent, goes_on
from sidecar.fleet.roll_store import RollStore, Tally, outline
from sidecar.fleet.shares import BOOK, Shares, Visit

_LOG = logging.getLogger("sidecar.fleet")
_Text = TypeVar("_Text", Book, Roll)

TRIES = 8
"""Swaps that another host may be quicker at, one after the other, before the next round tries again."""
VISITS_A_SECOND = 300.0
"""Where more than CROWD hosts hold mail of a key, and others were quicker at its book, each comes again later: all of them spread
over as long as so many visits take."""
AT_ONCE = 16
"""Books that are asked for in one go: about a millisecond of reading and writing them."""
GLANCED_AT = 48
"""Texts of books that are looked at in one go, and as a rule say what is known: as long, and a third of the questions."""
TRY_AGAIN = 1.0
"""Seconds between two attempts at a store that is silent."""
LEAST_PAUSE = 0.1
"""Seconds between two rounds, however slow the store is."""
READ_BY_ALL = 5_000.0
"""Books a second, about, over which hosts spread that all have to read everything at once."""
ENTRIES_A_SECOND = 10.0
"""Of the roll, that a host reads: in a large fleet who was met when is looked at less often than anew each round."""
LOOK = 0.5 * ROUND
"""Seconds between two looks at all sub-queues ..."""
TWIN_FOR = 30.0
"""Seconds for which it is said that another host has our name."""
LOOKED_AT = 500
"""... so many of them in one go: less than a millisecond."""


class Exchange:
    def __init__(
        self,
        host: Host,
        store: RedisStore,
        *,
        roll: RollStore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`roll`: where another than that of `store`; `clock`: the one that the engine goes by."""
        self.host = host
        self.wake_engine: Callable[[], None] = lambda: None
        """Has the engine's step taken: something that it goes by has changed."""
        self.silent = "not asked yet"
        """Why the store does not answer; "" while it does."""
        self.bad_texts = 0
        self.rounds = 0
        self.round_s = 0.0
        """What the last round took."""
        self.answered_at = 0.0
        """When the last round had ended, since the epoch; 0: none has."""
        self.rows_heard = 0
        """Changes of other hosts that were pushed to us ..."""
        self.rows_found = 0
        """... and those that we found by looking: the push was lost, or later than the look."""
        self.presences = Presences(store)
        self._store = store
        self._roll = roll or RollStore(store)
        self._shares = Shares(host, store, read=self._book)
        self._clock = clock
        self._wake = asyncio.Event()
        self._missed = True
        """Rows may have been pushed that we did not hear."""
        self._enrolled = self._looked = self._roll_read = -math.inf
        self._outline = ""
        """Of the roll as we know it: while it stays so we are told no more than what it comes to. "": it is to be read."""
        self._wrote: set[float] = set()
        """What may stand in the roll as our last answer, of those that we wrote."""
        self._twin_seen = -math.inf
        self._unsaid: dict[Key, str] = {}
        """Rows that are in the store, and not pushed yet."""
        host.stirred = self._wake.set
        store.fleet_server = self.server

    async def run(self) -> None:
        """Go the rounds until cancelled; then leave the fleet. After an error we stay on its roll, and go on alone."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                await self._rounds()
        except asyncio.CancelledError:
            with contextlib.suppress(StoreSilent):
                await self._leave()
            raise
        finally:
            await self._store.close()

    def server(self) -> str:
        """Give the life of the server that the fleet goes by; "" while none answers."""
        return "" if self.silent else self.host.contact.server

    def status(self) -> Mapping[str, Any]:
        """Tell how we stand with the fleet, without asking anybody."""
        standing = self.host.standing()
        at = self.host.contact.met + self.host.steady() - self._enrolled  # of the store's clock, by now
        hosts = [self.presences.shown(row, at=at) for row in standing["hosts"]]
        return {
            **standing,
            "hosts": hosts,
            "held_total": sum(host["held"] or 0 for host in hosts),
            "silent": self.silent,
            "twin": self.has_twin(),
            "rounds": self.rounds,
            "round_s": round(self.round_s, 4),
            "answered_at": self.answered_at,
        }

    async def _rounds(self) -> None:
        while goes_on():
            self._wake.clear()
            began = self.host.steady()
            wait = ROUND if not self.host.takes_part or await self._answered() else TRY_AGAIN
            # From when the last one began: what a slow round takes must not come out of what leases last.
            pause = max(LEAST_PAUSE, wait * random.uniform(0.8, 1.0) - (self.host.steady() - began))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
                    if self.silent:  # what is urgent waits as well: it cannot be said
                        await asyncio.sleep(pause)

    async def _answered(self) -> bool:
        """Go one round; whether the store answered."""
        began = self.host.steady()
        try:
            await self._round(began)
        except StoreSilent as error:
            self._is_silent(str(error))
            return False
        self._answers()
        self.rounds += 1
        self.round_s = self.host.steady() - began
        self.answered_at = time.time()
        return True

    async def _round(self, now: float) -> None:
        """Ask for the roll, then for each book that is due. Raises StoreSilent.

        Whoever cannot reach all books does not go on proving that he is here: he would be lent nothing, and be
        left nothing to go on with either.
        """
        if now - self._enrolled >= DUE_AFTER:
            await self._enrol()
        if self._missed:
            await self._catch_up()
        await self._say()
        whole = now - self._looked >= LOOK
        self._looked = now if whole else self._looked
        keys = list(dict.fromkeys([*self.host.urgent, *(self.host.parts if whole else ())]))
        for start in range(0, len(keys), LOOKED_AT):
            due = self.host.look(keys[start : start + LOOKED_AT])
            idle = [key for key in due if self.host.looks_only(key)]
            await self._attend_all([key for key in due if not self.host.looks_only(key)])
            for first in range(0, len(idle), GLANCED_AT):
                await self._attend_all(await self._look_at(idle[first : first + GLANCED_AT]))
            await asyncio.sleep(0)
        if keys:
            self.wake_engine()
        contact = self.host.contact  # last, for nothing waits for it
        await self.presences.exchange(contact.roll.members if contact.roll else (), at=contact.met, now=now)

    async def _enrol(self) -> None:
        """Prove that we are here: in our own entry, or in a roll that is written anew where the store has lost the old one."""
        sent = self.host.steady()
        read = None if self._outline else await self._roll.read()
        for _ in range(TRIES):
            again = self.host.steady()
            if read is None:
                other, sent = await self._enter(self.host.contact.server), again
            elif (roll := self._taken(read)) is not None and self._is_of(roll, read.server, read.at):
                other, sent = await self._enter(read.server, roll, read.at), again
            else:
                other = await self._rewrite(read, roll, sent)
            if other is None:
                self._enrolled = sent
                return
            read, sent = other, again

    def _taken(self, read: Read) -> Roll | None:
        """Give the roll that was read."""
        contact = self.host.contact
        if contact.server and read.server != contact.server:
            self._missed = True
        roll = self._known(Roll.read, read.text)
        mine = roll.members.get(self.host.name) if roll is not None else None
        self._look_for_a_twin(mine.met if mine is not None else None, roll.server if roll is not None else "")
        self._outline = outline(roll, read.text)
        return roll

    def _is_of(self, roll: Roll, server: str, at: float) -> bool:
        """Whether nobody comes to that roll or is forgotten, by our asking, but we."""
        return concerns_one(roll, self.host.contact.asking(), server=server, at=at)

    async def _enter(self, server: str, read: Roll | None = None, read_at: float = NEVER) -> Read | None:
        """Write our own entry; what stands there if that could not be done. `read`: the roll, if it was just read."""
        contact, sent = self.host.contact, self.host.steady()
        asking = contact.asking()
        members = len(asking.known)
        self._wrote.add(asking.met if asking.server == server else NEVER)
        old = contact.server != server or sent - self._roll_read >= members / ENTRIES_A_SECOND
        whole = read is None and old
        told = await self._roll.enter(server, self._outline, asking, whole=whole)
        if isinstance(told, Read):
            self._outline = ""
            return told
        self._look_for_a_twin(told.met, told.server)
        self._wrote = {asking.met if asking.server == server else NEVER}
        if not told.text:
            if read is not None:
                contact.read(read, at=read_at)
                self._roll_read = sent
            contact.renewed(told.standing, at=told.at, sent=sent - told.age, now=self.host.steady())
        elif (
            roll := self._known(Roll.read, told.text)
        ) is None:  # a time in it is none, which its outline does not tell
            self._outline = ""
            return Read(told.server, told.at, told.text)
        else:
            contact.answered(roll, at=told.at, sent=sent, now=self.host.steady())
            self._outline = outline(roll, told.text) if self._is_of(roll, told.server, told.at) else ""
            self._roll_read = sent
        return None

    async def _rewrite(self, read: Read, before: Roll | None, sent: float) -> Read | None:
        """Write all of the roll, where it is as it was read; what stands there if it is not."""
        contact = self.host.contact
        roll = enrol(before, contact.asking(), server=read.server, at=read.at)
        mine = roll.members[self.host.name].met
        self._wrote.add(mine)
        other = await self._roll.rewrite(read, before, roll, self.host.name)
        if other is None:
            contact.answered(roll, at=read.at, sent=sent, now=self.host.steady())
            self._outline, self._roll_read, self._wrote = outline(roll, roll.text()), sent, {mine}
        return other

    def _look_for_a_twin(self, met: float | None, server: str) -> None:
        """Say so where the roll has of us what we did not write: what is lent to two of one name is lent twice."""
        if server != self.host.contact.server:
            self._wrote.clear()  # another store, which may have an older roll
            return
        if met is None or not self._wrote or met in self._wrote:
            return
        if not self.has_twin():
            _LOG.error(
                "another host of the fleet calls itself %s, too, and both take what is lent to one: give each a fleet.host "
                "of its own and restart core there",
                self.host.name,
            )
        self._twin_seen = self.host.steady()

    def has_twin(self) -> bool:
        """Whether another host of our name has been at work lately."""
        return self.host.steady() - self._twin_seen < TWIN_FOR

    async def _look_at(self, keys: Sequence[Key]) -> list[Key]:
        """Take a look at books of which we want nothing; those that are to be asked for after all."""
        at, texts = await self._store.texts([f"{BOOK}{key}" for key in keys])
        glances = {key: Glance.at(text) for key, text in zip(keys, texts, strict=True)}
        return [key for key, glance in glances.items() if not self.host.looked(key, glance, at=at)]

    async def _attend_all(self, keys: Sequence[Key]) -> None:
        """Ask for books, a few at a time, and between two times for those at which something has just happened."""
        for first in range(0, len(keys), AT_ONCE):
            await self._attend(keys[first : first + AT_ONCE])
            if self.host.urgent:
                await self._attend(self.host.look(list(self.host.urgent))[:AT_ONCE])

    async def _attend(self, keys: Sequence[Key]) -> None:
        """Bring our wishes to the books, until each is written or others have been quicker too often."""
        sent = self.host.steady()
        if self.host.is_of_many:
            await self._refresh()
        waiting = await self._shares.renew(keys, now=self._clock)
        if not waiting:
            return
        for _ in range(TRIES):
            read = await self._read_rest(waiting)
            await self._refresh()
            visits = [self._visit(key, read) for key, read in read.items() if key in self.host.parts]
            again = self.host.steady()
            done, waiting = await self._shares.write(visits, sent=sent)
            await self._swapped(done, sent)
            sent = again
            crowd = max((len(visit.book.lent()) for visit in visits if visit.key in waiting), default=0)
            if not waiting or crowd > CROWD:
                break
        if waiting:
            self.host.urgent.update(waiting)
            asyncio.get_running_loop().call_later(random.uniform(0.0, crowd / VISITS_A_SECOND), self._wake.set)

    async def _read_rest(self, known: Mapping[Key, Read | None]) -> dict[Key, Read]:
        """Read the books that are not known."""
        unread = [key for key, read in known.items() if read is None]
        reads = await self._store.read([f"{BOOK}{key}" for key in unread]) if unread else []
        return {key: read for key, read in known.items() if read is not None} | dict(zip(unread, reads, strict=True))

    async def _refresh(self) -> None:
        """Have a roll to write books by: a slow store has let the one of this round grow old. Nobody else has to wait."""
        contact = self.host.contact
        if contact.is_fresh(now=self.host.steady()):
            return
        sent = self.host.steady()
        told = await self._roll.look(contact.server, self.host.name)
        if isinstance(told, Tally):
            contact.saw(told.server, told.standing, sent=sent - told.age)
        elif (roll := self._known(Roll.read, told.text)) is not None:
            contact.saw(roll.server, roll.standing(at=told.at), sent=sent)
        if not contact.is_fresh(now=self.host.steady()):
            await self._enrol()

    def _visit(self, key: Key, read: Read) -> Visit:
        before, wish = self._book(key, read.text), self.host.wish(key)
        if before is not None:
            self._found(before.row)
        book = attend(before, wish, self.host.contact.standing, server=read.server, at=read.at)
        return Visit(key, read, before, wish, book)

    def _book(self, key: Key, text: str) -> Book | None:
        return self._known(functools.partial(_book_named, f"{BOOK}{key}"), text)

    async def _swapped(self, visits: Sequence[Visit], sent: float) -> None:
        """Take what the books have for us, and push the rows that are new."""
        for key, read, before, wish, book in visits:
            self.host.answered(key, book, wish, at=read.at, sent=sent, now=self._clock())
            if before is None or before.row != book.row:
                self._unsaid[key] = pushed_text(book.row, at=read.at)
        await self._say()

    async def _say(self) -> None:
        """Push what is not pushed yet; what the store does not take is kept for the next round."""
        if self._unsaid:
            said, self._unsaid = self._unsaid, {}
            try:
                await self._store.push(list(said.values()))
            except StoreSilent:
                self._unsaid = {**said, **self._unsaid}
                raise

    async def _catch_up(self) -> None:
        """Hear of all books, those as well that we never heard of, and tell those that the store lacks."""
        self._missed = False
        try:
            names = await self._store.names(BOOK)
            await asyncio.sleep(random.uniform(0, len(names) / READ_BY_ALL))
            rows: dict[Key, Row] = {}
            at = 0.0
            for start in range(0, len(names), GLANCED_AT):
                at, texts = await self._store.texts(names[start : start + GLANCED_AT])
                for name, text in zip(names[start : start + GLANCED_AT], texts, strict=True):
                    row = self._row(name, text)
                    rows |= {row.key: row} if row is not None else {}
        except StoreSilent:
            self._missed = True
            raise
        for row in rows.values():
            self._found(row)
        self.host.found(rows, at=at, now=self._clock())
        self.wake_engine()

    def _row(self, name: str, text: str) -> Row | None:
        """Give the row of a book; of one that says what we know no more is read."""
        with contextlib.suppress(ValueError):
            if (row := self.host.as_known(Key.read(name.removeprefix(BOOK)), Glance.at(text))) is not None:
                return row
        book = self._known(functools.partial(_book_named, name), text)
        return book.row if book is not None else None

    async def _leave(self) -> None:
        """Be no member any more: nothing is kept for us, and a majority does not count us."""
        await self._change_roll(lambda roll, _: roll.without(self.host.name))

    async def forget(self, host: str) -> None:
        """Have a host that is gone for good be no member any more.

        Raises ValueError where it is none, or may not be gone; StoreSilent.
        """
        if host == self.host.name:
            raise ValueError(f"{host} is this host; wanted one that is gone for good")
        await self._change_roll(lambda roll, at: roll.forgetting(host, at=at))

    async def _change_roll(self, change: Callable[[Roll, float], Roll]) -> None:
        read = await self._roll.read()
        for _ in range(TRIES):
            roll = self._known(Roll.read, read.text)
            if roll is None or (new := change(roll, read.at)) == roll:
                return
            other = await self._roll.rewrite(read, roll, new)
            if other is None:
                return
            read = other
        raise StoreSilent("other hosts were quicker each time; try again")

    # What is pushed.

    async def _listen(self) -> None:
        while goes_on():
            with contextlib.suppress(StoreSilent):
                await self._hear()
            await asyncio.sleep(random.uniform(0.25, 0.75))

    async def _hear(self) -> None:
        async with aclosing(self._store.pushed()) as texts:
            async for text in texts:
                if not text:  # we listen from now on; what was missed is in the books
                    self._missed = True
                    self._wake.set()
                elif self.host.takes_part:
                    self._heard(text)

    def _heard(self, text: str) -> None:
        try:
            at, row = read_pushed(text)
        except ValueError as error:
            self._bad(str(error))
            return
        self.rows_heard += row.host != self.host.name
        self.host.heard(row, at=at, now=self._clock())
        self.wake_engine()

    def _found(self, row: Row) -> None:
        """Count what another host changed and no push had told us by now."""
        self.rows_found += row.host != self.host.name and self.host.is_news(row)

    # Whether it answers.

    def _is_silent(self, why: str) -> None:
        if not self.silent or (not self.rounds and why != self.silent):
            _LOG.warning("the fleet's store is silent: %s; this host goes on by itself", why)
        self.silent = why

    def _answers(self) -> None:
        if self.silent:
            _LOG.info("the fleet's store answers; this host is %s", self.host.name)
        self.silent = ""

    def _known(self, read: Callable[[str], _Text], text: str) -> _Text | None:
        """Read what the store has; what is no good is as good as nothing, and written anew."""
        try:
            return read(text) if text else None
        except ValueError as error:
            self._bad(str(error))
            return None

    def _bad(self, why: str) -> None:
        self.bad_texts += 1
        if self.bad_texts == 1:
            _LOG.warning("the fleet's store has what we cannot read, and is told anew: %s", why)


def _book_named(name: str, text: str) -> Book:
    """Read a book, and see that it is of what its name says. Raises ValueError."""
    book = Book.read(text)
    if f"{BOOK}{book.row.key}" != name:
        raise ValueError(f"a book of {book.row.key}; wanted that of {name.removeprefix(BOOK)}")
    return book

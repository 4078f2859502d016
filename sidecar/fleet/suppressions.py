"""The fleet's suppression list: tells what is changed here, does what others changed, and notices where it missed some.

Nobody waits for it: a change counts here at once, whatever the store of the fleet does. What must be told is in core's store
until it is.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar

from policies.fleet.news import Entry, Hearing, Register, by_host, read_change, read_copied, read_place
from policies.fleet.pace import Pace
from policies.suppression import Add, Change, End, Erase, Heard
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.fleet.change_log import ChangeLog, Telling
from sidecar.fleet.commands import Told
from sidecar.fleet.outbox import HEARD, Erasure, Outbox, Row
from sidecar.fleet.redis_store import StoreSilent, goes_on
from sidecar.fleet.stream import BEGINNING, Page
from sidecar.suppression import Suppression

_LOG = logging.getLogger("sidecar.fleet")
T = TypeVar("T")

AT_ONCE: Final = 200
"""Changes that are told in one go."""
AHEAD = 20_000
"""Changes that we may have told and not read back: others read no faster, and the stream keeps only so many."""
GATHERED: Final = 0.1
"""Seconds in which changes are gathered: a commit each would cost more than they do."""
KEPT: Final = 3_600.0
"""Seconds for which a change stays in our store after it was read back: a store of the fleet that restarts empty is told it
again."""
TRY_AGAIN = 1.0
PLACE: Final = "fleet"
"""In `suppression_heard`: until when, by the store's clock, in milliseconds, the stream has been read."""
LATEST: Final = 2**62
"""... at most: a place that somebody made up may be beyond all times, and beyond what SQLite keeps."""
ERASE_AGAIN: Final = 300.0
OUTBOX_MOST = 100_000
"""Changes that wait for a store of the fleet that is away, some 50 MB: as many as that keeps. Older ones are dropped."""
COPY: Final = "fleet-copy"
"""In `suppression_heard`: 1 while changes of others were missed, and no copy of their list was taken since."""
COPY_AGAIN = 60.0
COPIED_AT_ONCE: Final = 500
SETTLED_EVERY: Final = 5.0


class Asking(Protocol):
    """What is wanted of `FleetCommands`."""

    def others(self, to: str = "") -> list[str]: ...

    async def tell(self, request: Mapping[str, Any], to: str = "", *, asks: bool = False) -> Told: ...


class SharedSuppressions:
    def __init__(
        self,
        host: str,
        log: ChangeLog,
        outbox: Outbox,
        suppression: Suppression,
        *,
        thread: ThreadPoolExecutor,
        erase_outside: Callable[[str], Any],
    ) -> None:
        """Before anything else happens in core; reads the store, so in its thread. `erase_outside`: awaited."""
        self.host = host
        self.silent = "not asked yet"
        """Why the store of the fleet does not answer; "" while it does."""
        self.others_key = ""
        """A host whose list is made with another key."""
        self.followed = self.bad = 0
        """Changes of others that were done here, and entries that cannot be read."""
        self.waiting = self.dropped = 0
        """Changes of ours that are not known to be told, and those that never will be."""
        self.copied = 0
        """Entries that were missed, and taken from another host's list."""
        self.commands: Asking | None = None
        """Asks other hosts; None: what was missed stays so until somebody imports it."""
        self._log = log
        self._outbox = outbox
        self._suppression = suppression
        self._suppressing = suppression.opened.suppressing
        self._key = suppression.opened.book.key.fingerprint.hex()
        self._thread = thread
        self._erase_outside = erase_outside
        heard = outbox.heard()
        unheard = outbox.unheard(after=heard.get(outbox.origin, 0), limit=-1)
        self.hearing = Hearing(outbox.origin, heard, _changes(unheard))
        place = suppression.opened.heard.get(PLACE, 0)
        self._after = f"{place}-0" if place else BEGINNING
        self._said = heard.get(outbox.origin, 0)
        """The number of the last change that is in the stream, as far as we know."""
        self._taken_off: set[Register] | None = None
        """Entries, by whomever, while a part of a copy is taken in, since our store was asked what had been; None: none is."""
        self._taken_out: list[Erase] = []
        """Persons of whom the stream is to say nothing more."""
        self._read_back = self._said
        self._dropped_upto = 0
        self._missed_of: set[str] = set()
        """Hosts of whose changes some were missed."""
        self._began_with = outbox.last()
        self._met = False
        """Whether the fleet's store has told us how much of ours it knows."""
        self._tells, self._erases, self._lacks = asyncio.Event(), asyncio.Event(), asyncio.Event()
        if suppression.opened.heard.get(COPY):
            self.hearing.missed.add("before")
            self._lacks.set()
        self._tells.set()
        self._erases.set()
        self._suppressing.told = self._told

    async def run(self) -> None:
        """Tell and hear until cancelled. What fails is tried again: nothing of it is lost, and mail goes on."""
        try:
            async with asyncio.TaskGroup() as group:
                for each in (self._say, self._hear, self._settle, self._erase, self._copy):
                    group.create_task(self._keep_at(each))
        finally:
            await self._log.close()

    def status(self) -> Mapping[str, Any]:
        return {
            "silent": self.silent,
            "followed": self.followed,
            "missed_of": len(self.hearing.missed),
            "copied": self.copied,
            "waiting": self.waiting,
            "dropped": self.dropped,
            "other_key": self.others_key,
            "bad": self.bad + self._log.bad,
        }

    async def _keep_at(self, work: Callable[[], Any]) -> None:
        said = ""
        while goes_on():
            try:
                await work()
            except StoreSilent as error:
                if not self.silent:
                    _LOG.warning(
                        "the fleet's suppression list cannot be reached: %s; this host goes on with its own", error
                    )
                self.silent = str(error)
            except Exception as error:  # noqa: BLE001  # an error of ours must not end core: it answers Postfix
                if str(error) != said:
                    _LOG.exception("the fleet's suppression list: %s", error)
                said = str(error)
            await asyncio.sleep(TRY_AGAIN * random.uniform(0.5, 1.0))

    def _told(self, change: Change) -> None:
        self.hearing.told(change)
        if isinstance(change, Erase):
            self._taken_out.append(change)
        self._is_taken_off(change)
        self._tells.set()

    # Telling.

    async def _say(self) -> None:
        while goes_on():
            await self._tells.wait()
            await asyncio.sleep(GATHERED)
            self._tells.clear()
            try:
                if await self._suppression.stored():
                    await self._say_all()
            except BaseException:
                self._tells.set()
                raise

    async def _say_all(self) -> None:
        while self._taken_out:
            await self._log.take_out(self._taken_out[0].who)
            del self._taken_out[0]
        while rows := await self._in_store(lambda: self._outbox.kept(after=self._said, limit=AT_ONCE)):
            if self._said - self.hearing.heard.get(self._outbox.origin, 0) > AHEAD:
                asyncio.get_running_loop().call_later(TRY_AGAIN, self._tells.set)
                return
            telling = Telling(self._outbox.origin, self._said, self.host, self._key)
            await self._is_known(await self._log.say(telling, rows))

    async def _is_known(self, upto: int) -> None:
        """The fleet's store knows our changes up to this one: fewer than it knew where it lost its memory."""
        met, self._met = self._met, True
        if met or upto <= self._began_with:
            self._said = upto
            return
        _LOG.warning("the fleet has heard more of this host than its store knows of, which so is an older one")
        await self._in_store(lambda: self._outbox.count_anew(self._began_with))
        self.hearing.is_now(self._outbox.origin, self._began_with)
        self._said = self._read_back = self._began_with

    # Hearing.

    async def _hear(self) -> None:
        told = await self._log.upto()  # by all, before we read: what is told meanwhile is no loss
        await self._is_known(told.get(self._outbox.origin, 0))
        self._tells.set()
        async with aclosing(self._log.stream.pages(self._after)) as pages:
            all_read = False
            async for page in pages:
                self._take(page)
                if all_read:
                    self.silent = ""  # what telling, or a copy, met is over, or is met again
                if page.is_last and not all_read:
                    all_read = True
                    self._is_up_to_date(told)
                await asyncio.sleep(0)

    def _is_up_to_date(self, told: Mapping[str, int]) -> None:
        self.hearing.ended(told)
        self._is_missing()
        if self.silent:
            _LOG.info("the fleet's suppression list is followed")
        self.silent = ""

    def _take(self, page: Page) -> None:
        for fields in page.entries:
            try:
                self._take_entry(Entry.of(fields))
            except ValueError as error:
                self._is_bad(str(error))
        if page.entries:
            at = min(int(page.upto.partition("-")[0]), LATEST)
            self._suppressing.moves.append(Heard(PLACE, at))
            self._after = page.upto
            self._is_missing()

    def _take_entry(self, entry: Entry) -> None:
        if entry.key != self._key:
            if not self.others_key:
                _LOG.error(
                    "host %s makes its suppression list with another suppression.key: nothing of it is shared with this "
                    "host; wanted the same file on all hosts",
                    entry.host,
                )
            self.others_key = entry.host
            return
        change = self.hearing.take(entry)
        if entry.origin in self.hearing.missed:
            self._missed_of.add(entry.host)
        self._suppressing.moves.append(Heard(f"{HEARD}{entry.origin}", self.hearing.heard[entry.origin]))
        if isinstance(change, Erase):
            self._suppressing.moves.append(change._replace(by_whom=f"host {entry.host}"))
            self._erases.set()
        elif change is not None:
            self._is_taken_off(change)
            self.followed += self._suppressing.follow(by_host(change, entry.host))

    def _is_bad(self, why: str) -> None:
        self.bad += 1
        if self.bad == 1:
            _LOG.warning("the fleet's suppression list has what we cannot read, and do not follow: %s", why)

    async def _settle(self) -> None:
        """Drop of what we told what is read back, after a while."""
        while True:
            await asyncio.sleep(SETTLED_EVERY)
            upto = self.hearing.heard.get(self._outbox.origin, 0)
            last = await self._in_store(self._outbox.last)
            if last - max(upto, self._dropped_upto) > OUTBOX_MOST:
                self._dropped_upto = last - OUTBOX_MOST
                bounds = {"upto": self._dropped_upto, "heard": upto}
                self._is_dropped(await self._in_store(lambda: self._outbox.drop_oldest(**bounds)))  # noqa: B023  # as below
            self.waiting = last - max(upto, self._dropped_upto)
            if upto > self._read_back and await self._suppression.stored():
                before = time.time() - KEPT
                await self._in_store(lambda: self._outbox.read_back(upto, drop_before=before))  # noqa: B023  # awaited here
                self._read_back = upto

    def _is_dropped(self, rows: Sequence[Row]) -> None:
        if rows and not self.dropped:
            _LOG.error(
                "more than %d changes of the suppression list wait for the fleet's store: the oldest are dropped, and other "
                "hosts have to take a copy of this one's list",
                OUTBOX_MOST,
            )
        self.dropped += len(rows)
        for change in _changes(rows):
            self.hearing.untold(change)

    # What was missed.

    def _is_missing(self) -> None:
        if self.hearing.missed and not self._suppression.opened.heard.get(COPY):
            _LOG.warning("changes of the fleet's suppression list were missed: a copy of another host's list is taken")
            self._note(1)
            self._lacks.set()

    def _note(self, missing: int) -> None:
        """Have it known also after a restart."""
        self._suppression.opened.heard[COPY] = missing
        self._suppressing.moves.append(Heard(COPY, missing))

    async def _copy(self) -> None:
        """Take what others have and we lack. Who was taken off meanwhile stays: that is for people to say."""
        while True:
            await self._lacks.wait()
            self._lacks.clear()
            if self.commands is None or not self.hearing.missed:
                continue
            copied = False
            try:
                copied = await self._copied_from_all(self.commands)
            finally:
                if not copied:
                    asyncio.get_running_loop().call_later(COPY_AGAIN, self._lacks.set)

    async def _copied_from_all(self, commands: Asking) -> bool:
        """Copy from each host whose changes were missed, or from as many others; whether that was done."""
        missed, of = set(self.hearing.missed), set(self._missed_of)
        # Who made a change has it; another host may have missed it, too, and not know that yet.
        others = sorted(commands.others(), key=lambda name: name not in of)
        wanted = max(1, len(of.intersection(others)))
        for other in others:
            if wanted and await self._copied(commands, other):
                wanted -= 1
        if wanted:
            return False
        self.hearing.missed -= missed
        self._missed_of -= of
        self._note(int(bool(self.hearing.missed)))
        return True

    async def _copied(self, commands: Asking, other: str) -> bool:
        """Take one host's list; whether all of it was taken."""
        after, pace = 0, Pace()
        while True:
            asked = time.perf_counter()
            request = {"command": "suppress-copy", "do": "page", "key": self._key, "after": after}
            told = await commands.tell(request, other, asks=True)
            answer = told.answers.get(other, {"ok": False, "error": told.unheard.get(other, "no answer")})
            if not answer["ok"]:
                _LOG.warning("no copy of the suppression list of host %s: %s", other, answer["error"])
                return False
            entries = answer.get("entries")
            if entries == []:
                break
            answered = time.perf_counter() - asked
            rows, upto, pace = await self._read_copied(entries if isinstance(entries, list) else [], pace)
            if upto <= after:
                _LOG.warning("no copy of the suppression list of host %s: it does not say where to go on", other)
                return False
            pace = await self._lack(rows, other, pace)
            after, paused = upto, time.perf_counter()
            await asyncio.sleep(pace.pause)
            pace = pace.went(late=time.perf_counter() - paused - pace.pause, answered=answered)
        _LOG.info("a copy of the suppression list of host %s was taken: %d entries were new here", other, self.copied)
        return True

    async def _read_copied(self, entries: Sequence[Any], pace: Pace) -> tuple[list[Add], int, Pace]:
        """Give what can be read of a part of a list, and where it ends; 0 where it does not say."""
        rows: list[Add] = []
        places = [0]

        def read(entry: Any) -> None:
            try:
                places.append(read_place(entry))
                rows.append(read_copied(entry))
            except ValueError as error:
                self._is_bad(str(error))

        pace = await _each(entries, read, pace)
        return rows, max(places), pace

    def _is_taken_off(self, change: Change) -> None:
        if self._taken_off is not None and isinstance(change, End):
            self._taken_off.add((change.who, change.listed))

    async def _lack(self, rows: Sequence[Add], other: str, pace: Pace) -> Pace:
        """Add what is not here, and was not taken off here since it was made there."""
        taken_off = self._taken_off = set()
        try:
            await self._suppression.stored()
            ended = await self._in_store(lambda: self._suppression.ended([row.who for row in rows]))

            def add(row: Add) -> None:
                named = (row.who, row.listed)
                if named not in taken_off and ended.get(named, 0.0) < row.since:
                    self.copied += self._suppressing.follow(by_host(row, other))

            return await _each(rows, add, pace)
        finally:
            self._taken_off = None

    async def page(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give another host a part of our list. Raises ValueError."""
        if request.get("key") != self._key:
            raise ValueError("suppression.key is another one here: wanted the same file on all hosts")
        if self.hearing.missed:
            raise ValueError("this host has missed changes itself")
        asked = {"do": "list", "after": int(request.get("after", 0)), "limit": COPIED_AT_ONCE}
        return await self._suppression.answer(asked)

    # Erasing.

    async def _erase(self) -> None:
        """Erase here whom others erased; the outside process first, for what it has for core comes to core then."""
        while True:
            await self._erases.wait()
            self._erases.clear()
            await self._suppression.stored()
            for erasure in await self._in_store(self._outbox.erasures):
                await self._erase_one(erasure)

    async def _erase_one(self, erasure: Erasure) -> None:
        try:
            await self._erase_outside(erasure.address)
        except (CoreUnreachable, CoreRefused) as error:
            _LOG.warning("a person whom %s erased is not erased here yet: %s", erasure.by_whom, error)
            asyncio.get_running_loop().call_later(ERASE_AGAIN, self._erases.set)
            return
        await self._suppression.erase(erasure.address, forget=erasure.forget, by_whom=erasure.by_whom)
        await self._in_store(lambda: self._outbox.erased(erasure))

    async def _in_store(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


async def _each(entries: Sequence[T], do: Callable[[T], None], pace: Pace) -> Pace:
    """Do it to each, and let others have the loop between two slices; the pace after that."""
    done = 0
    while done < len(entries):
        await asyncio.sleep(0)
        some, began = entries[done : done + pace.at_once], time.perf_counter()
        for entry in some:
            do(entry)
        done, pace = done + len(some), pace.held(len(some), time.perf_counter() - began)
    await asyncio.sleep(0)
    return pace


def _changes(rows: Sequence[Row]) -> Iterator[Change]:
    """Give what can be read of what we told: others follow no more of it."""
    for row in rows:
        with contextlib.suppress(ValueError):
            yield read_change(row.change)

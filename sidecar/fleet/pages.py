"""One page for the fleet: what several hosts see is told to people once, by whichever host comes first.

Every host follows every incident that it sees, in copies of its own. With the store of the fleet away each goes by its copy,
and so speaks for itself: two messages are better than none.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from parsers.feeds.dnsbl import Severity
from policies.fleet.page import CLAIM, Mine, Page, Told, Turn, Way, attend, look, merged, of_fleet, said
from policies.fleet.terms import GRACE
from policies.incidents import DAY, Incident
from policies.note import Note, NoteKind
from sidecar.channels import ANSWER_SECONDS, CONNECT_SECONDS, Channel
from sidecar.database import StoreUnavailable
from sidecar.fleet import page_names
from sidecar.fleet.page_names import PAGE, TRIES, PageNames
from sidecar.fleet.redis_store import Read, StoreSilent, Swap, goes_on
from sidecar.incident_store import IncidentStore, Posted
from sidecar.outbox import TRY_BROKEN_EVERY
from sidecar.threads import in_thread

_LOG = logging.getLogger("sidecar.fleet")

EVERY: Final = 2.0
"""Seconds between two looks at the store while anything is open ..."""
IDLE: Final = 5.0
"""... and otherwise."""
ALONE_AFTER: Final = 15.0
"""Seconds of silence of the store after which this host goes by its own copies."""
PASS_ON: Final = 60.0
"""Seconds without success after which a host leaves it to another that sees the same."""
_SEND: Final = CONNECT_SECONDS + ANSWER_SECONDS + 5.0
"""Seconds that one sending takes at most."""
_BEFORE: Final = 0.001
"""Seconds by which an incident is seen before it is taken on."""


class Store(page_names.Store, Protocol):
    """What is wanted of `RedisStore`."""

    async def close(self) -> None: ...


class Desk(Protocol):
    """What this host knows of its incidents. Any thread may call."""

    def incidents(self) -> Sequence[Incident]: ...

    def page_note(self, number: int, kind: NoteKind) -> Note | None:
        """Give what there is to say of an incident; None where it is not known any more."""

    def follow(self, number: int, *, closed: bool, who: str) -> None:
        """Somebody on another host took an incident on, or closed it. Raises ValueError where it is over."""

    def happened(self, number: int, what: str) -> None:
        """Write it in the history of an incident."""

    def wake_outbox(self) -> None: ...


class Saying(NamedTuple):
    """What this host has begun to say."""

    row: int
    token: int
    ends: float
    """By our steady clock: after that another may."""
    began: float
    scope: int


class Begun(NamedTuple):
    """What is ours to say of a page, and until when."""

    key: str
    turn: Turn
    ends: float


class SharedPages:
    def __init__(
        self,
        host: str,
        store: Store,
        rows: IncidentStore,
        channels: Sequence[Channel],
        *,
        steady: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`steady`: a clock that nobody sets. Raises StoreError."""
        self.host = host
        self.silent = "not asked yet"
        """Why the store does not answer; "" while it does."""
        self.bad = 0
        """Texts that could not be read."""
        self._store = store
        self._rows = rows
        self._channels = {each.name: each for each in channels if not each.kind.repeat_every}
        self._steady = steady
        self._clock = clock
        self._lock = threading.Lock()
        """Held while what follows is read or changed: the outbox asks from its threads."""
        self._pages = {key: page for key, text in rows.pages().items() if (page := self._readable(text)) is not None}
        self._saying: dict[tuple[str, str], Saying] = {}
        """By page and channel."""
        self._not_before: dict[tuple[str, str], float] = {}
        """By our steady clock: we tried, and failed."""
        self._passed_on: set[tuple[str, str]] = set()
        self._heard: list[tuple[str, str]] = []
        """By page, what others told people."""
        self._wrote = {key: page.text() for key, page in self._pages.items()}
        self._names = PageNames(store, rows, steady=steady, unread=self._is_bad)
        self._server, self._server_since = "", 0.0
        self._at, self._at_steady = clock(), steady()
        self._silent_since: float | None = None
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def speaks_for(self, incident: Incident, channel: str) -> bool:
        """Whether the fleet tells it once, and not each host for itself."""
        return channel in self._channels and of_fleet(incident)

    async def run(self, desk: Desk) -> None:
        """Follow and speak until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while goes_on():
                self._wake.clear()
                wait = EVERY
                try:
                    wait = await self.round(desk)
                except StoreUnavailable as error:  # our own: what cannot be written down is not said
                    _LOG.warning("the fleet's pages wait for outside.db: %s", error)
                except Exception:  # noqa: BLE001  # an error of ours here must not end the rest of the outside process
                    _LOG.exception("the fleet's pages")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
        finally:
            await self._store.close()

    def happened(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def status(self) -> Mapping[str, Any]:
        return {"silent": self.silent, "pages": len(self._pages), "saying": len(self._saying), "bad": self.bad}

    def alone(self) -> bool:
        """Whether this host tells for itself, because the store has been silent for long."""
        return self._silent_since is not None and self._steady() - self._silent_since >= ALONE_AFTER

    # For the outbox.

    def may_send(self, posted: Posted) -> bool:
        if not posted.page or posted.note.instead_of:
            return True
        with self._lock:
            saying = self._saying.get((posted.page, posted.channel))
            return saying is not None and saying.row == posted.id and self._steady() + _SEND < saying.ends

    def has_heard(self, posted: Posted, channel: str) -> bool:
        with self._lock:
            page = self._pages.get(posted.page)
            return page is not None and page.open_for(channel) is posted.note.is_open

    # By hand.

    def by_hand(self, incident: Incident, *, closed: bool, who: str) -> list[str]:
        """Have all hosts know that it was taken on or closed here; those that see it, as far as is known."""
        key = self._names.by_itself(incident)  # what was done must not be entered at a page that it then leaves
        with self._lock:
            page = self._pages.get(key, Page())
            at, who = self._now(), f"host {self.host} ({who})"
            new = page.closed._replace(at=at, who=who)
            if closed:
                page = page._replace(closed=new)
            else:  # the store may not know yet that we see it, and what is done before anybody does is of a trouble before
                mine = Mine(incident.id, incident.severity, len(incident.about))
                page = look(page, self.host, mine, at=at - _BEFORE)._replace(acked=new)
            self._pages[key] = page
            seen = sorted({*page.seen(at=at), self.host})
        self.happened()
        return seen

    # A round.

    async def round(self, desk: Desk) -> float:
        """Settle what was sent, look at all pages, and say what is ours to say; seconds until the next one.

        Raises StoreUnavailable.
        """
        incidents = await in_thread(desk.incidents)
        ours = [each for each in incidents if each.live and of_fleet(each)]
        await in_thread(self._settle)
        ways = await in_thread(self._ways)
        try:
            await self._names.find(ours, server=self._server)
            mine = self._names.by_page(ours)
            turns = await self._attend(self._keys(mine), mine, ways)
        except StoreSilent as error:
            turns = self._by_ourselves(str(error), ours, ways)
        mine = self._names.by_page(ours)
        latest = {self._names.page_of(each): each for each in incidents} | mine
        await in_thread(lambda: self._keep_names(desk, incidents))
        await in_thread(lambda: self._act(desk, latest, ours, turns))
        return EVERY if self._keys(mine) else IDLE

    def _keys(self, mine: Mapping[str, Incident]) -> list[str]:
        with self._lock:
            return sorted({*mine, *self._pages})

    def _now(self) -> float:
        """By the store's clock, as well as that is known."""
        return self._at + self._steady() - self._at_steady

    def _settle(self) -> None:
        """See what became of what we had to say. Raises StoreUnavailable."""
        done = []
        for posted in self._rows.unsettled():
            place = (posted.page, posted.channel)
            with self._lock:
                saying = self._saying.get(place)
                ours = saying is not None and saying.row == posted.id
                if posted.state in {"sent", "unsure"}:
                    self._passed_on.discard(place)
                    self._not_before.pop(place, None)
                    self._is_said(posted, saying.scope if saying is not None and ours else 0)
                elif posted.state == "failed":
                    self._not_before[place] = self._steady() + TRY_BROKEN_EVERY
                elif posted.state == "queued":
                    self._give_up(posted, saying if ours else None)
                    continue
                elif posted.state == "sending":
                    continue
                if ours:
                    del self._saying[place]
                done.append(posted.id)
        if done:
            self._keep()  # first: what people were told must not be forgotten
            self._rows.settled(done)

    def _is_said(self, posted: Posted, scope: int) -> None:
        page = self._pages.get(posted.page, Page())
        thread = self._rows.thread(posted.channel, posted.incident) if posted.incident else ""
        told = Told(
            max(self._now(), page.told.get(posted.channel, Told(0.0)).at),
            str(posted.note.severity),
            scope=scope,
            thread=thread,
            by=self.host,
        )
        self._pages[posted.page] = said(page, posted.channel, posted.kind, told)

    def _give_up(self, posted: Posted, saying: Saying | None) -> None:
        """What waits is not ours to say any more, or another host may have more luck."""
        place, now = (posted.page, posted.channel), self._steady()
        if posted.note.instead_of:
            return
        if saying is not None and now < saying.ends:
            others = self._pages[posted.page].others_since(self.host, at=self._now())
            if now - saying.began < PASS_ON or others is None or place in self._passed_on:
                return
            self._passed_on.add(place)
            self._not_before[place] = now + 2 * PASS_ON
        if saying is not None:
            del self._saying[place]
        self._rows.withdraw(posted.id, why="left to another host of the fleet", now=self._clock())

    def _ways(self) -> list[Way]:
        """Our channels, and whether they work."""
        found = []
        for channel in self._channels.values():
            state = self._rows.channel(channel.name)
            able = not state.broken_since or self._clock() - state.tried_at >= TRY_BROKEN_EVERY
            found.append(Way(channel.name, channel.severities, channel.kind.told, able))
        return found

    async def _attend(self, keys: Sequence[str], mine: Mapping[str, Incident], ways: Sequence[Way]) -> list[Begun]:
        """Raises StoreSilent."""
        sent = self._steady()
        life, *reads = await self._store.read(["pages", *(PAGE + key for key in keys)])
        self._is_answered(life, sent)
        waiting = dict(zip(keys, reads, strict=True))
        turns: list[Begun] = []
        for _ in range(TRIES):
            made = {key: self._made(key, read, mine.get(key), ways, at=read.at) for key, read in waiting.items()}
            swaps = {key: Swap(PAGE + key, waiting[key], page.text()) for key, (page, _) in made.items()}
            unchanged = [key for key, swap in swaps.items() if swap.text == swap.read.text]
            changed = [key for key in swaps if key not in unchanged]
            answers: list[Read | None] = []
            again = self._steady()
            if changed:
                answers = await self._store.swap([swaps[key] for key in changed])
            done = [*unchanged, *(key for key, answer in zip(changed, answers, strict=True) if answer is None)]
            for key in done:
                turns += self._took(key, *made[key], since=sent)
            waiting = {key: answer for key, answer in zip(changed, answers, strict=True) if answer is not None}
            if not waiting:
                break
            sent = again
        return turns

    def _is_answered(self, life: Read, sent: float) -> None:
        if life.server != self._server:
            self._server, self._server_since = life.server, sent
        self._at, self._at_steady = life.at, self._steady()
        if self.silent:
            _LOG.info("the fleet is told once of what several hosts see")
        self.silent, self._silent_since = "", None

    def _by_ourselves(self, why: str, ours: Sequence[Incident], ways: Sequence[Way]) -> list[Begun]:
        """Go by our copies where the store has been silent for long enough."""
        now = self._steady()
        if not self.silent:
            _LOG.warning("the fleet's store is silent: %s; each host tells for itself", why)
        self.silent = why
        self._silent_since = now if self._silent_since is None else self._silent_since
        if not self.alone():
            return []
        for each in ours:
            self._names.by_itself(each)
        mine = self._names.by_page(ours)
        turns: list[Begun] = []
        for key in self._keys(mine):
            text = self._pages[key].text() if key in self._pages else ""
            page, begun = self._made(key, Read("", self._now(), text), mine.get(key), ways, at=self._now(), alone=True)
            turns += self._took(key, page, begun, since=now)
        return turns

    def _made(
        self,
        key: str,
        read: Read,
        incident: Incident | None,
        ways: Sequence[Way],
        *,
        at: float,
        alone: bool = False,
    ) -> tuple[Page, list[Turn]]:
        """What becomes of a page with what we know and see."""
        with self._lock:
            copy = self._pages.get(key, Page())
            there = self._readable(read.text) or Page()
            page = merged(there, copy.without_ahead(there, at)).by_clock(at)
            if incident is not None and incident.opened_at > page.opened_at:
                page = page._replace(title=incident.title, category=incident.category, opened_at=incident.opened_at)
            own = None
            if incident is not None:
                own = Mine(incident.id, incident.severity, len(incident.about))
            elif not page.sights and not page.told:
                return page, []
            now = self._steady()
            others = look(page, self.host, own, at=at).others_since(self.host, at=at)
            holding = {channel: each.token for (of, channel), each in self._saying.items() if of == key}
            able = [
                way._replace(
                    able=self._not_before.get((key, way.name), 0.0) <= now
                    and (way.able or others is None or at - others >= PASS_ON)
                )
                for way in ways
            ]
            return attend(
                page,
                self.host,
                own,
                able,
                holding,
                at=at,
                may_speak=alone or now - self._server_since >= GRACE,
            )

    def _took(self, key: str, page: Page, turns: Sequence[Turn], *, since: float) -> list[Begun]:
        """The store has it so: what we may say lasts from when we asked."""
        with self._lock:
            before = self._pages.get(key, Page())
            for channel, told in page.told.items():
                if told.by not in {"", self.host} and told != before.told.get(channel):
                    self._heard.append((key, f"told over {channel} by host {told.by}"))
                    self._passed_on.discard((key, channel))
            self._pages[key] = page
            begun = {turn.channel for turn in turns}
            for (of, channel), saying in list(self._saying.items()):
                claim = page.claims.get(channel)
                if of != key or channel in begun:
                    continue
                if claim is None or (claim.host, claim.token) != (self.host, saying.token):
                    del self._saying[of, channel]
                else:
                    left = min(CLAIM, claim.until - self._now())
                    self._saying[of, channel] = saying._replace(ends=since + left)
        return [Begun(key, turn, since + CLAIM) for turn in turns]

    def _act(
        self,
        desk: Desk,
        latest: Mapping[str, Incident],
        ours: Sequence[Incident],
        turns: Sequence[Begun],
    ) -> None:
        """Write down our copies, do as others did by hand, and hand to the outbox what is ours to say."""
        self._keep()
        for incident in ours:
            page = self._pages.get(self._names.page_of(incident))
            if page is not None:  # not where the store has not answered since it began
                self._follow(desk, incident, page)
        heard, self._heard = self._heard, []
        for key, what in heard:
            if key in latest:
                desk.happened(latest[key].id, what)
        for begun in turns:
            self._say(desk, latest.get(begun.key), begun)
        if turns:
            desk.wake_outbox()

    def _keep_names(self, desk: Desk, incidents: Sequence[Incident]) -> None:
        """Raises StoreUnavailable."""
        keys = {each.id: each.dedup_key for each in incidents}
        for number, page in self._names.keep(incidents).items():
            if page != keys[number]:
                desk.happened(number, f"people are told of it as {page}, by which other hosts know the same trouble")

    def _follow(self, desk: Desk, incident: Incident, page: Page) -> None:
        sight = page.sights.get(self.host)
        if sight is None or not sight.severity:  # the page may be of before, until the store answers
            return
        began = min((each.since for each in page.seen(at=self._now()).values()), default=sight.since)
        with contextlib.suppress(ValueError):  # it was over before
            if page.closed.at > sight.since:
                desk.follow(incident.id, closed=True, who=page.closed.who)
            elif page.is_acked and page.acked.at > began and not incident.acked_by:  # also who sees it only since
                desk.follow(incident.id, closed=False, who=page.acked.who)

    def _say(self, desk: Desk, incident: Incident | None, begun: Begun) -> None:
        key, turn, ends = begun
        page, at = self._pages[key], self._now()
        note = desk.page_note(incident.id, turn.kind) if incident is not None else None
        if note is None:
            severity = page.told[turn.channel].severity or Severity.WARNING
            note = Note(
                turn.kind, 0, key, Severity(severity), page.title, page.category, self._clock(), page.opened_at, page.opened_at
            )  # fmt: skip
        told = page.told.get(turn.channel)
        closed = turn.kind is NoteKind.RESOLVED and told is not None and page.closed.at > told.at
        by_whom = f"closed by {page.closed.who}" if closed else ""
        if turn.kind is NoteKind.ACKED:
            by_whom = f"acknowledged by {page.acked.who}"
        note = note._replace(dedup_key=key, hosts=page.hosts(at=at), by_whom=by_whom)
        if told is not None and told.thread and note.incident:
            self._rows.put_thread(turn.channel, note.incident, told.thread)
        scope = len(incident.about) if incident is not None else 0
        with self._lock:  # the outbox must not meet the note before it can know that it may send it
            row = self._rows.post_page(note, turn.channel, page=key, now=self._clock())
            self._saying[key, turn.channel] = Saying(row, turn.token, ends, self._steady(), scope)

    def _keep(self) -> None:
        """Write down what changed of our copies, and forget what is long over. Raises StoreUnavailable."""
        with self._lock:
            at = self._now()
            gone = [key for key, page in self._pages.items() if _is_over(page, self.host, at=at)]
            for key in gone:
                del self._pages[key]
            texts = {key: page.text() for key, page in self._pages.items()}
        changed = {key: text for key, text in texts.items() if self._wrote.get(key) != text}
        if changed or gone:
            self._rows.put_pages(changed, gone)
        self._wrote = texts

    def _readable(self, text: str) -> Page | None:
        try:
            return Page.read(text) if text else None
        except ValueError as error:
            self._is_bad(error)
            return None

    def _is_bad(self, error: ValueError) -> None:
        self.bad += 1
        if self.bad == 1:
            _LOG.warning("the fleet's store has what we cannot read, and is told anew: %s", error)


def _is_over(page: Page, host: str, *, at: float) -> bool:
    """Whether nothing of it matters any more: a day without anybody who sees it or believes that it goes on."""
    mine = page.sights.get(host)
    seen = mine is not None and bool(mine.severity)
    last = max([each.at for each in page.told.values()] + [each.at for each in page.sights.values()], default=at)
    return not seen and not any(map(page.open_for, page.told)) and at - last > DAY

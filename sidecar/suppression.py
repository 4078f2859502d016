"""Suppression in core: its parts, what they do as time passes, and what the control socket asks of them.

Knows the order of things: a change is in memory at once, and in the store with the next commit; only what is stored is
said to be done. It has no rule of its own about who is suppressed.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from parsers.address import domain_of
from policies.classify import Said
from policies.engine import Engine
from policies.refusals import Refusals
from policies.steering import InArm, Steering
from policies.suppression import (
    GLOBAL,
    Add,
    End,
    Engaged,
    Erase,
    Heard,
    Listed,
    Outcome,
    Reason,
    Rules,
    Suppressing,
    read_list,
    without,
)
from sidecar import canary_complaints, erasure, statements
from sidecar.config import Config, SuppressionStorage, WishesList
from sidecar.database import Database, StoreError
from sidecar.ledger import Ledger
from sidecar.rules import organizational_domain
from sidecar.store import Store
from sidecar.suppression_book import Shelf, SuppressionBook, read_key
from sidecar.suppression_store import Entry, SuppressionTables

_LOG = logging.getLogger("sidecar.suppression")

T = TypeVar("T")
Request = Mapping[str, Any]
Answer = dict[str, Any]

EVERY = 5.0
SILENCE_EVERY = 6 * 3_600.0
_AT_ONCE = 1_000
_ADDRESS_MAX = 320
"""RFC 5321, 4.5.3.1: 64 and 255 octets, and the at sign."""
_LEFT_ALONE = ("hold",)
"""What a message on hold needs to be let go; it goes with the message."""


class Opened(NamedTuple):
    """What core is built with."""

    book: SuppressionBook
    shelf: Shelf
    suppressing: Suppressing
    refusals: Refusals
    heard: dict[str, int]


def open_suppression(config: Config, store: Store, thread: ThreadPoolExecutor) -> Opened | None:
    """Read the lists, in the store's thread. None, and said, where that cannot be: mail goes on as without lists."""
    if not config.suppression.enabled:
        return None
    ours = config.suppression
    try:
        book = SuppressionBook(read_key(config.suppression_key))
        shelf = Shelf(config.suppression_index, config.core_database, store.suppression, thread)
        probations, counts, heard = shelf.open(book)
    except StoreError as error:
        _LOG.error("nobody is suppressed: %s", error)
        return None
    rules = Rules(
        probation=ours.provisional_minutes * 60.0 / config.subqueues.scale,
        outage_recipients=ours.outage_recipients,
        outage_share=ours.outage_share,
        outage_within=Rules().outage_within / config.subqueues.scale,
    )
    hashed = ours.storage is SuppressionStorage.HASH
    suppressing = Suppressing(rules, book, hashed=hashed, engagement=ours.inactive_days > 0)
    for probation in probations:
        suppressing.restore_probation(*probation)
    for counted in counts:
        suppressing.restore_count(counted)
    refusals = Refusals(book, organizational_domain, discard=ours.discard, transactional=ours.transactional)
    return Opened(book, shelf, suppressing, refusals, heard)


class Suppression:
    """What goes on beside answering smtpd."""

    def __init__(
        self,
        config: Config,
        opened: Opened,
        store: Store,
        *,
        thread: ThreadPoolExecutor,
        ledger: Ledger,
        engine: Engine,
        steering: Steering | None = None,
    ) -> None:
        """`steering` hears of complaints about a canary's mail."""
        self.opened = opened
        self._steering = steering
        self._store = store
        self._config = config
        self._book = opened.book
        self._suppressing = opened.suppressing
        self._heard = opened.heard
        self._tables: SuppressionTables = store.suppression
        self._thread = thread
        self._ledger = ledger
        self._engine = engine
        self._outages: set[str] = set()

    async def run(self) -> None:
        """Let entries end when their time is over, keep the file of digests fresh, look for those who are silent."""
        looked, said = -SILENCE_EVERY, ""
        while True:
            try:
                self._say_outages()
                await self._expire(now=time.time())
                await self.opened.shelf.maintain(self._book)
                if self._config.suppression.inactive_days and time.monotonic() - looked > SILENCE_EVERY:
                    looked = time.monotonic()
                    await self._suppress_silent(now=time.time())
                said = ""
            except Exception as error:  # noqa: BLE001  # core lives on without it, and the next time it may be better
                if str(error) != said:  # the same is met each few seconds
                    _LOG.warning("suppression: %s: %s", type(error).__name__, error)
                said = str(error)
            await asyncio.sleep(EVERY)

    def _say_outages(self) -> None:
        """Said when it begins and when it is over."""
        now, before = set(self._suppressing.outages), self._outages
        for provider in sorted(now - before):
            _LOG.warning("%s refuses so many recipients for good that it is an outage: none is suppressed", provider)
        for provider in sorted(before - now):
            _LOG.info("%s: no outage any more; who bounces hard is suppressed again", provider)
        self._outages = now

    async def _expire(self, *, now: float) -> None:
        while over := await self._in_store(lambda: self._tables.ended_by_now(now, _AT_ONCE)):
            # Not told: each host knows when the time of an entry is over.
            ended = [
                self._suppressing.follow(End(who, listed, now, "engine", "its time is over")) for who, listed in over
            ]
            if not any(ended) or not await self._ledger.commit():
                return

    async def _suppress_silent(self, *, now: float) -> None:
        ours = self._config.suppression
        before = now - ours.inactive_days * 86_400.0
        after: tuple[bytes, str] | None = (b"", "")
        while after is not None:
            page = functools.partial(
                self._tables.silent, deliveries=ours.inactive_deliveries, before=before, after=after, limit=_AT_ONCE
            )
            silent = await self._in_store(page)
            for each in silent:
                said = f"{each.deliveries} mails of {each.domain} since {_day(each.since)}, none opened or clicked"
                listed = Listed(f"domain:{each.domain}", Reason.INACTIVE)
                self._suppressing.add(Add(each.who, "", listed, said, now, "engagement"))
            await self._ledger.commit()
            after = (silent[-1].who, silent[-1].domain) if len(silent) == _AT_ONCE else None

    async def _in_store(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def ended(self, whos: Sequence[bytes]) -> dict[tuple[bytes, Listed], float]:
        """When entries of these were last taken off; in the thread that all SQL runs in."""
        found: dict[tuple[bytes, Listed], float] = {}
        for who in whos:
            for entry in self._tables.of(who):
                if entry.ended_at:
                    found[who, Listed(entry.list, Reason(entry.reason))] = entry.ended_at
        return found

    # By hand, and by the outside process.

    async def answer(self, request: Request) -> Answer:
        """The control command "suppress". Raises ValueError for a request that makes no sense."""
        do = _DO.get(str(request.get("do", "")))
        if do is None:
            raise ValueError(f"do={request.get('do')!r}: wanted one of {', '.join(_DO)}")
        return await do(self, request)

    async def _add(self, request: Request) -> Answer:
        """Rows of a person or a file: {"rows": [{"address", "list", "reason", "evidence", "since", "until"}], "who"}."""
        rows, who, now = request.get("rows"), _name(request), time.time()
        if not isinstance(rows, list) or len(rows) > _AT_ONCE:
            raise ValueError(f'wanted {{"rows": [...]}}, at most {_AT_ONCE} of them')
        added, refused = 0, []
        for number, row in enumerate(rows):
            try:
                added += self._suppressing.add(self._row(row, by_whom=who, now=now))
            except ValueError as error:
                refused.append({"row": number, "why": str(error)})
        stored = await self._ledger.commit()
        return {"added": added, "known": len(rows) - added - len(refused), "refused": refused, "stored": stored}

    def _row(self, row: Any, *, by_whom: str, now: float) -> Add:
        """Raises ValueError."""
        if not isinstance(row, Mapping):
            raise ValueError("a row is an object with an address")  # noqa: TRY004  # the control socket's word
        address, digest = str(row.get("address", "")).strip(), str(row.get("digest", ""))
        who = _read_digest(digest) if digest and not address else self._book.digest(read_address(address))
        listed = Listed(read_list(str(row.get("list") or GLOBAL)), _reason(row.get("reason") or Reason.BY_HAND))
        since, until = _number(row, "since") or now, _number(row, "until")
        return Add(who, address, listed, _text(row.get("evidence")), since, by_whom, "", until)

    async def _remove(self, request: Request) -> Answer:
        address = read_address(str(request.get("address", "")))
        wanted = read_list(str(request["list"])) if request.get("list") else ""
        who, now, removed = self._book.digest(address), time.time(), []
        for listed in self._book.listed(who):
            if wanted in {"", listed.list}:
                self._suppressing.end(End(who, listed, now, _name(request), _text(request.get("why")) or "by hand"))
                removed.append({"list": listed.list, "reason": str(listed.reason)})
        self._suppressing.forget(who)
        stored = await self._ledger.commit()
        return {"address": address, "removed": removed, "stored": stored}

    async def _check(self, request: Request) -> Answer:
        address = read_address(str(request.get("address", "")))
        await self._ledger.commit()  # what is decided and not yet written has no evidence to show
        who = self._book.digest(address)
        entries = await self._in_store(lambda: self._tables.of(who))
        return {
            "address": address,
            "suppressed": [listed._asdict() for listed in self._book.listed(who)],
            "entries": [entry._asdict() for entry in entries],
        }

    async def _list(self, request: Request) -> Answer:
        limit = min(int(request.get("limit", 100)), _AT_ONCE)
        wanted = read_list(str(request["list"])) if request.get("list") else ""
        reason = _reason(request["reason"]) if request.get("reason") else ""
        entries: Sequence[Entry] = await self._in_store(
            lambda: self._tables.entries(
                after=int(request.get("after", 0)),
                limit=limit,
                listed=wanted,
                reason=reason,
                ended=bool(request.get("ended")),
            )
        )
        return {"entries": [entry._asdict() for entry in entries]}

    async def _segments(self, _: Request) -> Answer:
        rows = await self._in_store(lambda: self._tables.segments(now=time.time()))
        return {"segments": [{"domain": domain, "engaged": segment, "people": n} for domain, segment, n in rows]}

    async def _take(self, request: Request) -> Answer:
        """Events of another process, each once: {"source", "events": [{"number", "kind", "recipient", ...}]}."""
        source, events = str(request.get("source", "")), request.get("events")
        if not source or not isinstance(events, list):
            raise ValueError('wanted {"source": ..., "events": [...]}')
        heard = self._heard.get(source, 0)
        of_canaries = await self._of_canaries([event for event in events if int(event["number"]) > heard])
        heard = self._heard.get(source, 0)
        for event in events:
            number = int(event["number"])
            if number > heard:
                if self._steering is not None and number in of_canaries:
                    self._steering.complained(of_canaries[number])
                try:
                    self._event(event)
                except (TypeError, ValueError) as error:  # said again it would be the same: the others must not wait
                    _LOG.error("%s: event %d is of no use: %s", source, number, error)
                heard = number
        if heard > self._heard.get(source, 0):
            self._heard[source] = heard
            self._suppressing.moves.append(Heard(source, heard))
        if not await self._ledger.commit():
            raise ValueError("taken in, but not stored yet: ask again")
        return {"upto": heard}

    async def _of_canaries(self, events: Sequence[Mapping[str, Any]]) -> Mapping[int, InArm]:
        """Find which complaints are about a canary or its control. What is not stored yet is stored first."""
        complaints = [event for event in events if event.get("kind") == Reason.COMPLAINT]
        if not complaints or self._steering is None or not self._steering.canaries:
            return {}
        await self._ledger.commit()
        return await self._in_store(lambda: canary_complaints.find(self._store.database, complaints))

    def _event(self, event: Mapping[str, Any]) -> None:
        kind, recipient, now = str(event.get("kind")), str(event.get("recipient", "")), time.time()
        domain = organizational_domain(str(event.get("domain", "")).lower())
        at, evidence = float(event.get("at") or now), _text(event.get("evidence"))
        if not recipient:  # a complaint whose reporter does not say by whom: it is of use to a canary alone
            return
        who = self._book.digest(recipient)
        if kind in {"open", "click"}:
            if domain and self._config.suppression.inactive_days:
                self._suppressing.engaged(Engaged(who, domain, at))
        elif kind in {Reason.COMPLAINT, Reason.UNSUBSCRIBE}:
            everywhere = self._config.suppression.complaints is WishesList.GLOBAL or not domain
            listed = Listed(GLOBAL if everywhere else f"domain:{domain}", Reason(kind))
            self._suppressing.add(Add(who, recipient, listed, evidence, at, str(event.get("by", "ingest"))))
        elif kind == "bounce":
            rules = self._engine.subqueues.rules  # a reload brings others
            verdict = rules.classify(Said(str(event.get("reply", "")), "", domain_of(recipient)))
            provider = str(event.get("provider") or rules.providers.of_domain(domain_of(recipient)) or "")
            outcome = Outcome(
                who, recipient, provider or domain_of(recipient), remote=True, verdict=verdict, line=evidence
            )
            self._suppressing.heard(outcome, now=self._suppressing.now or now)

    async def _erase(self, request: Request) -> Answer:
        """Take a person out of the store. Their place on a list stays, as a digest, unless `forget` is said."""
        address, forget = read_address(str(request.get("address", ""))), bool(request.get("forget"))
        who = self._book.digest(address)
        rows = await self.erase(address, forget=forget, by_whom=_name(request))
        self._suppressing.tell(Erase(who, address, forget, time.time(), _name(request)))
        await self._ledger.commit()
        return {"address": address, "rows": rows, "listed": [each._asdict() for each in self._book.listed(who)]}

    async def erase(self, address: str, *, forget: bool, by_whom: str) -> int:
        """Take a person out of core's store, on this host; how many rows. Raises ValueError where nothing was done."""
        who = self._book.digest(address)
        self._suppressing.forget(who)
        for sub in self._engine.subqueues.all():  # the line that opened it would be stored again with its next state
            sub.line = without(address, sub.line)
        if forget:
            for listed in self._book.listed(who):
                self._suppressing.follow(End(who, listed, time.time(), "erased", "erased"))
        if not await self._ledger.commit():
            raise ValueError("the store takes no writes now; nothing was erased")
        found = await asyncio.to_thread(self._find, address)
        rows = await self._in_store(lambda: self._tables.erase(address, who, found, forget=forget))
        said = f"one person, out of {rows} rows of core{' and off the lists' if forget else ''}"
        self._engine.telling.tell("erased", said, now=time.time(), by_whom=by_whom)
        await self._ledger.commit()
        return rows

    async def stored(self) -> bool:
        """Store what was changed up to now; whether it is."""
        return await self._ledger.commit()

    def _find(self, address: str) -> list[erasure.Found]:
        database = Database.open_read_only(self._config.core_database, statements.SCHEMA)
        try:
            return list(erasure.find(database.connection, address, without=_LEFT_ALONE))
        finally:
            database.close()


_DO = {
    "add": Suppression._add,  # noqa: SLF001  # the table of this class's own answers
    "remove": Suppression._remove,  # noqa: SLF001
    "check": Suppression._check,  # noqa: SLF001
    "list": Suppression._list,  # noqa: SLF001
    "segments": Suppression._segments,  # noqa: SLF001
    "take": Suppression._take,  # noqa: SLF001
    "erase": Suppression._erase,  # noqa: SLF001
}


def read_address(text: str) -> str:
    """Check an address that somebody wrote. Raises ValueError."""
    local, at, domain = text.rpartition("@")
    fine = at and local and domain and len(text) <= _ADDRESS_MAX and text.isprintable() and " " not in domain
    if not fine or ("@" in local and not local.startswith('"')):
        raise ValueError(f"{text[:80]!a}: no address; wanted one as user@example.com")
    return text


def _read_digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 16:
        raise ValueError(f"digest {text[:40]!a}: wanted 32 hexadecimal digits, as `suppress export` wrote them")
    return digest


def _reason(text: Any) -> Reason:
    if text not in list(Reason):
        raise ValueError(f"reason {str(text)[:40]!a}: wanted one of {', '.join(Reason)}")
    return Reason(text)


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name) or 0.0
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < 1e11:
        raise ValueError(f"{name} {str(value)[:40]!a}: wanted seconds since the epoch")
    return number


def _name(request: Request) -> str:
    return str(request.get("who") or "control socket")[:100]


def _text(value: Any) -> str:
    return str(value or "")[:2_000]


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))

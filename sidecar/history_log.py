"""History out of log files: the same sums as core keeps, made of whole logs at once, in a store that lives in memory.

Knows how parts that were read apart belong together: a message that began in one and goes on in the next. Only where
a cut falls between the two passes of a content filter, a second or so, the second pass is of no tenant.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import tzinfo
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from parsers.postfix import facts
from policies.classify import RuleSet
from policies.commands import Attempt, Change
from policies.rehearsal import OBSERVED, Rehearsal
from policies.rollup import Names, Rolled, join, roll
from policies.site import Settings
from policies.stream import NO_STREAM, Stream
from sidecar import bulk, rules, statements
from sidecar.bulk import Part, fold, parts
from sidecar.database import Database
from sidecar.history_store import HistoryStore
from sidecar.log_history import LogHistory

COUNTED: Final = OBSERVED | {facts.MessageIdentified, facts.MessageExpired, facts.ProcessEvent}
_PIECE: Final = 64 << 20
"""Bytes of a plain file that are read in one piece."""
_ROWS: Final = 5_000
"""Attempts that are summed up at once."""
_UNSURE: Final = 100_000
"""Attempts kept of a part until what was before it is known; further ones are counted as they are."""
_CARRIED: Final = 500_000
"""Messages under way that are carried from part to part."""

Place = tuple[str, str, str]
"""Host, instance, queue id."""


class Carried(NamedTuple):
    """A message that is under way at the end of a part, as far as that part knows it."""

    stream: Stream = NO_STREAM
    sender_domain: str = ""
    tried: bool = False

    def and_then(self, later: "Carried") -> "Carried":
        """Add what a later part knows of it."""
        stream = Stream(*map(_either, later.stream, self.stream))
        return Carried(stream, later.sender_domain or self.sender_domain, later.tried or self.tried)


def _either(one: str, other: str) -> str:
    return one or other


class Counted(NamedTuple):
    """What a part of a log comes to."""

    rolled: Rolled
    unsure: list[Attempt]
    """Of messages that began before the part, or of a recipient domain whose provider was not known there."""
    under_way: dict[Place, Carried]
    providers: dict[str, str]
    """Recipient domains and their providers, as the part's relays tell."""
    changes: list[Change]
    lines: int
    unknown: int
    first: float
    """0 where there was no line."""
    last: float


class LogReport(NamedTuple):
    """A log as a store in memory."""

    database: Database
    lines: int
    unknown: int
    first: float
    last: float


def read(
    paths: Sequence[Path],
    rule_set: RuleSet,
    settings: Settings,
    *,
    zone: tzinfo,
    year: int | None = None,
    syslog_names: Sequence[str] = (),
    told: Callable[[int, int], None] = lambda _done, _of: None,
) -> LogReport:
    """Sum up log files, in any order, plain ones by all processors. `told`: how many of how many parts are done.

    Raises ParseError.
    """
    order = paths if len(paths) < 2 else LogHistory(paths, zone=zone, year=year, syslog_names=syslog_names).paths
    pieces = max((path.stat().st_size // _PIECE + 1 for path in order if path.is_file()), default=1)
    some = parts(order, zone=zone, year=year, syslog_names=syslog_names, pieces=max(pieces, bulk.processors()))
    counts = fold(partial(count, rule_set=rule_set, settings=settings), some)
    return _joined(counts, len(some), told)


def count(part: Part, *, rule_set: RuleSet, settings: Settings) -> Counted:
    """Sum up a part of a log."""
    reader = part.reader(only=COUNTED)
    hosts: dict[str, Rehearsal] = {}
    names: defaultdict[int, Names] = defaultdict(Names)
    counted = Counted(Rolled.empty(), [], {}, {}, [], 0, 0, 0.0, 0.0)
    first, last = 0.0, 0.0
    waiting: list[Attempt] = []
    for fact in chain.from_iterable(map(reader.block_facts, part.blocks())):
        record = fact.record
        host = hosts.get(record.host)
        if host is None:
            host = hosts[record.host] = Rehearsal(
                rule_set, rules.organizational_domain, host=record.host, settings=settings
            )
        first, last = first or record.time, max(last, record.time)
        host.observe(fact)
        waiting += host.attempts()
        counted.changes.extend(change for change in host.changes() if change.kind in _TOLD)
        if len(waiting) >= _ROWS:
            _take(waiting, names, counted)
            waiting = []
    _take(waiting, names, counted)
    for name, host in hosts.items():
        counted.under_way.update(_under_way(name, host))
        counted.providers.update(host.engine.recipients.learned())
    unknown = sum(reader.unknown.values())
    return counted._replace(lines=reader.lines, unknown=unknown, first=first, last=last)


def _take(attempts: Iterable[Attempt], names: defaultdict[int, Names], counted: Counted) -> None:
    sure = []
    for attempt in attempts:
        unknown = attempt.first > 1 or (not attempt.provider and attempt.relay == "none")
        if unknown and len(counted.unsure) < _UNSURE:
            counted.unsure.append(attempt)
        else:
            sure.append(attempt if attempt.first != 2 else attempt._replace(first=1))
    _add(roll(sure, names), counted.rolled)


def _add(more: Rolled, rolled: Rolled) -> None:
    for place, sums in more.flows.items():
        known = rolled.flows.get(place)
        rolled.flows[place] = sums if known is None else [a + b for a, b in zip(known, sums, strict=True)]
    for value, sums in more.values.items():
        known = rolled.values.get(value)
        rolled.values[value] = sums if known is None else [a + b for a, b in zip(known, sums, strict=True)]
    for cell, number in more.refusals.items():
        rolled.refusals[cell] = rolled.refusals.get(cell, 0) + number


def _under_way(host: str, rehearsal: Rehearsal) -> Iterator[tuple[Place, Carried]]:
    for message in rehearsal.engine.messages:
        place = host, message.instance, message.queue_id
        yield place, Carried(message.stream, message.sender_domain, message.attempts > 0)


def _joined(counts: Iterable[Counted], number: int, told: Callable[[int, int], None]) -> LogReport:
    database = in_memory()
    history = HistoryStore(database)
    names: defaultdict[int, Names] = defaultdict(Names)
    carried: dict[Place, Carried] = {}
    providers: dict[str, str] = {}
    lines, unknown, first, last = 0, 0, 0.0, 0.0
    for done, counted in enumerate(counts, 1):
        providers.update(counted.providers)
        late = roll([_settled(attempt, carried, providers) for attempt in counted.unsure], defaultdict(Names))
        for place, under_way in counted.under_way.items():
            carried[place] = carried.pop(place, Carried()).and_then(under_way)
        while len(carried) > _CARRIED:
            del carried[next(iter(carried))]
        with database.transaction():
            history.write(join((counted.rolled, late), names))
            database.connection.executemany(
                statements.ADD_CHANGE, (change[:-1] for change in counted.changes)
            )  # less their ids
        lines, unknown = lines + counted.lines, unknown + counted.unknown
        first = min(filter(None, (first, counted.first)), default=0.0)
        last = max(last, counted.last)
        told(done, number)
    return LogReport(database, lines, unknown, first, last)


def _settled(attempt: Attempt, carried: dict[Place, Carried], providers: dict[str, str]) -> Attempt:
    """An attempt with what the parts before its own know."""
    if not attempt.provider and attempt.relay == "none":
        attempt = attempt._replace(provider=providers.get(attempt.recipient_domain, ""))
    if attempt.first < 2:
        return attempt
    place = attempt.host, attempt.instance, attempt.queue_id
    known = carried.get(place, Carried())
    first = 1 if attempt.first == 2 and not known.tried else 0
    own = Carried(Stream(attempt.tenant, attempt.campaign, attempt.segment), attempt.sender_domain, tried=True)
    joined = carried[place] = known.and_then(own)
    return attempt._replace(first=first, sender_domain=joined.sender_domain, **joined.stream._asdict())


def in_memory() -> Database:
    """A store of core's schema that nobody else sees and that is gone with its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for script in statements.SCHEMA.migrations():
        connection.executescript(script)
    return Database(Path(":memory:"), connection)


_TOLD: Final = frozenset({"postfix"})
"""Changes that really were; which sub-queues would have opened, `sidecar replay` tells."""

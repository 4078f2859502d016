"""The messages of a whole log, many lines at a time: lines are put to their queue ids unread, and read when all are there.

It knows which lines make one message depend on another, so that most are read alone (`policies/plain_message.py`) and the
others together, by `policies/lifecycle.py`, which says what a message is. What comes out is what that one gives, where no
line comes later than the window allows; facts that speak of no message are not counted.
"""

import heapq
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from parsers.clock import wall_second
from parsers.log import LogReader, text_of
from parsers.postfix.facts import (
    ClientDisconnected,
    ClientIdentified,
    ConnectionLost,
    DeliveryAttempt,
    DkimSigned,
    Fact,
    HeaderLogged,
    NonDeliveryNotification,
    PickedUp,
    QueueRemoved,
    Rejected,
    Requeued,
)
from parsers.postfix.grammar import KEY
from parsers.postfix.tokens import PEER
from parsers.speakers import BSD, ISO
from parsers.usual_lines import has_zone
from policies.lifecycle import MOST, PATIENCE, WINDOW, Lifecycle
from policies.log_order import BACK
from policies.message_lines import CAME, DELIVERED, GONE, READ, SELDOM, Header, MessageLines, Place, Source
from policies.message_record import MessageRecord
from policies.plain_message import plain_record

if TYPE_CHECKING:  # compiled code counts with such numbers as C does; there are none where it is interpreted
    from mypy_extensions import i64

_NO_SECOND: Final = "\0"
_REMEMBERED: Final = 20_000
"""Processes that are remembered; a log that names more is forgotten and learned again."""
_EXPECTED: Final = 20_000
"""Queue ids that were named before their own first line, and closed ones whose lines would be known if they came again."""
_SWEEP: Final = 100_000
"""Lines between two looks at everything that is open."""
_HOP: Final = 60.0
"""Seconds between a hop's answer and the first line of the next queue id."""
_REQUEUE: Final = 120.0
"""pickup(8) wakes up every minute."""
_NAMED: Final = 3
"""Messages that have named the same next queue id before the latest one that did."""
_LETTER: Final = ord("a")
"""Queue ids do not begin with small letters."""
_ZERO: Final = ord("0")
_COLON: Final = ord(":")
_BLANK: Final = ord(" ")
_CLOSING: Final = ord(")")
_LOW: Final = 31
_REFUSAL: Final = re.compile(rf"NOQUEUE: reject: [A-Z][A-Za-z-]{{0,40}} from {PEER}: ([2-5]\d\d) .*", re.ASCII)
"""How smtpd says that a client was refused, as the first shape of `reject` reads it; the code stands before strangers' words."""
_LONGEST: Final = 64
"""Characters of a queue id."""


_Line = tuple[float, Source, int, Fact]
_Who = tuple[Place, str, int]
"""A message: its queue id, and its number, as queue ids come again."""
_Expected = tuple[float, _Line | None, _Who | None]


class BulkLifecycle:
    """The messages of one log, of any number of hosts and instances."""

    def __init__(
        self, reader: LogReader, *, window: float = WINDOW, patience: float = PATIENCE, most: int = MOST
    ) -> None:
        """`reader` reads what is not frequent; its `only` is `message_lines.WANTED`. The others are `Lifecycle`'s."""
        self._reader = reader
        self._window = window
        self._patience = patience
        self._most = most
        self._known: dict[str, Header] = {}
        """By what stands behind the stamp in the header of a line."""
        self._sources: dict[tuple[str, str, str, str, int], Source] = {}
        self._places: dict[tuple[str, str], Place] = {}
        self._expected: dict[str, list[_Expected]] = {}
        """Queue ids named before their first line: until when, and what was said of them or which message named them."""
        self._expected_before: dict[str, list[_Expected]] = {}
        """Those that were named before these."""
        self._finished: list[MessageRecord | MessageLines] = []
        self._previous = b""
        """The last lines, where they were read here."""
        self._since = 0
        self._swept_every = min(_SWEEP, most // 8 + 1)
        self._number = 0
        self.refusals: Counter[str] = Counter()
        """Lines that refuse what never became a message, by the reply's code."""
        self.late = 0
        """Lines of messages that were already through: copies, or later than the window allows."""

    def read(self, block: bytes) -> None:
        """Take whole lines. Never raises."""
        reader = self._reader
        if b"\0" in block or b"\r" in block or b" repeated " in block or reader.inside_entry(block):
            if self._previous:
                reader.follow(text_of(self._previous).removesuffix("\n").rpartition("\n")[2])
                self._previous = b""
            before = reader.lines
            for fact in reader.block_facts(block):
                self._take(fact)
            self._since += reader.lines - before
        elif block:
            lines = self._read(text_of(block))
            reader.lines += lines
            self._since += lines
            self._previous = block
        if self._since >= self._swept_every:
            self._sweep()

    def go_on(self, reader: LogReader) -> None:
        """Another file of the log comes next, with a reader of its own."""
        self._reader = reader
        self._previous = b""

    def finished(self) -> list[MessageRecord]:
        """The messages that came through since the last call, in the order of their ends."""
        return read_messages(self.unread(), self._window)

    def unread(self) -> list[MessageRecord | MessageLines]:
        """The same; those whose lines stand for themselves are left to `read_messages`, which may be anywhere."""
        finished, self._finished = self._finished, []
        return finished

    def rest(self) -> None:
        """At the end of the log: messages that have not ended come through as `End.UNFINISHED`."""
        for place in self._places.values():
            self._close_due(place, math.inf)
        for place in self._places.values():
            for lines in list(place.open.values()):
                self._through(lines, math.inf, last=True)

    @property
    def open_messages(self) -> int:
        """Queue ids in use by now, as far as the log tells."""
        return sum(len(place.open) for place in self._places.values())

    # Lines.

    def _read(self, text: str) -> int:  # noqa: PLR0915  # one loop, all in sight
        """Take decoded lines; tells how many they are."""
        # Lines are found one by one, as `split` looks at each character, and nothing is made of a line that is passed over.
        # What is compared character by character needs no string of its own, and one character is found sooner than two.
        known, speakers = self._known, self._reader.speakers
        second, parts = _NO_SECOND, 1.0
        cut: i64 = 0
        width: i64 = 1
        start, dated = 0.0, False
        begin: i64 = 0
        size: i64 = len(text)
        lines = 0
        while begin < size:
            stop: i64 = text.find("\n", begin)
            if stop < 0:
                stop = size
            lines += 1
            at: i64 = begin
            begin = stop + 1
            mark: i64 = text.find("]", at, stop)
            if mark > at and (mark + 2 >= stop or ord(text[mark + 1]) != _COLON or ord(text[mark + 2]) != _BLANK):
                mark = text.find("]: ", at, stop)
            if mark > at and text.find(second, at, at + width) != at:
                bsd = ord(text[at]) > _COLON  # it begins with a letter
                width = BSD if bsd else ISO
                second = text[at : at + width]
                cut = BSD if bsd else speakers.cut
                read = self._reader.clock.read(second) if bsd else wall_second(second)
                dated = read is not None
                start = read or 0.0
                parts = 10.0 ** (cut - ISO - 1)
            header = text[at + cut : mark] if mark > at else _NO_SECOND
            found = known.get(header)
            if found is None:
                found = self._learn(header)
            if found is None or not dated or (cut >= ISO and not has_zone(text, at, at + cut)):
                self._take_line(text[at:stop])
                second, width = _NO_SECOND, 1
                continue
            source = found.source
            if source.silent:
                continue
            mark += 3
            kind: i64 = 0
            colon: i64 = 0
            lead = ""
            letter: i64 = ord(text[mark]) if mark < stop else _LETTER
            if letter < _LETTER:
                colon = text.find(":", mark, stop)
                if colon > mark and colon + 5 <= stop and ord(text[colon + 1]) == _BLANK:
                    one: i64 = ord(text[colon + 2])
                    two: i64 = ord(text[colon + 3])
                    three: i64 = ord(text[colon + 4])
                    code: i64 = one << 42 | two << 21 | three
                    if code == source.first:
                        kind = source.first_kind
                    elif code == source.second:
                        kind = source.second_kind
                    else:
                        kind = source.queued.get(text[colon + 2 : colon + 5], 0)
                    if kind:
                        lead = text[mark:colon]
                        if not lead.isalnum():
                            kind = 0
            if not kind:
                if not source.initials >> (letter & _LOW) & 1:
                    continue
                if not source.reads_all and text[mark : min(mark + 3, stop)] not in source.plain:
                    continue
                kind = SELDOM
            time = start - found.offset
            if cut > ISO:
                fraction: i64 = 0
                for place_of_digit in range(at + ISO + 1, at + cut):
                    digit: i64 = ord(text[place_of_digit]) - _ZERO
                    if digit < 0 or digit > 9:
                        fraction = -1
                        break
                    fraction = fraction * 10 + digit
                if fraction < 0:
                    self._take_line(text[at:stop])
                    second, width = _NO_SECOND, 1
                    continue
                time += float(fraction) / parts
            if kind == SELDOM:
                self._seldom(source, time, text[mark:stop])
                continue
            place = source.place
            if time > place.now:
                place.now = time
                if place.due < time:
                    self._close_due(place, time)
            elif time < place.now - BACK:
                self._set_back(place, time)
            message = place.open.get(lead)
            if message is None:
                if lead == "NOQUEUE" and kind == CAME:
                    continue
                message = self._begin(place, lead, time)
                if message is None:
                    continue
            said = text[colon + 2 : stop]
            message.add(time, source, kind, said)
            if kind == DELIVERED:
                queue_id = _next_queue_id(text, colon, stop)
                if queue_id:
                    self._passed_on(message, time, queue_id)
            elif kind == GONE:
                self._ends(message, time)
            elif kind == CAME:
                self._came(message, source, time, said)
        return lines

    def _seldom(self, source: Source, time: float, said: str) -> None:
        """A line that is read at once."""
        if said.startswith("disconnect "):
            self._left(source, time, said)
        elif source.is_smtpd and said.startswith("NOQUEUE: reject: ") and (match := _REFUSAL.fullmatch(said)):
            self.refusals[match[4]] += 1
        elif told := self._reader.text_fact(source.record(time, said)):
            self._take(told)

    def _learn(self, header: str) -> Header | None:
        """The process of a header that the reader knows, and by how much its ISO stamps are ahead of UTC."""
        speaker = self._reader.speakers.known.get(header) or self._reader.speakers.find(header)
        if speaker is None:
            return None
        self._known[header] = found = Header(self._source(speaker[:5]), speaker.offset)
        return found

    def _source(self, key: tuple[str, str, str, str, int]) -> Source:
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) >= _REMEMBERED:
                self._sources.clear()
                self._known.clear()
            source = self._sources[key] = Source(self._place(key[0], key[1]), *key)
        return source

    def _place(self, host: str, instance: str) -> Place:
        place = self._places.get((host, instance))
        if place is None:
            place = self._places[host, instance] = Place(host, instance)
        return place

    def _take_line(self, line: str) -> None:
        """One that the short way does not read."""
        for fact in self._reader.text_facts(line):
            self._take(fact)

    def _take(self, fact: Fact) -> None:
        """A line that was read by itself."""
        source = self._source(fact.record[1:6])
        if isinstance(fact, DkimSigned):
            self._signed(source, fact)
        elif isinstance(fact, ClientDisconnected | ConnectionLost):
            self._left(source, fact.record.time, fact.record.text)
        elif fact.queue_id:
            self._add(source, fact)
        elif isinstance(fact, Rejected) and fact.action == "reject":
            self.refusals[fact.code] += 1

    def _add(self, source: Source, fact: Fact) -> None:
        place, time, queue_id = source.place, fact.record.time, fact.queue_id
        if time > place.now:
            place.now = time
            self._close_due(place, time)
        elif time < place.now - BACK:
            self._set_back(place, time)
        message: MessageLines | None = place.open.get(queue_id) or self._begin(place, queue_id, time)
        if message is None:
            return
        lead, _, said = fact.record.text.partition(": ")
        kind = source.queued.get(said[:KEY], SELDOM)
        if lead == queue_id and kind != SELDOM:
            message.add(time, source, kind, said)
        else:
            message.add(time, source, READ, fact)
        if isinstance(fact, DeliveryAttempt):
            if queue_id := _next_queue_id(said, 0, len(said)):
                self._passed_on(message, time, queue_id)
        elif isinstance(fact, ClientIdentified):
            self._came(message, source, time, said)
        elif isinstance(fact, PickedUp):
            if fact.orig_id:
                self._follows(message, time, fact.orig_id)
        elif isinstance(fact, NonDeliveryNotification):
            self._notified(source, fact)
        elif isinstance(fact, Requeued):
            self._ends(message, time + _REQUEUE)
        elif isinstance(fact, QueueRemoved):
            self._ends(message, time)
        elif isinstance(fact, Rejected | HeaderLogged) and fact.action.rpartition("-")[2] in {"reject", "discard"}:
            self._ends(message, time, unless_queued=True)
            self._has_left(message, source, time)

    # What one message has to do with another.

    def _begin(self, place: Place, queue_id: str, time: float) -> MessageLines | None:
        """A message of which this is the first line that we see; None where the line is one of a message before."""
        ended = place.closed.get(queue_id)
        if ended is None:
            ended = place.closed_before.get(queue_id)
        if ended is not None and time <= ended + self._window:
            self.late += 1
            return None
        self._number += 1
        message = place.open[queue_id] = MessageLines(place, queue_id, self._number)
        expected = self._expected.get(queue_id) or self._expected_before.get(queue_id)
        for until, said, of in expected or ():
            if of is not None:
                where, its_id, number = of
                other: MessageLines | None = where.open.get(its_id)
                if other is not None and other.number == number and time <= until:
                    _link(message, other)
            elif said is not None and said[1].host == place.host:
                message.add(*said)
        return message

    def _expect(self, queue_id: str, until: float, said: _Line | None, of: MessageLines | None = None) -> None:
        # No message is kept by it: it would stay with all its lines long after it is through.
        who = None if of is None else (of.place, of.queue_id, of.number)
        before = self._expected.get(queue_id) or self._expected_before.get(queue_id)
        line = (until, said, who)
        self._expected[queue_id] = [*before[:_NAMED], line] if before else [line]
        if len(self._expected) > _EXPECTED:
            self._expected_before, self._expected = self._expected, {}

    def _named(self, queue_id: str) -> list[MessageLines]:
        return [message for place in self._places.values() if (message := place.open.get(queue_id))]

    def _follows(self, message: MessageLines, time: float, queue_id: str) -> None:
        """It may be what went on under its own queue id after this one."""
        for other in self._named(queue_id):
            _link(message, other)
        self._expect(queue_id, time + self._window, None, message)

    def _passed_on(self, message: MessageLines, time: float, queue_id: str) -> None:
        """It may go on under this queue id, which an answer names."""
        for place in self._places.values():
            other = place.open.get(queue_id)
            if other is not None:
                _link(message, other)
        self._expect(queue_id, time + _HOP + self._window, None, message)

    def _came(self, message: MessageLines, source: Source, time: float, said: str) -> None:
        """An smtpd has begun it; what it had begun before may be over."""
        before, source.receiving = source.receiving, message
        message.receiver = source
        if before is not None and not before.received():
            _link(before, message)
        self._has_left(message, source, time)
        if "orig_queue_id=" in said:
            self._follows(message, time, said.rpartition("orig_queue_id=")[2].partition(",")[0])

    def _left(self, source: Source, time: float, text: str) -> None:
        """Its client has gone, or is lost: what was not received by now never will be."""
        source.left.append((time, text))
        message = source.receiving
        if message is None or (text.startswith("disconnect ") and message.received()):
            return
        if not message.activated:
            self._was_left(message, source, time, text)

    def _has_left(self, message: MessageLines, source: Source, begun: float) -> None:
        """Its first line, or the refusal of a recipient, was overtaken by the end of its session."""
        for time, text in source.left:
            if begun < time <= begun + self._window:  # not in the same second: that one was the session before
                self._was_left(message, source, time, text)

    def _was_left(self, message: MessageLines, source: Source, time: float, text: str) -> None:
        fact = source.shapes.read(source.record(time, text))
        if isinstance(fact, ClientDisconnected | ConnectionLost):
            message.add(time, source, READ, fact)
            self._ends(message, time, unless_queued=True)

    def _notified(self, source: Source, fact: NonDeliveryNotification) -> None:
        """The notification is told what it is about; else the two have nothing to do with each other."""
        line = fact.record.time, source, READ, fact
        notification = source.place.open.get(fact.notification_id)
        if notification is not None:
            notification.add(*line)
        else:
            self._expect(fact.notification_id, math.inf, line)

    def _signed(self, source: Source, fact: DkimSigned) -> None:
        """A milter's line: its program is no instance of Postfix, so any on its host may be meant."""
        line = fact.record.time, source, READ, fact
        found = [message for message in self._named(fact.queue_id) if message.place.host == source.host]
        if len(found) == 1:
            found[0].add(*line)
        elif not found:
            self._expect(fact.queue_id, math.inf, line)

    # Ends.

    def _ends(self, message: MessageLines, time: float, *, unless_queued: bool = False) -> None:
        """This was its last line, unless others were overtaken."""
        self._number += 1
        place = message.place
        due = time + 4 * self._window
        heapq.heappush(place.closing, (due, self._number, message, unless_queued))
        place.due = min(place.due, due)
        if len(place.closing) > _EXPECTED:  # the clock stands, or the log was put behind itself
            self._close_first(place, math.inf)

    def _close_due(self, place: Place, until: float) -> None:
        while place.due < until:
            self._close_first(place, until)

    def _close_first(self, place: Place, until: float) -> None:
        _, _, message, unless_queued = heapq.heappop(place.closing)
        place.due = place.closing[0][0] if place.closing else math.inf
        if not (unless_queued and message.activated):
            self._through(message, until)

    def _set_back(self, place: Place, time: float) -> None:
        """The host had its clock set, or another file of it begins."""
        self._close_due(place, math.inf)
        place.now = time

    def _through(self, message: MessageLines, now: float, *, last: bool = False) -> None:
        """Read it, and those that depend on it, if all of them have ended. `last`: they get no more lines."""
        if not message.is_open():
            return
        if message.linked is None and message.queue_id != "NOQUEUE":
            if message.is_usual():
                self._finished.append(message)
                self._close(message)
                return
            record = plain_record(message, self._window)
            if record is not None:
                self._finished.append(record)
                self._close(message)
                return
        newest = max(member.last for member in message.linked or [message]) + 4 * self._window
        if not last and now < newest < math.inf:
            self._ends(message, newest - 4 * self._window)
            return
        members = sorted(message.linked or [message], key=lambda member: member.number)
        lifecycle = Lifecycle(window=self._window, patience=math.inf)
        for fact in _facts(members):
            lifecycle.see(fact)
        lifecycle.settle()
        if lifecycle.open_messages and not last:
            return
        lifecycle.rest()
        self.late += lifecycle.late
        records = list(_about(members, lifecycle.finished()))
        self._finished += records
        hops = {hop for record in records for hop in record.hops}
        for member in members:
            self._close(member, known=(member.place.host, member.place.instance, member.queue_id) in hops)

    def _close(self, message: MessageLines, *, known: bool = True) -> None:
        """No more lines are taken for it. `known`: it is one of the records; a removal alone tells of no message."""
        place, queue_id, receiver = message.place, message.queue_id, message.receiver
        if receiver is not None and receiver.receiving is message:
            receiver.receiving = None
        del place.open[queue_id]
        if not known:
            return
        place.closed[queue_id] = message.last
        if len(place.closed) > _EXPECTED:
            place.closed_before, place.closed = place.closed, {}

    def _sweep(self) -> None:
        """Give up what is silent for too long, and the longest silent where there are too many."""
        self._since = 0
        now = max((place.now for place in self._places.values()), default=0.0)
        everything = [message for place in self._places.values() for message in place.open.values()]
        for message in everything:
            if all(member.last < now - self._patience for member in message.linked or [message]):
                self._through(message, math.inf, last=True)
        surplus = self.open_messages - self._most * 7 // 8
        if surplus > self._most // 8:
            for message in heapq.nsmallest(surplus, everything, key=lambda one: one.last):
                self._through(message, math.inf, last=True)


def read_messages(some: Iterable[MessageRecord | MessageLines], window: float = WINDOW) -> list[MessageRecord]:
    """The records of messages that came through, where only their lines are there. `window`: as in `BulkLifecycle`."""
    records: list[MessageRecord] = []
    for one in some:
        if isinstance(one, MessageLines):
            record = plain_record(one, window)
            if record is None:
                lifecycle = Lifecycle(window=window, patience=math.inf)
                for fact in one.facts():
                    lifecycle.see(fact)
                lifecycle.rest()
                records += lifecycle.finished()
            else:
                records.append(record)
        else:
            records.append(one)
    return records


def _next_queue_id(text: str, begin: "i64", stop: "i64") -> str:
    """What stands behind the last `ed as ` of an answer, if that is a queue id; "" otherwise."""
    # Looked for from the end: to find out that there is no `ed as ` costs as much as all else about a delivery.
    end: i64 = stop
    while end > begin and (ord(text[end - 1]) == _CLOSING or ord(text[end - 1]) == _BLANK):
        end -= 1
    blank: i64 = text.rfind(" ", begin, end)
    if blank < begin + 5 or end - blank - 1 > _LONGEST or text[blank - 5 : blank] != "ed as":
        return ""
    queue_id = text[blank + 1 : end]
    return queue_id if queue_id.isalnum() else ""


def _link(one: MessageLines, other: MessageLines) -> None:
    """They are read together."""
    if one is other or not (one.is_open() and other.is_open()):
        return
    members = one.linked or [one]
    if any(member is other for member in members):  # a list like it is not meant
        return
    members += other.linked or [other]
    for member in members:
        member.linked = members


def _facts(members: Sequence[MessageLines]) -> Iterator[Fact]:
    """What the lines of all of them say."""
    some = (fact for member in members for fact in member.facts() if not _is_notice(member, fact))
    return some if len(members) == 1 else iter(sorted(some, key=lambda fact: fact.record.time))


def _is_notice(member: MessageLines, fact: Fact) -> bool:
    """Whether it says of the message that it is a notification."""
    return isinstance(fact, NonDeliveryNotification) and fact.queue_id != member.queue_id


def _about(members: Sequence[MessageLines], records: Sequence[MessageRecord]) -> Iterator[MessageRecord]:
    """The records, with what those are about that are notifications."""
    about = {
        (member.place.host, member.place.instance, member.queue_id): fact.queue_id
        for member in members
        for fact in member.facts()
        if _is_notice(member, fact)
    }
    for record in records:
        parent = about.get(record.hops[0])
        yield record._replace(notification_of=parent) if parent and not record.notification_of else record

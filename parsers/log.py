"""A log's lines, one after the other, to facts; and the counts of what was understood and what was not.

It remembers what an envelope needs of the lines before (year, winter time, repeats) and nothing about mail.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final, NamedTuple

from parsers.clock import wall_second
from parsers.journal_export import BEGIN, ExportedEntry
from parsers.postfix import parse
from parsers.postfix.agents import DELIVERY_LITERAL
from parsers.postfix.facts import DeliveryAttempt, Fact
from parsers.postfix.grammar import KEY, Choice
from parsers.record import LogRecord
from parsers.speakers import BSD, ISO, Speakers
from parsers.syslog import Syslog
from parsers.usual_lines import digits, has_zone, usual_count, usual_fact

_REPEATED: Final = re.compile(r"message repeated (\d{1,9}) times: \[ ?(.*)\]", re.ASCII)
_REPEATS: Final = 10_000
"""No syslog daemon lets more than this pass before it says so; a larger number is damage."""
_NAMES: Final = 1_000
"""Foreign programs counted by name; further ones go under OTHER."""
_NO_SECOND: Final = "\0"
_SAMPLE: Final = 2_000
"""Characters kept of an unknown text; Postfix writes no longer ones."""

NO_ENVELOPE: Final = "(no envelope)"
OTHER: Final = "(other)"

_NINE: Final = ord("9")
_SMALL: Final = ord("a")
_UNDERSCORE: Final = ord("_")
_COLON: Final = ord(":")
_BLANK: Final = ord(" ")
_T: Final = ord("t")
_O: Final = ord("o")
_EQUALS: Final = ord("=")
_TO: Final = "to="
_BEGIN: Final = BEGIN.encode()
_make: Final = tuple.__new__


class Counted(NamedTuple):
    """Of a line whose fact was counted and not made."""

    kind: type[Fact]
    host: str


class LogReader:
    """Lines of one source -> facts; remembers what the envelope needs (year, zone) and counts what it doesn't know."""

    def __init__(
        self,
        *,
        zone: tzinfo,
        reference: float | None = None,
        year: int | None = None,
        after: float | None = None,
        syslog_names: Sequence[str] = (),
        only: Collection[type[Fact]] | None = None,
        counting: bool = False,
    ) -> None:
        """`zone`: of stamps that name none. `reference`: a time (seconds since the epoch) near the newest lines, a
        file's modification or the present; with the order of the lines it settles the year of BSD stamps. `year`: of
        the first line, if known. `after`: the time of the line before, where reading begins in the middle of a log.
        `syslog_names`: instances whose name does not begin with "postfix".
        `only`: the facts wanted; lines of other shapes are passed over, mostly unread, which is a good part of a log;
        all that hold no delivery where deliveries alone are wanted, so that unknown ones among them are not counted.
        `counting`: facts that are not wanted are counted all the same; most need not be made for that.
        """
        self._only = None if only is None else frozenset(only)
        self._counting = counting and only is not None
        alone = only is not None and not counting and set(only) == {DeliveryAttempt}
        self._literal = DELIVERY_LITERAL if alone else ""
        """What every line that is wanted holds, where there is such a thing."""
        self._syslog = Syslog(zone=zone, reference=reference, year=year, after=after, syslog_names=syslog_names)
        self.clock = self._syslog.clock
        self._exported = ExportedEntry()
        self.speakers = Speakers(self._only, counting=self._counting)
        self._known: Counter[type[Fact]] = Counter()
        self._last: Fact | Counted | None = None
        self.lines = 0
        """All lines, understood or not."""
        self.unknown: Counter[str] = Counter()
        """Lines without a fact, by daemon; by program where it is not Postfix's; empty lines are none."""
        self.samples: dict[str, str] = {}
        """The first unknown text of each daemon."""

    @property
    def known(self) -> Counter[str]:
        """Facts by name."""
        return Counter({kind.__name__: count for kind, count in self._known.items()})

    def refer_to(self, reference: float) -> None:
        """Take another `reference`: that of the lines that come next, where a log is followed."""
        self._syslog.clock.refer_to(reference)

    def facts(self, line: bytes) -> Sequence[Fact]:
        """What one line states, with or without its line end: usually one fact or none; N for `message repeated N
        times`. Never raises.
        """
        return self.block_facts(line)

    def block_facts(self, block: bytes) -> Sequence[Fact]:
        """The same for many whole lines at once, at two thirds of the cost a line."""
        return self._read(text_of(block), self._literal, each=1)

    def inside_entry(self, block: bytes) -> bool:
        """Whether lines of the journal's export format are among these: there a line says nothing by itself."""
        # From the end: so it is the quick search that steps over ten characters at a time.
        return self._exported.open or block.rfind(_BEGIN) >= 0

    def follow(self, line: str) -> None:
        """Take a line that was read elsewhere for the last one: `last message repeated` may come next."""
        record = self._syslog.read(line)
        fact = parse(record) if isinstance(record, LogRecord) else None
        self._last = fact if fact and (self._only is None or type(fact) in self._only) else None

    def text_facts(self, lines: str) -> Sequence[Fact]:
        """The same for lines that are decoded and counted."""
        return self._read(lines, "", each=0)

    def _read(self, lines: str, literal: str, *, each: int) -> Sequence[Fact]:  # noqa: PLR0915  # one loop, all in sight
        """What lines say. `literal`: those that do not hold it are left out. `each`: what a line adds to `lines`."""
        # Profiles. Interpreted, of QueueRemoved, the shortest, 1,900 ns a line: its stamp 150, its process 80, its shape 430,
        # its match 250, the record 230, the fact 320. Compiled, deliveries alone of a log of which they are a sixth, 3,300
        # instructions a line in here (callgrind): to find lines and parentheses 320, and of each delivery 9,000 for what it
        # says (of those its three lookups, six cuts and five finds 3,600, record and fact 2,000) and 4,200 for its envelope.
        # By time (3.11 log, 0.25 s): start 0.05, to read the file 0.025, here 0.16. To look in each block for the literal,
        # the marker of the journal and the number of lines were 0.05 until each line was seen once. `split` of blocks was 970
        # instructions a line, `bytes.count` 790, the expression with its groups and their reading 2,300. An expression for
        # whole lines in whole blocks was no faster in sum; one for all frequent shapes of a daemon cost the others as much as
        # it gained them. What pays is to make less: `only`, `counting`, replies when asked.
        facts: list[Fact] = []
        counted: list[type[Fact]] = []
        known, read_time = self.speakers.known, self.clock.read
        last, second, width, end = self._last, _NO_SECOND, 1, 0
        passed: type[Fact] | None = None  # with `host`, of a last line that was counted and not made
        host = ""
        pid: Any  # as it lies there: no number is made of it and no object of the number
        start: float | None = None
        parts = 10.0 ** (self.speakers.cut - ISO - 1)
        paren = -1
        entry: bool = self._exported.open
        begin, size, number = 0, len(lines), 0
        while begin < size:
            # Lines are found one by one: `split` looks at each character, and makes strings that nobody needs.
            at = begin
            stop = lines.find("\n", at)
            if stop < 0:
                stop = size
            begin = stop + 1
            number += each
            sought = literal and not entry and (ord(lines[at]) != _UNDERSCORE or lines[at : at + len(BEGIN)] != BEGIN)
            if sought:
                # One character is found many times as fast as several, and each delivery has this one.
                if paren < at:
                    paren = lines.find("(", at)
                    if paren < 0:
                        paren = size
                if paren >= stop:
                    continue
            mark = lines.find("]", at, stop)
            if mark < 0 or mark + 3 > stop or ord(lines[mark + 1]) != _COLON or ord(lines[mark + 2]) != _BLANK:
                mark = lines.find("]: ", at, stop)
            if sought:
                colon = lines.find(":", max(mark + 3, at), paren)
                if (colon < 0 or not _delivers(lines, colon + 1)) and lines.find(literal, at, stop) < 0:
                    continue
            if mark > at and lines[at : at + width] != second:
                bsd = lines[at] > ":"  # it begins with a letter
                width = BSD if bsd else ISO
                second = lines[at : at + width]
                end = BSD if bsd else self.speakers.cut
                start = read_time(second) if bsd else wall_second(second)
            header = lines[at + end : mark] if mark > at + end else ""
            process = known.get(header) or self.speakers.find(header)
            if process is not None and end >= ISO and not has_zone(lines, at, at + end):
                process = None
            micro = digits(lines, at + ISO + 1, at + end) if end > ISO and process is not None else 0
            if process is None or start is None or micro < 0:
                some, last = self._any_line(lines[at:stop], Counted(passed, host) if passed else last)
                facts += some
                entry = self._exported.open
                passed = None
                second, width = _NO_SECOND, 1
                parts = 10.0 ** (self.speakers.cut - ISO - 1)
                continue
            host, instance, service, daemon, pid, queued, plain, offset = process
            mark += 3
            time = start - offset
            if end > ISO:
                time += micro / parts
            choice: Choice | None = None
            if mark < stop and ord(lines[mark]) > _NINE:  # most queue ids begin with a digit
                choice = plain.get(lines[mark : min(mark + KEY, stop)])
            lead = ""
            colon = -1
            rest = ""
            last = passed = None
            if choice is not None:
                if choice:
                    _, first, counts = choice[0]
                    if first is None and counts is not None and usual_count(counts, lines, mark, stop):
                        counted.append(counts)
                        passed = counts
                        continue
                rest = lines[mark:stop]
            else:
                colon = lines.find(":", mark, stop)
                if colon + 2 > stop or ord(lines[colon + 1]) != _BLANK:
                    colon = lines.find(": ", mark, stop)
            if choice is None and colon >= 0:
                lead = lines[mark:colon]
                if ord(lines[mark]) < _SMALL and lead.isalnum():
                    if colon + 5 < stop and _delivers(lines, colon + 1):
                        choice = queued.get(_TO)
                    else:
                        choice = queued.get(lines[colon + 2 : min(colon + 2 + KEY, stop)])
                    if choice:
                        last = usual_fact(
                            choice, time, host, instance, service, daemon, pid, lead, lines, mark, colon + 2, stop
                        )
                        if last is not None:
                            facts.append(last)
                            continue
                rest = lines[colon + 2 : stop]
            for match, make, kind in choice or ():
                if matched := match(rest):
                    if make is None:
                        if kind:
                            counted.append(kind)
                            passed = kind
                        break
                    record = _make(LogRecord, (time, host, instance, service, daemon, pid, lines[mark:stop]))
                    if last := make(record, lead, matched):
                        facts.append(last)
                        break
            else:
                if choice != ():
                    some = self._record_facts(LogRecord(time, host, instance, service, daemon, pid, lines[mark:stop]))
                    last = some[-1] if some else None
                    facts += some
        self.lines += number
        self._last = Counted(passed, host) if passed else last
        for kind, times in _numbers(counted).items():
            self._known[kind] += times
        return self._counted(facts)

    def journal_facts(self, entry: Mapping[str, Any]) -> Sequence[Fact]:
        """The same for one object of `journalctl -o json`."""
        self.lines += 1
        return self._counted(list(self._entry_facts(entry)))

    def _entry_facts(self, entry: Mapping[str, Any]) -> Sequence[Fact]:
        record = self._syslog.read_journal(entry)
        if record is None:
            self._count_unknown(NO_ENVELOPE, str(entry.get("MESSAGE", "")))
            return ()
        return self._record_facts(record)

    def _any_line(self, line: str, last: Fact | Counted | None) -> tuple[Sequence[Fact], Fact | Counted | None]:
        """The facts of a line of a process that we have not seen, or with an envelope of another kind; and the last."""
        if self._exported.open or line.startswith(BEGIN):
            if self._exported.begins(line):
                return (), None
            if not line:
                self.lines -= 1  # an entry counts as one
                some = self._entry_facts(self._exported.finish())
                return some, some[-1] if some else None
            if self._exported.take(line):
                self.lines -= 1
                return (), None
            self._count_unknown(NO_ENVELOPE, BEGIN)  # an entry without an end
        record = self._syslog.read(line)
        if isinstance(record, LogRecord):
            self.speakers.remember(line, record)
            some = self._record_facts(record)
            return some, some[-1] if some else None
        if record is not None:
            times = _repeats(record.times)
            if isinstance(last, Counted):
                if last.host == record.host:
                    self._known[last.kind] += times
                    return (), last
            elif last is not None and last.record.host == record.host:
                last = last._replace(record=last.record._replace(time=record.time))
                return [last] * times, last
        if line.strip("\0\r \t"):
            self._count_unknown(NO_ENVELOPE, line)
        return (), None

    def text_fact(self, record: LogRecord) -> Fact | None:
        """Of a record whose envelope was read elsewhere; its line is counted."""
        fact = parse(record)
        if fact is None:
            self._count_unknown(record.daemon, record.text)
        return fact if self._only is None or type(fact) in self._only else None

    def _record_facts(self, record: LogRecord) -> Sequence[Fact]:
        """Of a record; rsyslog's `message repeated N times: [ text]` stands under the tag of the text."""
        times = 1
        if record.text.startswith("message repeated ") and (match := _REPEATED.fullmatch(record.text)):
            times = _repeats(int(match[1]))
            record = record._replace(text=match[2])
        fact = parse(record)
        if fact is None:
            self._count_unknown(record.daemon, record.text)
            return ()
        return [fact] * times if self._only is None or self._counting or type(fact) in self._only else ()

    def _counted(self, facts: list[Fact]) -> Sequence[Fact]:
        """Count them; tell those that are wanted."""
        kinds = _numbers([type(fact) for fact in facts])
        for kind, times in kinds.items():
            self._known[kind] += times
        if not self._counting or self._only is None or self._only.issuperset(kinds):
            return facts
        only = self._only
        return [fact for fact in facts if type(fact) in only]

    def _count_unknown(self, daemon: str, text: str) -> None:
        if daemon not in self.samples:
            if len(self.samples) >= _NAMES:
                daemon = OTHER
            self.samples.setdefault(daemon, text[:_SAMPLE])
        self.unknown[daemon] += 1


def _repeats(times: int) -> int:
    return min(max(times, 1), _REPEATS)


def _numbers(kinds: list[type[Fact]]) -> dict[type[Fact], int]:
    """How often each of them is there."""
    # `Counter.update` takes twice as long, and a block has few kinds, so that most numbers are small.
    numbers: dict[type[Fact], int] = {}
    for kind in kinds:
        numbers[kind] = numbers.get(kind, 0) + 1
    return numbers


def _delivers(text: str, place: int) -> bool:
    """Whether " to=" stands there, as behind the colon of a delivery's queue id."""
    return (
        ord(text[place]) == _BLANK
        and ord(text[place + 1]) == _T
        and ord(text[place + 2]) == _O
        and ord(text[place + 3]) == _EQUALS
    )


def text_of(block: bytes) -> str:
    """Whole lines, decoded: bytes that are not UTF-8 become lone surrogates. Without what some programs put at the ends."""
    text = block.decode("utf-8", "surrogateescape")
    if "\r" in text or "\0" in text:
        lines = text.removesuffix("\n").split("\n")
        return "".join([line.strip("\0").rstrip("\r\0") + "\n" for line in lines])
    return text

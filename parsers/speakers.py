"""Who writes a log's lines: hosts and processes, each known by the header of its lines once one was read in full.

It knows where a header's stamp ends and which shapes a process' lines have. It does not know what any line says.
"""

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from parsers.clock import wall_second
from parsers.postfix import grammar_of
from parsers.postfix.facts import Fact
from parsers.postfix.grammar import Grammar, Index
from parsers.record import LogRecord

BSD: Final = 15
"""Characters of a BSD stamp."""
ISO: Final = 19
"""Characters of an ISO stamp, to its second."""
_REMEMBERED: Final = 20_000
"""Hosts with tags, and processes, that are remembered; a log that names more is forgotten and learned again."""
_HEADER: Final = re.compile(
    r"(?:\D\S\S [ \d]\d \d\d:\d\d:\d\d(?= )|(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?P<fraction>\.\d{1,9})?(?=[Z+-]))"
    r"(?P<origin>(?:Z|[+-]\d\d(?::?\d\d)?)? (?P<host>\S{1,255}) [^\s\[\]:]{1,128})\[(?P<pid>\d{1,10})",
    re.ASCII,
)
"""The headers that are read the short way: BSD stamps, and ISO stamps with a zone."""

_Origin = tuple[str, str, str, str, Index, Index, float]
"""Host, instance, service, daemon; the shapes of its lines, behind a queue id, and others; its ISO stamps' offset."""


class Speaker(NamedTuple):
    """One process whose lines were seen; the first fields are a record's."""

    host: str
    instance: str
    service: str
    daemon: str
    pid: int
    queued: Index
    """The shapes of its lines behind a queue id."""
    plain: Index
    offset: float
    """Seconds by which its ISO stamps are ahead of UTC; 0 for BSD stamps, which are read with their zone."""


class Speakers:
    """The processes of one source, by what their headers say behind the stamp: `[zone] host tag[pid`."""

    __slots__ = ("_counting", "_only", "_origins", "_wanted", "cut", "known")

    def __init__(self, only: Collection[type[Fact]] | None, *, counting: bool) -> None:
        """`only`, `counting`: as in `LogReader`."""
        self._only = only
        self._counting = counting
        self._wanted: dict[Grammar, tuple[Index, Index]] = {}
        self._origins: dict[str, _Origin] = {}
        self.known: dict[str, Speaker] = {}
        self.cut = ISO
        """Where the zone of an ISO stamp stands, behind a fraction or none."""

    def find(self, header: str) -> Speaker | None:
        """That of a header. Host and tag are believed only as the whole expression has once read them."""
        origin, _, pid = header.rpartition("[")
        found = self._origins.get(origin)
        if found is None or not (pid.isascii() and pid.isdecimal()) or len(pid) > 10:
            return None
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        host, instance, service, daemon, queued, plain, offset = found
        self.known[header] = speaker = Speaker(host, instance, service, daemon, int(pid), queued, plain, offset)
        return speaker

    def remember(self, line: str, record: LogRecord) -> None:
        """Host and tag of a line that the short way reads the same."""
        head, _, text = line.partition("]: ")
        header = _HEADER.fullmatch(head)
        if header is None or (text, header["host"], int(header["pid"])) != (record.text, record.host, record.pid):
            return
        offset = 0.0
        if header["iso"]:
            start = wall_second(header["iso"])
            if start is None:
                return
            offset = float(round(start + float(header["fraction"] or 0) - record.time))
            self.cut = header.start("origin")
        if len(self._origins) >= _REMEMBERED:
            self._origins.clear()
        self._origins[header["origin"]] = *record[1:5], *self._indexes(record), offset

    def _indexes(self, record: LogRecord) -> tuple[Index, Index]:
        shapes = grammar_of(record.instance, record.daemon)
        if self._only is None:
            return shapes.queued, shapes.plain
        if shapes not in self._wanted:
            self._wanted[shapes] = shapes.only(self._only, counting=self._counting)
        return self._wanted[shapes]

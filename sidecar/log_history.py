"""Log files as one history: their facts in the order of time, whatever the order in which the files are named.

Rotated files come one after the other; files that overlap (of two hosts, of two Postfix instances) are merged by stamp.
"""

import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from datetime import tzinfo
from pathlib import Path

from parsers.log import LogReader
from parsers.postfix.facts import Fact
from sidecar.bulk import STDIN, Part, parts

_AHEAD = 86_400.0
"""Seconds that another host's clock, or a zone that is not known, may be ahead of ours."""


class LogHistory:
    """Reads each file once, after a look at its beginning; one that overlaps no other at full speed."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        zone: tzinfo,
        year: int | None = None,
        syslog_names: Sequence[str] = (),
        only: Collection[type[Fact]] | None = None,
    ) -> None:
        """As `parse_files`; a path named twice is one. Raises ParseError when a file cannot be read, here and later."""
        self._only = only
        named = tuple(dict.fromkeys(paths)) or (STDIN,)
        self._parts = {part.path: part for part in parts(named, zone=zone, year=year, syslog_names=syslog_names)}
        self._readers: list[LogReader] = []
        self.latest = time.time() + _AHEAD
        """Stamps beyond this are damaged, and their facts left out."""
        self._begins = {path: self._begin(part) for path, part in self._parts.items()}
        self.paths = tuple(sorted(self._begins, key=lambda path: self._begins[path]))
        """In the order of their first stamps. Standard input, which can be read but once, is the first."""

    @property
    def lines(self) -> int:
        return sum(reader.lines for reader in self._readers)

    @property
    def unknown_lines(self) -> int:
        return sum(sum(reader.unknown.values()) for reader in self._readers)

    def facts(self) -> Iterator[Fact]:
        """Give all facts once."""
        waiting = deque(self.paths)
        begun: list[tuple[float, int, Fact, Iterator[Fact]]] = []
        while waiting or begun:
            if waiting and (not begun or self._begins[waiting[0]] <= begun[0][0]):
                rest = self._facts(waiting.popleft())
                if (first := next(rest, None)) is not None:
                    heapq.heappush(begun, (first.record.time, len(self._readers), first, rest))
                continue
            _, number, fact, rest = begun[0]
            yield fact
            until = -math.inf if len(begun) > 1 else self._begins[waiting[0]] if waiting else math.inf
            for following in rest:
                if following.record.time >= until:
                    heapq.heapreplace(begun, (following.record.time, number, following, rest))
                    break
                yield following
            else:
                heapq.heappop(begun)

    def part(self, path: Path) -> Part:
        """The whole of a file, as it is read."""
        return self._parts[path]

    def _facts(self, path: Path) -> Iterator[Fact]:
        part = self._parts[path]
        reader = part.reader(only=self._only)
        self._readers.append(reader)
        latest = self.latest
        facts = itertools.chain.from_iterable(map(reader.block_facts, part.blocks()))
        return (fact for fact in facts if fact.record.time <= latest)

    def _begin(self, part: Part) -> float:
        """The first stamp; of a file without any: never."""
        if part.path == STDIN:
            return -math.inf
        reader = part.reader(only=self._only)
        for block in part.blocks():
            if facts := reader.block_facts(block):
                return facts[0].record.time
        return math.inf

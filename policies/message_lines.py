"""The lines of one message as a log gave them, kept unread until the message is through.

It knows who wrote a line and which kinds there are; what a line says is read by its daemon's grammar, from here.
"""

import math
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from parsers.postfix import grammar_of
from parsers.postfix.agents import DELIVERY
from parsers.postfix.cleanup import CLEANUP
from parsers.postfix.facts import (
    ClientDisconnected,
    ClientIdentified,
    ConnectionLost,
    DeliveryAttempt,
    DkimSigned,
    Fact,
    HeaderLogged,
    Held,
    MessageExpired,
    MessageIdentified,
    NonDeliveryNotification,
    PickedUp,
    QueueActive,
    QueueRemoved,
    Rejected,
    Released,
    Requeued,
)
from parsers.postfix.grammar import KEY, Grammar, Shape
from parsers.postfix.qmgr import QMGR, REMOVED
from parsers.postfix.smtpd import SMTPD
from parsers.record import LogRecord

WANTED: Final[frozenset[type[Fact]]] = frozenset({
    ClientDisconnected, ClientIdentified, ConnectionLost, DeliveryAttempt, DkimSigned, HeaderLogged, Held, MessageExpired,
    MessageIdentified, NonDeliveryNotification, PickedUp, QueueActive, QueueRemoved, Rejected, Released, Requeued,
})  # fmt: skip
"""The facts that lines of messages state."""


_FOLDED: Final = 4 * 64
"""Items of lines that are worth compressing."""
_LEFT: Final = 4
"""Lines kept of clients that have left: a message's first line may be overtaken by them."""


READ: Final = 0
"""What a line may be by the first characters behind its queue id: this one was read already. Plain numbers, as each line
of a log is compared with them.
"""
DELIVERED: Final = 1
ACTIVATED: Final = 2
NAMED: Final = 3
GONE: Final = 4
CAME: Final = 5
SELDOM: Final = 6
"""Anything else: read at once."""


def shape_of(shapes: Grammar, name: str) -> Shape:
    """By its name in its daemon."""
    return next(shape for shape in shapes.shapes if shape.name == name)


SHAPES: Final[Mapping[int, Shape]] = {
    DELIVERED: DELIVERY[0],
    ACTIVATED: shape_of(QMGR, "active"),
    NAMED: shape_of(CLEANUP, "message-id"),
    GONE: REMOVED,
    CAME: shape_of(SMTPD, "client"),
}
"""The shape that nearly all lines of a frequent kind have."""


class Lines(NamedTuple):
    """Which lines of a daemon speak of messages."""

    queued: dict[str, int]
    """Behind a queue id, by their first characters."""
    plain: frozenset[str]
    """The first characters of others."""
    all: bool
    """Any of its lines may."""


@lru_cache(maxsize=64)
def lines_wanted(shapes: Grammar) -> Lines:
    """Those of a daemon with this grammar."""
    queued, plain = shapes.only(WANTED, counting=False)
    usual = {shape.start[:KEY]: kind for kind, shape in SHAPES.items() if shape in shapes.shapes}
    kinds = {key: usual.get(key, SELDOM) for key, choice in queued.items() if choice}
    return Lines(kinds, frozenset(key for key, choice in plain.items() if choice), bool(plain.get("")))


class Place:
    """One Postfix instance on one host."""

    __slots__ = ("closed", "closing", "host", "instance", "now", "open")

    def __init__(self, host: str, instance: str) -> None:
        self.host = host
        self.instance = instance
        self.now = 0.0
        self.open: dict[str, MessageLines] = {}
        self.closing: list[tuple[float, int, MessageLines, bool]] = []
        """A heap: when no more lines come of a message, a number, the message, and whether it may go on after all."""
        self.closed: OrderedDict[str, float] = OrderedDict()
        """When the latest messages that are through had ended."""


class Source:
    """One process that writes lines."""

    __slots__ = (
        "daemon", "host", "instance", "left", "pid", "place", "plain", "queued", "reads_all", "receiving", "service",
        "shapes", "silent",
    )  # fmt: skip

    def __init__(self, place: Place, host: str, instance: str, service: str, daemon: str, pid: int) -> None:  # noqa: PLR0917  # a record's fields
        """`place`: whose queue ids it speaks of."""
        self.place = place
        self.host = host
        self.instance = instance
        self.service = service
        self.daemon = daemon
        self.pid = pid
        self.shapes = grammar_of(instance, daemon)
        lines = lines_wanted(self.shapes)
        self.queued: dict[str, int] = {} if lines.all else lines.queued
        self.plain = lines.plain
        self.reads_all = lines.all
        """Any of its lines may speak of a message."""
        self.silent = not (self.queued or self.plain or self.reads_all)
        """None of its lines does."""
        self.left: deque[tuple[float, str]] = deque(maxlen=_LEFT)
        """Of an smtpd: when and how its latest clients have left, in the line's words."""
        self.receiving: MessageLines | None = None
        """Of an smtpd: the message that it has begun last."""

    def record(self, time: float, text: str) -> LogRecord:
        """That of one of its lines."""
        return LogRecord(time, self.host, self.instance, self.service, self.daemon, self.pid, text)


class MessageLines:
    """The lines of one queue id in their order in the log."""

    __slots__ = (
        "activated", "flat", "folded", "last", "lines", "linked", "named", "number", "orderly", "place", "queue_id", "receiver",
        "refused",
    )  # fmt: skip

    def __init__(self, place: Place, queue_id: str, number: int) -> None:
        """`place`: whose queue id it is. `number`: those that began later in the log have greater ones."""
        self.place = place
        self.number = number
        self.queue_id = queue_id
        self.lines: list[Any] = []
        """Four items a line: time, `Source`, kind, and what stands behind the queue id, or the fact where it was READ. One
        flat list, as a tuple a line would double it.
        """
        self.folded: list[bytes] = []
        """What stands behind the queue id in the first lines, compressed: a message that is deferred for days has many, and
        they are much alike.
        """
        self.flat = 0
        """Where the lines begin that are not compressed."""
        self.receiver: Source | None = None
        """The smtpd that has begun it."""
        self.last = -math.inf
        """Time of its latest line."""
        self.orderly = True
        """None of its lines came behind a later one."""
        self.named = False
        self.refused = False
        self.activated = False
        """Whether the queue manager had it."""
        self.linked: list[MessageLines] | None = None
        """With this one itself: those that may be the same message under other queue ids."""

    def add(self, time: float, source: Source, kind: int, said: Any) -> None:
        """One line more."""
        if time >= self.last:
            self.last = time
        else:
            self.orderly = False
        lines = self.lines  # four times `append` costs less than one `+=`
        lines.append(time)
        lines.append(source)
        lines.append(kind)
        lines.append(said)
        if kind == NAMED:
            self.named = self.named or said.startswith("message-id=")
        elif kind == ACTIVATED:
            self.activated = self.activated or said.endswith(" (queue active)")
            if len(self.lines) >= self.flat + _FOLDED:
                self._fold()
        elif kind == READ and said.__class__ is Rejected:
            self.refused = True

    def _fold(self) -> None:
        lines, texts = self.lines, []
        for place in range(self.flat, len(lines), 4):
            if lines[place + 2] != READ:
                texts.append(lines[place + 3])
                lines[place + 3] = None
        self.flat = len(lines)
        self.folded.append(zlib.compress("\n".join(texts).encode("utf-8", "surrogateescape"), 1))

    def unfold(self) -> None:
        """All lines are wanted."""
        if self.folded:
            texts = iter([line for one in self.folded for line in _unfolded(one)])
            lines = self.lines
            for place in range(3, len(lines), 4):
                if lines[place] is None:
                    lines[place] = next(texts)
            self.folded, self.flat = [], 0

    def is_open(self) -> bool:
        """Whether more lines are taken for it."""
        return self.place.open.get(self.queue_id) is self

    def received(self) -> bool:
        """Whether it does not matter any more when its client leaves: cleanup has named it, and nothing was refused."""
        return self.named and not self.refused

    def is_usual(self) -> bool:
        """Whether its lines, in their order, are those of the usual life: it has ended then, whatever else they say."""
        lines = self.lines
        if not self.orderly or lines[-1] != "removed":
            return False
        kinds = lines[2::4]
        first = 1 if kinds[0] == CAME else 0  # notifications begin at cleanup
        if len(kinds) < first + 2 or kinds[first] != NAMED or kinds[-1] != GONE:
            return False
        return all(kind in {ACTIVATED, DELIVERED} for kind in kinds[first + 1 : -1])

    def facts(self) -> Iterator[Fact]:
        """What the lines say; those that say nothing are left out."""
        self.unfold()
        lead = f"{self.queue_id}: "
        items = iter(self.lines)
        for time, source, kind, said in zip(items, items, items, items, strict=True):
            fact = said if kind == READ else source.shapes.read(source.record(time, lead + said))
            if fact is not None:
                yield fact


def _unfolded(some: bytes) -> list[str]:
    return zlib.decompress(some).decode("utf-8", "surrogateescape").split("\n")

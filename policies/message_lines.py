"""The lines of one message as a log gave them, kept unread until the message is through.

It knows who wrote a line and which kinds there are; what a line says is read by its daemon's grammar, from here.
"""

import math
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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

if TYPE_CHECKING:  # compiled code counts with such numbers as C does; there are none where it is interpreted
    from mypy_extensions import i64

_make: Final = tuple.__new__

WANTED: Final[frozenset[type[Fact]]] = frozenset({
    ClientDisconnected, ClientIdentified, ConnectionLost, DeliveryAttempt, DkimSigned, HeaderLogged, Held, MessageExpired,
    MessageIdentified, NonDeliveryNotification, PickedUp, QueueActive, QueueRemoved, Rejected, Released, Requeued,
})  # fmt: skip
"""The facts that lines of messages state."""


_FOLDED: Final = 4 * 64
"""Items of lines that are worth compressing."""
_LOW: Final = 31
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


_NO_START: Final = -1


def start_code(key: str) -> int:
    """The first three characters behind a queue id as one number, 21 bits each: compared without an object of their own."""
    return ord(key[0]) << 42 | ord(key[1]) << 21 | ord(key[2])


_NEW: Final = 0
"""What the lines of a message are so far, while they are those of the usual life: nothing, ..."""
_BEGUN: Final = 1
"""... its client, ..."""
_QUEUED: Final = 2
"""... its message id, with or without what the queue manager and the agents say, ..."""
_ENDED: Final = 3
"""... or its end."""
_UNUSUAL: Final = 4


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

    __slots__ = ("closed", "closed_before", "closing", "due", "host", "instance", "now", "open")

    def __init__(self, host: str, instance: str) -> None:
        self.host = host
        self.instance = instance
        self.now = 0.0
        self.open: dict[str, MessageLines] = {}
        self.closing: list[tuple[float, int, MessageLines, bool]] = []
        """A heap: when no more lines come of a message, a number, the message, and whether it may go on after all."""
        self.due = math.inf
        """When the first of them comes."""
        self.closed: dict[str, float] = {}
        """When the latest messages that are through had ended."""
        self.closed_before: dict[str, float] = {}
        """The same of those before. Two plain dictionaries, the older one dropped as a whole, cost half of an ordered one."""


class Source:
    """One process that writes lines."""

    __slots__ = (
        "daemon", "first", "first_kind", "host", "initials", "instance", "is_smtpd", "left", "pid", "place", "plain", "queued",
        "reads_all", "receiving", "second", "second_kind", "service", "shapes", "silent",
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
        self.is_smtpd = self.shapes is SMTPD
        self.initials: i64 = -1 if lines.all else sum({1 << (ord(key[0]) & _LOW) for key in lines.plain if key})
        """Bits of the first characters of `plain`, by their lowest five: most other lines differ in them."""
        usual = [(start_code(key), kind) for key, kind in self.queued.items() if kind != SELDOM]
        usual += [(_NO_START, SELDOM)] * 2
        self.first: i64 = usual[0][0]
        """The start of its usual lines of messages, and their kind; what is neither this nor the second is in `queued`."""
        self.first_kind: i64 = usual[0][1]
        self.second: i64 = usual[1][0]
        self.second_kind: i64 = usual[1][1]
        self.left: deque[tuple[float, str]] = deque(maxlen=_LEFT)
        """Of an smtpd: when and how its latest clients have left, in the line's words."""
        self.receiving: MessageLines | None = None
        """Of an smtpd: the message that it has begun last."""

    def record(self, time: float, text: str) -> LogRecord:
        """That of one of its lines."""
        return _make(LogRecord, (time, self.host, self.instance, self.service, self.daemon, self.pid, text))


class Header:
    """What stands behind the stamp of a line, up to the pid: whose line it is."""

    __slots__ = ("offset", "source")

    def __init__(self, source: Source, offset: float) -> None:
        """`offset`: seconds by which its ISO stamps are ahead of UTC."""
        self.source = source
        self.offset = offset


class MessageLines:
    """The lines of one queue id in their order in the log."""

    __slots__ = (
        "activated", "flat", "folded", "last", "life", "lines", "linked", "named", "number", "orderly", "place", "queue_id",
        "receiver", "refused",
    )  # fmt: skip

    def __init__(self, place: Place, queue_id: str, number: int) -> None:
        """`place`: whose queue id it is. `number`: those that began later in the log have greater ones."""
        self.place = place
        self.number = number
        self.queue_id = queue_id
        self.life: i64 = _NEW
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

    def add(self, time: float, source: Source, kind: "i64", said: Any) -> None:
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
        if kind == DELIVERED:
            if self.life != _QUEUED:
                self.life = _UNUSUAL
        elif kind == ACTIVATED:
            if self.life != _QUEUED:
                self.life = _UNUSUAL
            active: str = said
            self.activated = self.activated or active.endswith(" (queue active)")
            if len(lines) >= self.flat + _FOLDED:
                self._fold()
        elif kind == NAMED:
            self.life = _QUEUED if self.life <= _BEGUN else _UNUSUAL
            name: str = said
            self.named = self.named or name.startswith("message-id=")
        elif kind == CAME:
            self.life = _BEGUN if self.life == _NEW else _UNUSUAL
        elif kind == GONE:
            end: str = said
            self.life = _ENDED if self.life == _QUEUED and end == "removed" else _UNUSUAL
        else:
            self.life = _UNUSUAL
            if kind == READ and said.__class__ is Rejected:
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
        return self.orderly and self.life == _ENDED

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

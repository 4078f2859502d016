"""The lines of one message as a log gave them, kept unread until the message is through.

It knows who wrote a line and which kinds there are; what a line says is read by its daemon's grammar, from here.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from parsers.postfix import grammar
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


_LEFT: Final = 4
"""Lines kept of clients that have left: a message's first line may be overtaken by them."""


class Kind(IntEnum):
    """What a line may be by the first characters behind its queue id."""

    DELIVERED = 1
    ACTIVATED = 2
    NAMED = 3
    GONE = 4
    CAME = 5
    SELDOM = 6
    """Anything else: read at once."""


DELIVERED, ACTIVATED, NAMED, GONE, CAME, SELDOM = Kind
"""By themselves: in 3.11 a member of an enumeration takes longer to look up than a line to be split."""


def shape_of(shapes: Grammar, name: str) -> Shape:
    """By its name in its daemon."""
    return next(shape for shape in shapes.shapes if shape.name == name)


SHAPES: Final[Mapping[Kind, Shape]] = {
    Kind.DELIVERED: DELIVERY[0],
    Kind.ACTIVATED: shape_of(QMGR, "active"),
    Kind.NAMED: shape_of(CLEANUP, "message-id"),
    Kind.GONE: REMOVED,
    Kind.CAME: shape_of(SMTPD, "client"),
}
"""The shape that nearly all lines of a frequent kind have."""


class Lines(NamedTuple):
    """Which lines of a daemon speak of messages."""

    queued: Mapping[str, Kind]
    """Behind a queue id, by their first characters."""
    plain: Collection[str]
    """The first characters of others."""
    all: bool
    """Any of its lines may."""


@lru_cache(maxsize=64)
def lines_wanted(shapes: Grammar) -> Lines:
    """Those of a daemon with this grammar."""
    queued, plain = shapes.only(WANTED, counting=False)
    usual = {shape.start[:KEY]: kind for kind, shape in SHAPES.items() if shape in shapes.shapes}
    kinds = {key: usual.get(key, Kind.SELDOM) for key, choice in queued.items() if choice}
    return Lines(kinds, frozenset(key for key, choice in plain.items() if choice), bool(plain.get("")))


class Source:
    """One process that writes lines."""

    __slots__ = (
        "daemon",
        "host",
        "instance",
        "left",
        "pid",
        "place",
        "plain",
        "queued",
        "reads_all",
        "receiving",
        "service",
        "shapes",
    )

    def __init__(self, place: Any, host: str, instance: str, service: str, daemon: str, pid: int) -> None:  # noqa: PLR0917  # a record's fields
        """`place`: whose queue ids it speaks of, whatever the keeper of the lines takes for that."""
        self.place = place
        self.host = host
        self.instance = instance
        self.service = service
        self.daemon = daemon
        self.pid = pid
        self.shapes = grammar(instance, daemon)
        lines = lines_wanted(self.shapes)
        self.queued = {} if lines.all else lines.queued
        self.plain = lines.plain
        self.reads_all = lines.all
        """Any of its lines may speak of a message."""
        self.left: deque[tuple[float, str]] = deque(maxlen=_LEFT)
        """Of an smtpd: when and how its latest clients have left, in the line's words."""
        self.receiving: MessageLines | None = None
        """Of an smtpd: the message that it has begun last."""

    def record(self, time: float, text: str) -> LogRecord:
        """That of one of its lines."""
        return LogRecord(time, self.host, self.instance, self.service, self.daemon, self.pid, text)


class MessageLines(list[Any]):
    """Lines in their order in the log, three items each: time, `Source`, and what stands behind the queue id, or the
    fact where it was read already. One flat list, as a tuple a line would double it.
    """

    __slots__ = ("linked", "number", "place", "queue_id")

    def __init__(self, place: Any, queue_id: str, number: int) -> None:
        """`place`: whose queue id it is. `number`: those that began later in the log have greater ones."""
        self.place = place
        self.number = number
        self.queue_id = queue_id
        self.linked: list[MessageLines] | None = None
        """With this one itself: those that may be the same message under other queue ids."""

    def is_open(self) -> bool:
        """Whether more lines are taken for it."""
        return self.place.open.get(self.queue_id) is self

    def received(self) -> bool:
        """Whether it does not matter any more when its client leaves: cleanup has named it, and nothing was refused."""
        named = False
        for said in self[2::3]:
            if said.__class__ is Rejected:
                return False
            named = named or (said.__class__ is str and said.startswith("message-id="))
        return named

    def activated(self) -> bool:
        """Whether the queue manager had it."""
        return any(said.__class__ is str and said.endswith(" (queue active)") for said in self[2::3])

    def facts(self) -> Iterator[Fact]:
        """What the lines say; those that say nothing are left out."""
        lead = f"{self.queue_id}: "
        for time, source, said in zip(self[::3], self[1::3], self[2::3], strict=True):
            fact = source.shapes.read(source.record(time, lead + said)) if said.__class__ is str else said
            if fact is not None:
                yield fact

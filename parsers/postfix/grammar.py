"""How the shapes of one daemon's lines are written down, and how a line finds its shape.

It knows nothing of any daemon. A shape says literally how it begins, so a line is tried against one or two
expressions and not against all.
"""

import re
import typing
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum, auto
from functools import cache, cached_property
from operator import methodcaller
from typing import Any, Final, NamedTuple

from parsers.postfix.facts import Diagnostic, Fact
from parsers.postfix.tokens import CERTAIN_QUEUE_ID
from parsers.record import LogRecord

Match = Callable[[str], Any]
"""Of the whole text behind the lead: the match, or None; where nobody wants the fact, whether the start is there."""
MakeFact = Callable[[LogRecord, str, re.Match[str]], Fact | None]
"""Makes the fact of a record, what led its text (queue id, severity, or "") and the match of the rest.

None: it looked right and is not, let the next shape try.
"""
Choice = tuple[tuple[Match, MakeFact | None, type[Fact] | None], ...]
"""Several shapes in the order of trial; without a function where nobody wants the fact, with its type where it is to be
counted all the same.
"""
Index = dict[str, Choice]
"""By the first three characters of the shapes; "" for those that fix none."""


class Lead(Enum):
    """What stands before the shape, up to the first ": "."""

    QUEUE_ID = auto()
    NOTHING = auto()
    SEVERITY = auto()


class Shape(NamedTuple):
    """One kind of line."""

    name: str
    """Unique in its daemon; the cases under tests/maillog prove each."""
    lead: Lead
    start: str
    """What follows the lead literally: its first three characters find the shape. "": tried on every line."""
    expression: str
    fact: MakeFact | None
    whole: bool = True
    """Whether the expression is of the whole text, else of its start."""
    made: type[Fact] | None = None
    """What the function makes, where it is compiled: then it does not tell its types."""

    @property
    def match(self) -> Match:
        return _compiled(self.expression, self.whole)


@cache
def _compiled(expression: str, whole: bool) -> Match:  # noqa: FBT001  # a shape's
    """Its pattern's method. Each once, as two daemons may have it."""
    pattern = re.compile(expression, re.ASCII)
    return pattern.fullmatch if whole else pattern.match


KEY: Final = 3
SEVERITIES: Final = frozenset({"warning", "error", "fatal", "panic"})


def _shape(lead: Lead, name: str, start: str, rest: str, fact: MakeFact) -> Shape:
    return Shape(name, lead, start, re.escape(start) + rest, fact)


def queued(name: str, start: str, rest: str, fact: MakeFact, made: type[Fact] | None = None) -> Shape:
    """A shape `QUEUE_ID: start rest`, where the id may be NOQUEUE. `made`: as in Shape."""
    return _shape(Lead.QUEUE_ID, name, start, rest, fact)._replace(made=made)


def plain(name: str, start: str, rest: str, fact: MakeFact) -> Shape:
    """A shape that begins with its own words."""
    return _shape(Lead.NOTHING, name, start, rest, fact)


def warned(name: str, start: str, rest: str, fact: MakeFact) -> Shape:
    """A shape `severity: start rest`."""
    return _shape(Lead.SEVERITY, name, start, rest, fact)


def _open(record: LogRecord, severity: str, match: re.Match[str]) -> Diagnostic:
    return Diagnostic(record, match[1], severity, match[0])


def _about_message(record: LogRecord, severity: str, match: re.Match[str]) -> Diagnostic:
    return Diagnostic(record, match[1], severity, match[2])


def _diagnostic(record: LogRecord, severity: str, match: re.Match[str]) -> Diagnostic:
    return Diagnostic(record, "", severity, match[0])


DIAGNOSTICS: Final[Sequence[Shape]] = (
    # deliver_request.c: the agent was given a message whose file has gone. Its queue id is the proof that the
    # queue manager has let go of it.
    warned("open-queue-file", "open ", rf"\w+ ({CERTAIN_QUEUE_ID}): .*", _open),
    warned("about-message", "", rf"({CERTAIN_QUEUE_ID}): (.*)", _about_message),
    warned("diagnostic", "", r".*", _diagnostic),
)
"""Of every daemon of Postfix: what is left of its complaints."""


class Grammar:
    """The shapes of one daemon."""

    def __init__(self, *shapes: Shape, diagnostics: Sequence[Shape] = DIAGNOSTICS) -> None:
        self.shapes = (*shapes, *diagnostics)

    @cached_property
    def queued(self) -> Index:
        return _index(self.shapes, Lead.QUEUE_ID)

    @cached_property
    def plain(self) -> Index:
        return _index(self.shapes, Lead.NOTHING)

    @cached_property
    def _warned(self) -> Index:
        return _index(self.shapes, Lead.SEVERITY)

    def compile(self) -> None:
        """Make all expressions now, for a process that must not stop for them at some later line."""
        for shape in self.shapes:
            _compiled(shape.expression, shape.whole)

    def only(self, wanted: Collection[type[Fact]], *, counting: bool) -> tuple[Index, Index]:
        """`queued` and `plain` without the functions of shapes that make none of these facts, () where all do not.

        With `counting` all shapes are read whole, and only those lose their function that always give the same type.
        """
        if counting:
            return tuple(_index(self.shapes, lead, set(wanted)) for lead in (Lead.QUEUE_ID, Lead.NOTHING))  # type: ignore[return-value]  # two
        shapes = [shape if _makes(shape) & set(wanted) else _passed_over(shape) for shape in self.shapes]
        return _index(shapes, Lead.QUEUE_ID), _index(shapes, Lead.NOTHING)

    def makes(self, wanted: Collection[type[Fact]]) -> bool:
        """Whether a line of this daemon can give one of these facts."""
        return any(_makes(shape) & set(wanted) for shape in self.shapes)

    def read(self, record: LogRecord) -> Fact | None:
        """The fact of a line; None for a line that no shape takes. Never raises."""
        lead, colon, rest = record.text.partition(": ")
        choice = self.queued.get(rest[:KEY]) if colon and is_queue_id(lead) else None
        if choice and (fact := _first(choice, record, lead, rest)):
            return fact
        if colon and lead in SEVERITIES:
            return _first(self._warned.get(rest[:KEY], self._warned.get("", ())), record, lead, rest)
        return _first(self.plain.get(record.text[:KEY], self.plain.get("", ())), record, "", record.text)


def is_queue_id(lead: str) -> bool:
    """Also NOQUEUE. Postfix's own words before a ": " are in lower case, or several."""
    return lead < "a" and lead.isalnum()


def _first(choice: Choice, record: LogRecord, lead: str, text: str) -> Fact | None:
    for match, make, _ in choice:
        if make and (matched := match(text)) and (fact := make(record, lead, matched)):
            return fact
    return None


def _makes(shape: Shape) -> frozenset[type[Fact]]:
    """The types of the facts that a shape can give, as its function declares them."""
    if shape.made is not None:
        return frozenset({shape.made})
    assert shape.fact is not None
    return _declared(shape.fact)


@cache
def _declared(fact: MakeFact) -> frozenset[type[Fact]]:
    """What it says that it makes. Once each, as to read it takes as long as some lines of a log; many shapes share one."""
    declared = typing.get_type_hints(fact)["return"]
    return frozenset(typing.get_args(declared) or (declared,))


def _passed_over(shape: Shape) -> Shape:
    """The shape with no more than a look at its start."""
    return shape._replace(fact=None)


def _index(shapes: Iterable[Shape], lead: Lead, made: Collection[type[Fact]] | None = None) -> Index:
    """Each list in the order written; shapes without a start stand in every list; a list that makes no fact is empty.
    `made`: the facts not only counted.
    """
    shapes = [shape for shape in shapes if shape.lead is lead]
    keys = dict.fromkeys(shape.start[:KEY] for shape in shapes)
    for key in keys:
        assert len(key) == KEY or (not key and lead is not Lead.QUEUE_ID), f"a start needs {KEY} characters: {key!r}"
    choices = {key: [shape for shape in shapes if shape.start[:KEY] in {"", key}] for key in keys}
    index: Index = {}
    for key, choice in choices.items():
        some = any(shape.fact for shape in choice)
        index[key] = tuple(_entry(shape, made, index, key) for shape in choice) if some else ()
    return index


def _entry(
    shape: Shape, made: Collection[type[Fact]] | None, index: Index, key: str
) -> tuple[Match, MakeFact | None, type[Fact] | None]:
    if shape.fact is None:
        return methodcaller("startswith", shape.start), None, None
    match = _Unread(shape, index, key)
    # What is compiled may refuse a line and does not tell so in its types: it is asked.
    if made is not None and shape.made is None and len(makes := _makes(shape)) == 1 and not makes & set(made):
        return match, None, next(iter(makes))
    return match, shape.fact, None


class _Unread:
    """Stands in an index for an expression until a line first asks for it, and then puts the expression there."""

    # To make all expressions of the daemons that a log speaks of takes as long as to read ten thousand of its lines.
    __slots__ = ("_index", "_key", "_shape")

    def __init__(self, shape: Shape, index: Index, key: str) -> None:
        self._shape = shape
        self._index = index
        self._key = key

    def __call__(self, text: str) -> re.Match[str] | None:
        match: Callable[[str], re.Match[str] | None] = self._shape.match
        self._index[self._key] = tuple(
            (match if entry[0] is self else entry[0], *entry[1:]) for entry in self._index[self._key]
        )
        return match(text)

"""How the shapes of one daemon's lines are written down, and how a line finds its shape.

It knows nothing of any daemon. A shape says literally how it begins, so a line is tried against one or two
expressions and not against all.
"""

import re
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from parsers.postfix.facts import Diagnostic, Fact
from parsers.postfix.tokens import CERTAIN_QUEUE_ID
from parsers.record import LogRecord

Match = Callable[[str, int], re.Match[str] | None]
"""Of everything from that position to the line's end."""
MakeFact = Callable[[LogRecord, str, re.Match[str]], Fact | None]
"""Makes the fact of a record, what led its text (queue id, severity, or "") and the match of the rest.

None: it looked right and is not, let the next shape try.
"""
Choice = tuple[tuple[Match, MakeFact], ...]
"""Several shapes in the order of trial."""


class Lead(Enum):
    """What stands before the shape, up to the first ": "; the value marks its keys in a grammar's index."""

    QUEUE_ID = ": "
    NOTHING = ""
    SEVERITY = "!"


class Shape(NamedTuple):
    """One kind of line."""

    name: str
    """Unique in its daemon; the cases under tests/maillog prove each."""
    lead: Lead
    start: str
    """What follows the lead literally: its first three characters find the shape. "" only after a severity."""
    match: Match
    fact: MakeFact


KEY: Final = 3
SEVERITIES: Final = frozenset({"warning", "error", "fatal", "panic"})


def _shape(lead: Lead, name: str, start: str, rest: str, fact: MakeFact) -> Shape:
    return Shape(name, lead, start, re.compile(re.escape(start) + rest, re.ASCII).fullmatch, fact)


def queued(name: str, start: str, rest: str, fact: MakeFact) -> Shape:
    """A shape `QUEUE_ID: start rest`, where the id may be NOQUEUE."""
    return _shape(Lead.QUEUE_ID, name, start, rest, fact)


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

    __slots__ = ("choices", "shapes")

    def __init__(self, *shapes: Shape, diagnostics: Sequence[Shape] = DIAGNOSTICS) -> None:
        self.shapes = (*shapes, *diagnostics)
        self.choices: Mapping[str, Choice] = _index(self.shapes, self.shapes)
        """By the lead's mark and the shape's first three characters."""

    def choices_for(self, wanted: Collection[type[Fact]]) -> Mapping[str, Choice]:
        """The same with the shapes that can make one of these facts; a key all of whose shapes cannot has none."""
        return _index(self.shapes, [shape for shape in self.shapes if not makes(shape).isdisjoint(wanted)])

    def read(self, record: LogRecord) -> Fact | None:
        """The fact of a line; None for a line that no shape takes. Never raises."""
        text = record.text
        colon = text.find(": ")
        if colon > 0:
            choice = self.choices.get(text[colon : colon + 2 + KEY])
            if choice is not None and is_queue_id(text[:colon]):
                return _first(choice, record, text[:colon], colon + 2)
            if text[:colon] in SEVERITIES:
                open_start = self.choices.get("!", ())
                choice = self.choices.get(f"!{text[colon + 2 : colon + 2 + KEY]}", open_start)
                return _first(choice, record, text[:colon], colon + 2)
        return _first(self.choices.get(text[:KEY], ()), record, "", 0)


def makes(shape: Shape) -> frozenset[type[Fact]]:
    """The types of the facts that a shape can give, as its function declares them."""
    declared = typing.get_type_hints(shape.fact)["return"]
    return frozenset(typing.get_args(declared) or (declared,)) - {type(None)}


def is_queue_id(lead: str) -> bool:
    """Also NOQUEUE. Postfix's own words before a ": " are in lower case, or several."""
    return len(lead) >= 5 and lead.isalnum() and lead[0] < "a"


def _first(choice: Choice, record: LogRecord, lead: str, start: int) -> Fact | None:
    for match, make in choice:
        if (matched := match(record.text, start)) and (fact := make(record, lead, matched)):
            return fact
    return None


def _index(all_shapes: Iterable[Shape], wanted: Iterable[Shape]) -> dict[str, Choice]:
    """Each list in the order written; shapes without a start stand in every list of their lead."""
    keys = dict.fromkeys((shape.lead, shape.start[:KEY]) for shape in all_shapes)
    for lead, key in keys:
        assert len(key) == KEY or (not key and lead is Lead.SEVERITY), f"a start needs {KEY} characters: {key!r}"
    return {
        lead.value + key: tuple(
            (shape.match, shape.fact) for shape in wanted if shape.lead is lead and shape.start[:KEY] in ("", key)
        )
        for lead, key in keys
    }

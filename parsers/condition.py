"""Expressions as functions: an expression, compiled once, says of any event whether it holds.

Knows what a missing field means (no comparison with it is true) and that case never matters. Events are anybody's.
"""

from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Any, Final, TypeAlias, TypeVar

from parsers.expression import (
    AllOf,
    Among,
    AnyOf,
    Comparison,
    Expression,
    FieldType,
    Flag,
    Matching,
    Not,
    Operator,
)
from parsers.linear import compile_pattern

E = TypeVar("E")
Read: TypeAlias = Callable[[E], object]
Condition: TypeAlias = Callable[[E], bool]

LONGEST_VALUE: Final = 4096
"""Characters of a text that a regular expression is tried on; senders and servers choose how long theirs are."""


def by_key(field: str) -> Read[Mapping[str, Any]]:
    """Look a field up in a mapping from whole names ("header.list-id") to values."""
    return methodcaller("get", field)


def by_attribute(field: str) -> Read[object]:
    """Look a field up as an attribute; one that is not there is missing."""

    def read(event: object) -> object:
        return getattr(event, field, None)

    return read


def compile_expression(expression: Expression, read: Callable[[str], Read[E]]) -> Condition[E]:
    """Make a function of an expression. It never raises for an event whose fields `read` can look up.

    A field that is missing, None, or of another type than declared makes every comparison with it false, also != , !~
    and `not in`; `not x = 1` is then true.
    """
    match expression:
        case AllOf(terms):
            return _all_of([compile_expression(term, read) for term in terms])
        case AnyOf(terms):
            return _any_of([compile_expression(term, read) for term in terms])
        case Not(term):
            return _not(compile_expression(term, read))
        case Flag(field):
            return _flag(read(field))
        case Comparison(field, kind, operator, value):
            if isinstance(value, str):
                return _text(read(field), kind, frozenset({value.lower()}), negated=operator is Operator.DIFFERENT)
            return _NUMERIC[operator](read(field), value)
        case Among(field, kind, values, negated):
            if texts := frozenset(value.lower() for value in values if isinstance(value, str)):
                return _text(read(field), kind, texts, negated=negated)
            numbers = frozenset(value for value in values if not isinstance(value, str))
            return _numbers(read(field), numbers, negated=negated)
        case Matching(field, kind, pattern, negated):
            return _matching(read(field), kind, pattern, negated=negated)


def _all_of(terms: list[Condition[E]]) -> Condition[E]:
    if len(terms) == 2:
        one, two = terms
        return lambda event: one(event) and two(event)

    def condition(event: E) -> bool:
        for term in terms:  # noqa: SIM110  # all() with a generator takes twice as long
            if not term(event):
                return False
        return True

    return condition


def _any_of(terms: list[Condition[E]]) -> Condition[E]:
    if len(terms) == 2:
        one, two = terms
        return lambda event: one(event) or two(event)

    def condition(event: E) -> bool:
        for term in terms:  # noqa: SIM110  # as above
            if term(event):
                return True
        return False

    return condition


def _not(term: Condition[E]) -> Condition[E]:
    return lambda event: not term(event)


def _flag(read: Read[E]) -> Condition[E]:
    return lambda event: read(event) is True


def _text(read: Read[E], kind: FieldType, wanted: frozenset[str], *, negated: bool) -> Condition[E]:
    if kind is FieldType.TEXTS:
        return _texts(read, lambda text: text.lower() in wanted, negated=negated)

    def condition(event: E) -> bool:
        value = read(event)
        return isinstance(value, str) and (value.lower() in wanted) is not negated

    return condition


def _matching(read: Read[E], kind: FieldType, pattern: str, *, negated: bool) -> Condition[E]:
    search = compile_pattern(pattern).search
    if kind is FieldType.TEXTS:
        return _texts(read, lambda text: search(text[:LONGEST_VALUE].lower()) is not None, negated=negated)

    def condition(event: E) -> bool:
        value = read(event)
        return isinstance(value, str) and (search(value[:LONGEST_VALUE].lower()) is None) is negated

    return condition


def _texts(read: Read[E], fits: Callable[[str], bool], *, negated: bool) -> Condition[E]:
    """Of several texts, one must fit; negated: none, and there is one."""

    def condition(event: E) -> bool:
        value = read(event)
        if not isinstance(value, tuple | list | set | frozenset):
            return False
        texts = [text for text in value if isinstance(text, str)]
        return bool(texts) and any(map(fits, texts)) is not negated

    return condition


def _numbers(read: Read[E], wanted: frozenset[float], *, negated: bool) -> Condition[E]:
    def condition(event: E) -> bool:
        value = read(event)
        # What is not a number (NaN) equals nothing, not even itself, and counts as missing.
        return isinstance(value, int | float) and (value in wanted) is not negated and value == value  # noqa: PLR0124

    return condition


def _less(read: Read[E], limit: float) -> Condition[E]:
    def condition(event: E) -> bool:
        value = read(event)
        return isinstance(value, int | float) and value < limit

    return condition


def _at_most(read: Read[E], limit: float) -> Condition[E]:
    def condition(event: E) -> bool:
        value = read(event)
        return isinstance(value, int | float) and value <= limit

    return condition


def _more(read: Read[E], limit: float) -> Condition[E]:
    def condition(event: E) -> bool:
        value = read(event)
        return isinstance(value, int | float) and value > limit

    return condition


def _at_least(read: Read[E], limit: float) -> Condition[E]:
    def condition(event: E) -> bool:
        value = read(event)
        return isinstance(value, int | float) and value >= limit

    return condition


_NUMERIC: Final[Mapping[Operator, Callable[[Read[Any], float], Condition[Any]]]] = {
    Operator.EQUAL: lambda read, value: _numbers(read, frozenset({value}), negated=False),
    Operator.DIFFERENT: lambda read, value: _numbers(read, frozenset({value}), negated=True),
    Operator.LESS: _less,
    Operator.AT_MOST: _at_most,
    Operator.MORE: _more,
    Operator.AT_LEAST: _at_least,
}

"""How a condition is written: words, quotation marks, brackets and their order, in pyparsing. What it means, `expression` says.

By itself, as pyparsing takes long to load and most processes read no condition.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import pyparsing as pp

from parsers.expression import QUOTED, SIGNS, WORD, AllOf, AnyOf, Not, Token, Untyped, Written


class UnreadableError(Exception):
    """No condition, from this place on."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


def _keyword(word: str) -> pp.ParserElement:
    return pp.Regex(rf"(?i:{word})(?!{WORD})")


def _token(pattern: str, *, quoted: bool = False) -> pp.ParserElement:
    element = pp.Regex(pattern, re.DOTALL)
    return element.add_parse_action(lambda _, at, found: Token(str(found[0]), quoted, at))


def _several(kind: type[AllOf | AnyOf]) -> Callable[[pp.ParseResults], Any]:
    return lambda found: kind(tuple(found)) if len(found) > 1 else found[0]


def _negated(found: pp.ParseResults) -> Any:
    """Two `not` are none, also with brackets between them."""
    *nots, term = found
    if len(nots) % 2 == 0:
        return term
    return term.term if isinstance(term, Not) else Not(term)


def _comparison(found: pp.ParseResults) -> Written:
    field, *rest = found
    negated = bool(rest) and rest[0] == "not"
    if negated:
        del rest[0]
    return Written(field, rest[0] if rest else None, negated, tuple(rest[1:]))


def _grammar() -> pp.ParserElement:
    word_and, word_or, word_not = _keyword("and").suppress(), _keyword("or").suppress(), _keyword("not")
    word_not.add_parse_action(lambda: "not")
    opening, closing, comma = (pp.Literal(sign).suppress() for sign in "(),")
    word = ~_keyword("(?:and|or|not|in)") + _token(WORD)
    value = _token(QUOTED, quoted=True) | word
    within = _token(rf"(?i:in)(?!{WORD})")
    values = opening - value - (comma - value)[...] - closing
    comparison = word + pp.Opt(_token(SIGNS) - value | within - values | word_not - within - values)
    comparison.add_parse_action(_comparison)
    expression = pp.Forward()
    factor = (word_not[...] + (opening - expression - closing | comparison)).add_parse_action(_negated)
    conjunction = (factor + (word_and - factor)[...]).add_parse_action(_several(AllOf))
    expression <<= (conjunction + (word_or - conjunction)[...]).add_parse_action(_several(AnyOf))
    return expression.parse_with_tabs()


_GRAMMAR: Final = _grammar()


def read(text: str) -> Untyped:
    """Read a condition whose fields are not known yet. Raises UnreadableError, at what could not be read."""
    try:
        (written,) = _GRAMMAR.parse_string(text, parse_all=True)
    except pp.ParseBaseException as error:
        at = error.loc
        while at < len(text) and text[at] in pp.ParserElement.DEFAULT_WHITE_CHARS:
            at += 1
        raise UnreadableError(at) from None
    found: Untyped = written
    return found

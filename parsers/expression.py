"""The language of conditions, as `provider in (google, yahoo) and not header.list-id ~ "alerts"`: text to typed values.

Knows the grammar, which comparison goes with which type of field, and what a good error says. Which fields there are,
the caller declares; what an event has in them, `condition` looks up.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from parsers.linear import compile_pattern

LONGEST: Final = 4096
"""Characters of an expression."""
DEEPEST: Final = 25
"""Brackets within brackets."""


class FieldType(StrEnum):
    """What a field holds, and thereby what it may be compared with."""

    TEXT = "text"
    TEXTS = "texts"
    """Several, as the blocklists that a reply names."""
    NUMBER = "number"
    DURATION = "duration"
    """Seconds."""
    SIZE = "size"
    """Bytes."""
    SHARE = "share"
    """0 to 1; written as 5% or 0.05."""
    FLAG = "flag"
    """True or false; stands alone."""


class Field(NamedTuple):
    """A field that expressions may name."""

    type: FieldType
    words: tuple[str, ...] = ()
    """All values that it can have; empty: any. A word outside is refused as a typo."""


Fields: TypeAlias = Mapping[str, Field]
"""Name, in small letters -> field. A name that ends in ".*" stands for all names that begin so ("header.*")."""


class Operator(StrEnum):
    EQUAL = "="
    DIFFERENT = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


class Comparison(NamedTuple):
    field: str
    type: FieldType
    operator: Operator
    value: str | float


class Among(NamedTuple):
    """`in`, `not in`."""

    field: str
    type: FieldType
    values: tuple[str | float, ...]
    negated: bool


class Matching(NamedTuple):
    """`~`, `!~`."""

    field: str
    type: FieldType
    pattern: str
    negated: bool


class Flag(NamedTuple):
    field: str


class Not(NamedTuple):
    term: "Expression"


class AllOf(NamedTuple):
    terms: tuple["Expression", ...]


class AnyOf(NamedTuple):
    terms: tuple["Expression", ...]


Expression: TypeAlias = Comparison | Among | Matching | Flag | Not | AllOf | AnyOf


class ExpressionError(Exception):
    """An expression that cannot be used: says the column, what was found there and what would be right."""

    def __init__(self, text: str, at: int, problem: str, remedy: str) -> None:
        self.column = min(at, len(text)) + 1
        """From 1; behind the last character where something is missing."""
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"column {self.column}: {problem}; {remedy}\n{_pointed_at(text, self.column - 1)}")


_AROUND: Final = 60
"""Characters of a long expression that are shown on each side of the error."""


def _pointed_at(text: str, at: int) -> str:
    start, end = max(0, at - _AROUND), at + _AROUND
    shown = "".join(sign if sign.isprintable() else " " for sign in text[start:end])
    before, after = "..." if start else "", "..." if end < len(text) else ""
    return f"  {before}{shown}{after}\n  {' ' * (len(before) + at - start)}^"


def _shown(text: str) -> str:
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    return text if len(text) <= 40 else f"{text[:40]}..."


def parse(text: str, fields: Fields) -> Expression:
    """Read an expression about the given fields. Raises ExpressionError, and nothing else, whatever the text."""
    _bound(text)
    # Only who has a condition waits for pyparsing: it takes as long to load as all else that a command needs.
    from parsers.expression_grammar import UnreadableError, read  # noqa: PLC0415  # as said

    try:
        written = read(text)
    except UnreadableError as fault:
        raise _syntax_error(text, fault.at) from None
    return _typed(written, _Typing(text, fields))


def unparse(expression: Expression) -> str:
    """Write an expression down; reading that gives it again."""
    match expression:
        case AllOf(terms):
            return " and ".join(map(_in_brackets, terms))
        case AnyOf(terms):
            return " or ".join(map(_in_brackets, terms))
        case Not(term):
            return f"not {_in_brackets(term)}"
        case Comparison(field, _, operator, value):
            return f"{field} {operator} {_literal(value)}"
        case Among(field, _, values, negated):
            return f"{field} {'not in' if negated else 'in'} ({', '.join(map(_literal, values))})"
        case Matching(field, _, pattern, negated):
            return f"{field} {'!~' if negated else '~'} {_literal(pattern)}"
        case Flag(field):
            return field


def fields_of(expression: Expression) -> set[str]:
    """Name the fields that an expression asks of an event."""
    match expression:
        case AllOf(terms) | AnyOf(terms):
            return set().union(*map(fields_of, terms))
        case Not(term):
            return fields_of(term)
        case Comparison(field) | Among(field) | Matching(field) | Flag(field):
            return {field}


def _in_brackets(term: Expression) -> str:
    return f"({unparse(term)})" if isinstance(term, AllOf | AnyOf) else unparse(term)


def _literal(value: str | float) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


# --- the grammar --------------------------------------------------------------------------------------------------

WORD: Final = r"[^\s()=!<>~,\"']+"
QUOTED: Final = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
SIGNS: Final = r"&&|\|\||[=!<>~]+"
_TOKEN: Final = re.compile(rf"{QUOTED}|{SIGNS}|{WORD}|[^ \t\r\n]", re.DOTALL)
_LIKELY: Final = {
    "==": "=", "=~": "~", "<>": "!=", "=<": "<=", "=>": ">=", "!": "not", "&&": "and", "||": "or", "like": "~",
    "is": "=", "&": "and", "|": "or",
}  # fmt: skip
"""What people write who come from elsewhere, and what they mean."""


class Token(NamedTuple):
    text: str
    quoted: bool
    at: int


class Written(NamedTuple):
    """A comparison as it is written, before its field is known."""

    field: Token
    operator: Token | None
    negated: bool
    values: tuple[Token, ...]


Untyped: TypeAlias = "Written | Not | AllOf | AnyOf"


def _bound(text: str) -> None:
    """Refuse what is too long or too deep to be a condition, before anything recurses into it."""
    if len(text) > LONGEST:
        raise ExpressionError(text, LONGEST, f"{len(text)} characters", f"wanted at most {LONGEST}")
    depth = 0
    for found in _TOKEN.finditer(text):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth > DEEPEST:
            raise ExpressionError(text, found.start(), f"more than {DEEPEST} brackets within brackets", "wanted fewer")


_FIELD: Final = "wanted a field, not or ("
_VALUE: Final = 'wanted a value, as google, "two words" or 5m'
_LIST: Final = "wanted a list in brackets, as in (google, yahoo)"


def _syntax_error(text: str, at: int) -> ExpressionError:
    before = [found[0] for found in _TOKEN.finditer(text, 0, at)]
    found = _TOKEN.match(text, at)
    if found is None:
        return ExpressionError(text, at, "it ends here" if before else "nothing is there", _wanted_after(before))
    if found[0] in {'"', "'"}:
        return ExpressionError(text, at, "a quotation mark that is not closed", f"wanted {found[0]} at its end too")
    likely = _LIKELY.get(found[0].lower())
    return ExpressionError(
        text, at, f"found {_shown(found[0])}", f"wanted {likely}" if likely else _wanted_after(before)
    )


def _wanted_after(before: list[str]) -> str:
    """What can follow these tokens, the last of which ends where the error is."""
    *_, earlier, last = ["", "", *(token.lower() for token in before)]
    opened = _open_brackets(before)
    if last == "in" or (last == "not" and earlier not in {"", "and", "or", "not", "("}):
        return _LIST
    if re.fullmatch(SIGNS, last) or (opened[-1:] == ["in"] and last in {"(", ","}):
        return _VALUE
    if last in {"", "and", "or", "not", "("}:
        return _FIELD
    if opened[-1:] == ["in"]:
        return "wanted , or )"
    ends = "and, or, or )" if opened else "and, or, or the end"
    whole = last == ")" or re.fullmatch(SIGNS, earlier)
    return f"wanted {ends}" if whole else f"wanted an operator (= != < <= > >= in ~ !~), {ends}"


def _open_brackets(tokens: list[str]) -> list[str]:
    """The token before each bracket that is not closed."""
    opened: list[str] = []
    for sign, previous in zip(tokens, ["", *tokens], strict=False):
        if sign == "(":
            opened.append(previous.lower())
        elif sign == ")" and opened:
            opened.pop()
    return opened


# --- types --------------------------------------------------------------------------------------------------------


def _typed(written: "Untyped", typing: "_Typing") -> Expression:
    match written:
        case Not(term):
            return Not(_typed(term, typing))  # type: ignore[arg-type]  # untyped so far
        case AllOf(terms):
            return AllOf(tuple(_typed(term, typing) for term in terms))  # type: ignore[arg-type]  # as above
        case AnyOf(terms):
            return AnyOf(tuple(_typed(term, typing) for term in terms))  # type: ignore[arg-type]  # as above
        case Written():
            return typing.comparison(written)


_ORDER: Final = frozenset({"<", "<=", ">", ">="})
_MATCH: Final = frozenset({"~", "!~"})
_TEXTUAL: Final = frozenset({FieldType.TEXT, FieldType.TEXTS})
_NUMBER: Final = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)([a-z%]*)", re.ASCII | re.IGNORECASE)
_UNITS: Final[Mapping[FieldType, Mapping[str, tuple[float, float]]]] = {
    FieldType.NUMBER: {"": (1, 1)},
    FieldType.DURATION: {
        "": (1, 1), "ms": (1, 1000), "s": (1, 1), "m": (60, 1), "h": (3600, 1), "d": (86400, 1), "w": (604800, 1),
    },
    FieldType.SIZE: {"": (1, 1), "k": (2**10, 1), "m": (2**20, 1), "g": (2**30, 1), "t": (2**40, 1)},
    FieldType.SHARE: {"": (1, 1), "%": (1, 100)},
}  # fmt: skip
"""Unit -> multiply by, divide by."""
_EXAMPLES: Final = {
    FieldType.NUMBER: "a number, as 3",
    FieldType.DURATION: "a time, as 30s, 5m, 2h or 1d",
    FieldType.SIZE: "a size, as 10k, 2m or a number of bytes",
    FieldType.SHARE: "a share, as 5% or 0.05",
}


class _Typing(NamedTuple):
    """Gives written comparisons their types, or an error that points at what does not fit."""

    text: str
    fields: Fields

    def error(self, token: Token, problem: str, remedy: str) -> ExpressionError:
        return ExpressionError(self.text, token.at, problem, remedy)

    def comparison(self, written: Written) -> Expression:
        name, field = self.field(written.field)
        operator = written.operator
        if operator is None:
            if field.type is not FieldType.FLAG:
                raise self.error(
                    written.field, f"{name} stands alone", f"it is {field.type}: wanted {_operators(field.type)}"
                )
            return Flag(name)
        sign = operator.text.lower()
        if field.type is FieldType.FLAG:
            raise self.error(operator, f"{name} is a flag", f"it stands alone: wanted {name} or not {name}")
        if sign == "in":
            values = tuple(self.value(name, field, token) for token in written.values)
            return Among(name, field.type, values, written.negated)
        (token,) = written.values
        if sign in _MATCH and field.type in _TEXTUAL:
            return Matching(name, field.type, self.pattern(token), negated=sign == "!~")
        if sign not in set(Operator) | _MATCH:
            likely = _LIKELY.get(sign)
            wanted = likely or _operators(field.type)
            raise self.error(operator, f"found {_shown(sign)}", f"wanted {wanted}")
        if sign in _MATCH or (sign in _ORDER and field.type in _TEXTUAL):
            raise self.error(operator, f"{sign} for {name}, which is {field.type}", f"wanted {_operators(field.type)}")
        return Comparison(name, field.type, Operator(sign), self.value(name, field, token))

    def field(self, token: Token) -> tuple[str, Field]:
        name = token.text.lower()
        first, dot, rest = name.partition(".")
        field = self.fields.get(name) or (self.fields.get(f"{first}.*") if dot and rest else None)
        if field is None or "*" in name:
            raise self.error(token, f"unknown field {_shown(token.text)}", _nearest(name, self.fields))
        return name, field

    def value(self, name: str, field: Field, token: Token) -> str | float:
        if field.type not in _TEXTUAL:
            return self.number(name, field.type, token)
        text = _unquoted(token)
        if field.words and text.lower() not in field.words:
            raise self.error(token, f"{name} is never {_shown(text)}", _nearest(text.lower(), field.words))
        return text

    def number(self, name: str, kind: FieldType, token: Token) -> float:
        parts = None if token.quoted else _NUMBER.fullmatch(token.text)
        unit = _UNITS[kind].get(parts[2].lower()) if parts else None
        if parts is None or unit is None:
            raise self.error(token, f"found {_shown(token.text)} for {name}", f"wanted {_EXAMPLES[kind]}")
        number = float(parts[1]) * unit[0] / unit[1]
        if not math.isfinite(number):
            raise self.error(token, f"found {_shown(token.text)} for {name}", "wanted a number that is not so large")
        return number + 0.0  # no -0

    def pattern(self, token: Token) -> str:
        source = _unquoted(token)
        try:
            compile_pattern(source)
        except ValueError as error:
            raise self.error(token, str(error), "wanted a regular expression of bounded work") from error
        return source


def _unquoted(token: Token) -> str:
    r"""The text itself; within quotes \" is " and \\ is \, any other backslash stays (so "\d" is a digit)."""
    if not token.quoted:
        return token.text
    return re.sub(rf"\\([\\{token.text[0]}])", r"\1", token.text[1:-1])


def _operators(kind: FieldType) -> str:
    return "= != in ~ !~" if kind in _TEXTUAL else "= != < <= > >= in"


def _nearest(found: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(found, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"

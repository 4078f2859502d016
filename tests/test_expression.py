"""The language of conditions: what it says, what it refuses and where it points, and that no text or event upsets it."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.condition import by_attribute, by_key, compile_expression
from parsers.expression import (
    DEEPEST,
    LONGEST,
    AllOf,
    Among,
    AnyOf,
    Comparison,
    Expression,
    ExpressionError,
    Field,
    Fields,
    FieldType,
    Flag,
    Matching,
    Not,
    Operator,
    parse,
    unparse,
)

HERE = Path(__file__).parent
BAD = sorted((HERE / "badexpression").glob("*.txt"))
FIELDS: Fields = {
    "provider": Field(FieldType.TEXT),
    "sender": Field(FieldType.TEXT),
    "sasl_username": Field(FieldType.TEXT),
    "header.*": Field(FieldType.TEXT),
    "bounce": Field(FieldType.TEXT, ("hard", "soft", "block", "transient")),
    "blocklists": Field(FieldType.TEXTS),
    "recipients": Field(FieldType.NUMBER),
    "delay": Field(FieldType.DURATION),
    "size": Field(FieldType.SIZE),
    "deferred": Field(FieldType.SHARE),
    "held": Field(FieldType.FLAG),
}
EVENT: Mapping[str, Any] = {
    "provider": "google",
    "sender": "News@Shop.Example",
    "sasl_username": "newsletter",
    "header.list-id": "<offers.shop.example>",
    "bounce": "transient",
    "blocklists": ("spamhaus_zen", "spamcop"),
    "recipients": 3,
    "delay": 301.5,
    "size": 10240,
    "deferred": 0.07,
    "held": True,
}


def holds(text: str, event: Mapping[str, Any] = EVENT) -> bool:
    return compile_expression(parse(text, FIELDS), by_key)(event)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('provider in (google, yahoo) and sasl_username = "newsletter" and not header.list-id ~ "alerts"', True),
        ("provider = google", True),
        ("provider=GOOGLE", True),
        ("Provider = google AND Not Held", False),
        ("provider != google", False),
        ("provider != yahoo", True),
        ("provider not in (yahoo, apple)", True),
        ("provider NOT IN (yahoo, Google)", False),
        ("sender = news@shop.example", True),
        (r'sender ~ "@SHOP\.example$"', True),
        (r"sender ~ ^news", True),
        (r"sender !~ '\d'", True),
        ("header.list-id ~ offers", True),
        ("header.list-id = '<offers.shop.example>'", True),
        ("blocklists = spamcop", True),
        ("blocklists in (sorbs, spamhaus_zen)", True),
        ("blocklists != spamcop", False),
        ("blocklists ~ ^spam", True),
        ("blocklists !~ barracuda", True),
        ("recipients = 3", True),
        ("recipients in (1, 2)", False),
        ("recipients not in (1, 2)", True),
        ("recipients != 3", False),
        ("delay > 5m", True),
        ("delay > 301s and delay <= 301500ms", True),
        ("delay < 1h and delay < 1d and delay < 1w", True),
        ("size = 10k and size <= 1m and size < 1G", True),
        ("deferred = 7%", True),
        ("deferred >= 0.07", True),
        ("held and not not held", True),
        ("not held or provider = google", True),
        ("held or provider = yahoo and provider = apple", True),
        ("(held or provider = yahoo) and provider = apple", False),
        ("held and provider = google and recipients = 3 and size > 1", True),
        ("provider = yahoo or provider = apple or provider = gmx", False),
        ("provider = yahoo or provider = apple or held", True),
        (r'sender = "news\"s" or sender = "a\\b"', False),
        ("\tprovider\n=\r\n google ", True),
    ],
)
def test_what_it_says(text: str, expected: bool) -> None:  # noqa: FBT001  # a column of the table
    assert holds(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        "provider = google", "provider != google", "provider in (google)", "provider not in (google)",
        "provider ~ g", "provider !~ x", "header.x = a", "blocklists = a", "blocklists != a", "blocklists !~ a",
        "recipients = 1", "recipients != 1", "recipients < 1", "recipients <= 1", "recipients > 1", "recipients >= 1",
        "recipients in (1)", "recipients not in (1)", "held",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, "missing", b"bytes", {}, object(), (), (1,), 1 + 2j, math.nan, []])
def test_a_missing_value_or_one_of_another_type_makes_every_comparison_false(text: str, value: object) -> None:
    event = {} if value == "missing" else {"provider": value, "header.x": value, "blocklists": value,
                                           "recipients": value, "held": value}  # fmt: skip
    assert not holds(text, event)
    assert holds(f"not {text}", event)


def test_quotation_marks_and_backslashes() -> None:
    assert parse(r'sender = "a\"b\\c\d"', FIELDS) == Comparison("sender", FieldType.TEXT, Operator.EQUAL, 'a"b\\c\\d')
    assert parse(r"sender = 'a\'b'", FIELDS) == Comparison("sender", FieldType.TEXT, Operator.EQUAL, "a'b")


def test_records_are_read_by_attribute() -> None:
    class Row(NamedTuple):
        provider: str

    condition = compile_expression(parse("provider = google and not held", FIELDS), by_attribute)
    assert condition(Row("google"))
    assert not condition(Row("yahoo"))


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_bad_expressions_are_refused_at_their_column(file: Path) -> None:
    text, _, expected = file.read_text().partition("\n---\n")
    with pytest.raises(ExpressionError) as caught:
        parse(text, FIELDS)
    assert str(caught.value) == expected.removesuffix("\n")
    pointer = str(caught.value).splitlines()[-1]
    assert pointer.strip() == "^"
    assert caught.value.column == pointer.index("^") - 1 or len(text) > 120


def test_the_error_of_a_long_expression_shows_the_place_alone() -> None:
    text = " or ".join(["provider = google"] * 50) + " or provder = x" + " or held" * 50
    with pytest.raises(ExpressionError) as caught:
        parse(text, FIELDS)
    _, shown, pointer = str(caught.value).splitlines()
    assert len(shown) < 140
    assert shown[pointer.index("^") :].startswith("provder")
    assert text[caught.value.column - 1 :].startswith("provder")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "not " * 1000 + "held",
        "not (" * 1000 + "held" + ")" * 1000,
        "(" * (DEEPEST + 1) + "held" + ")" * (DEEPEST + 1),
        "provider in (" + "a," * 3000,
        "a" * (LONGEST + 1),
        '"' * 4000,
        "held and " * 400,
        "\ud800 = 1",
        "provider ~ '" + "(" * 2000 + "'",
        "provider ~ 'a{99999999999999999999}'",
        "provider ~ '(?:a{0,80}){20}b'",
        "provider ~ '[[a]'",
    ],
    ids=range(13),
)
def test_what_is_too_long_or_too_deep_is_refused_or_read(text: str) -> None:
    try:
        assert compile_expression(parse(text, FIELDS), by_key)(EVENT) in {True, False}
    except ExpressionError as error:
        assert 1 <= error.column <= len(text) + 1  # noqa: PT017  # the other outcome is as good


def test_every_documented_example_is_read() -> None:
    document = (HERE.parent / "docs" / "expressions.md").read_text()
    blocks = re.findall(r"```expression\n(.*?)```", document, re.DOTALL)
    examples = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    assert len(examples) > 10
    for example in examples:
        assert holds(example) in {True, False}
    (shown,) = re.findall(r"```error\n(.*?)\n(.*?)```", document, re.DOTALL)
    with pytest.raises(ExpressionError) as caught:
        parse(shown[1].splitlines()[0].strip(), FIELDS)
    assert str(caught.value) + "\n" == "\n".join(shown)


def test_the_deepest_is_read() -> None:
    assert holds("(" * DEEPEST + "held" + ")" * DEEPEST)
    assert holds("not (held and " * DEEPEST + "held" + ")" * DEEPEST) is (DEEPEST % 2 == 0)


# --- properties ---------------------------------------------------------------------------------------------------

PIECES = ["provider", "held", "delay", "header.x", "in", "not", "and", "or", "(", ")", ",", "=", "!=", "~", "!~", "<",
          ">=", "google", '"a b"', "'", '"', "5m", "10k", "5%", "-1e3", "\\", "\t", "\u00a0", "[", "x" * 30]  # fmt: skip


@settings(deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join))
def test_any_text_gives_an_expression_or_an_error(text: str) -> None:
    try:
        expression = parse(text, FIELDS)
    except ExpressionError as error:
        assert 1 <= error.column <= len(text) + 1  # noqa: PT017  # the other outcome is as good
    else:
        assert parse(unparse(expression), FIELDS) == expression
        assert compile_expression(expression, by_key)(EVENT) in {True, False}


TEXTS = ["provider", "sender", "header.list-id"]
NUMBERS = {"recipients": FieldType.NUMBER, "delay": FieldType.DURATION, "size": FieldType.SIZE,
           "deferred": FieldType.SHARE}  # fmt: skip
SAID = st.sampled_from(["google", "GOOGLE", "yahoo", "", 'a"b\\', "é\n"]) | st.text(max_size=8)
NUMBER = st.sampled_from([0.0, 1.0, 0.5, 300.0]) | st.floats(allow_nan=False, allow_infinity=False).map(
    lambda x: x + 0.0
)
TEXTUAL = st.sampled_from([*((name, FieldType.TEXT) for name in TEXTS), ("blocklists", FieldType.TEXTS)])
NUMERIC = st.sampled_from(list(NUMBERS.items()))


def several(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=1, max_size=3).map(tuple)


LEAVES: st.SearchStrategy[Expression] = st.one_of(
    st.builds(
        lambda f, o, v: Comparison(f[0], f[1], o, v),
        TEXTUAL,
        st.sampled_from([Operator.EQUAL, Operator.DIFFERENT]),
        SAID,
    ),
    st.builds(lambda f, o, v: Comparison(f[0], f[1], o, v), NUMERIC, st.sampled_from(Operator), NUMBER),
    st.builds(lambda f, v, n: Among(f[0], f[1], v, n), TEXTUAL, several(SAID), st.booleans()),
    st.builds(lambda f, v, n: Among(f[0], f[1], v, n), NUMERIC, several(NUMBER), st.booleans()),
    st.builds(
        lambda f, p, n: Matching(f[0], f[1], p, n),
        TEXTUAL,
        st.sampled_from(["oo", "^g", r"\d+$", "[A-F]x?"]),
        st.booleans(),
    ),
    st.just(Flag("held")),
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda terms: st.one_of(
        st.lists(terms, min_size=2, max_size=4).map(lambda found: AllOf(tuple(found))),
        st.lists(terms, min_size=2, max_size=4).map(lambda found: AnyOf(tuple(found))),
        terms.map(lambda term: term.term if isinstance(term, Not) else Not(term)),
    ),
    max_leaves=12,
)
VALUES = st.none() | SAID | NUMBER | st.integers() | st.booleans() | st.lists(SAID | st.integers(), max_size=3)
EVENTS = st.dictionaries(st.sampled_from([*TEXTS, *NUMBERS, "blocklists", "held"]), VALUES)


@settings(deadline=None)
@given(EXPRESSIONS)
def test_what_is_written_down_is_read_again(expression: Expression) -> None:
    text = unparse(expression)
    if len(text) <= LONGEST:
        assert parse(text, FIELDS) == expression


@settings(deadline=None)
@given(EXPRESSIONS, EVENTS)
def test_a_compiled_expression_says_what_a_plain_evaluator_says(expression: Expression, event: dict[str, Any]) -> None:
    assert compile_expression(expression, by_key)(event) is plainly(expression, event)


def plainly(expression: Expression, event: Mapping[str, Any]) -> bool:
    """The meaning, written as simply as can be."""
    match expression:
        case AllOf(terms):
            return all(plainly(term, event) for term in terms)
        case AnyOf(terms):
            return any(plainly(term, event) for term in terms)
        case Not(term):
            return not plainly(term, event)
        case Flag(field):
            return event.get(field) is True
        case Matching(field, kind, pattern, negated):
            found = texts_of(event.get(field), kind)
            fits = any(re.search(pattern.lower() if "[" in pattern else pattern, text.lower()) for text in found)
            return bool(found) and fits is not negated
        case Among(field, kind, values, negated):
            return equals(event.get(field), kind, values, negated=negated)
        case Comparison(field, kind, Operator.EQUAL | Operator.DIFFERENT as operator, value):
            return equals(event.get(field), kind, (value,), negated=operator is Operator.DIFFERENT)
        case Comparison(field, _, operator, value):
            number = event.get(field)
            if not isinstance(number, int | float) or not isinstance(value, float):
                return False
            return {Operator.LESS: number < value, Operator.AT_MOST: number <= value, Operator.MORE: number > value,
                    Operator.AT_LEAST: number >= value}[operator]  # fmt: skip


def texts_of(value: object, kind: FieldType) -> list[str]:
    if kind is FieldType.TEXT:
        return [value] if isinstance(value, str) else []
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def equals(value: object, kind: FieldType, wanted: tuple[str | float, ...], *, negated: bool) -> bool:
    if kind in NUMBERS.values():
        return isinstance(value, int | float) and (value in wanted) is not negated
    found = [text.lower() for text in texts_of(value, kind)]
    among = any(text in {str(one).lower() for one in wanted} for text in found)
    return bool(found) and among is not negated

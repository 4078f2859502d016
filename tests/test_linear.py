"""No pattern that is let through takes long on any text, however its repeats are written."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.linear import compile_pattern


@pytest.mark.parametrize(
    "source",
    [
        "(?:a{0,80}){20}b",
        "(?:(?:a|a){10}){3}b",
        "(?>(?:a+)+b)",
        "(?:(?:a+)+b)++",
        "(x)?(?(1)(?:a+)+b|c)",
        "(?=(?:a+)+b)",
        "(?:a|aa)*b",
    ],
)
def test_repeats_of_repeats_are_refused_in_every_dress(source: str) -> None:
    with pytest.raises(ValueError, match="too many ways"):
        compile_pattern(source)


@pytest.mark.parametrize("source", ["(" * 5000, "a{99999999999999999999}", "(?P<x>", "[", "\\"])
def test_what_is_no_expression_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        compile_pattern(source)


@pytest.mark.parametrize("source", ["[[a]", "[a--b]", "[a&&b]", "[^[]", "[a~~b]", "[a||b]"])
def test_sets_that_another_python_reads_otherwise_are_refused(source: str) -> None:
    with pytest.raises(ValueError, match="in a set"):
        compile_pattern(source)
    assert compile_pattern(r"[\[a\-&]")


PIECES = st.sampled_from(["a", "b", "a*", "a+?", "(?:a|ab)", "(?:a|ab)*", "a{0,9}", "(?:a{0,9}){3}", "(?:b?a)*", ".", ".*",
                          "[ab]+", "(?:aa){2,5}", "^", "$", "(?:a*){2}", "(?:(?:a|b){2}){4}"])  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.lists(PIECES, min_size=1, max_size=5).map("".join), st.sampled_from(["a", "ab", "aab"]))
def test_what_is_let_through_is_soon_done(source: str, period: str) -> None:
    try:
        pattern = compile_pattern(source + "c")
    except ValueError:
        return
    text = period * 300
    began = time.process_time()
    assert pattern.search(text) is None
    assert time.process_time() - began < 5


@given(st.text(alphabet="ab[]()*+?{},0123\\|^$.-&", max_size=30))
def test_any_text_is_compiled_or_refused(source: str) -> None:
    try:
        assert isinstance(compile_pattern(source), re.Pattern)
    except ValueError as error:
        assert str(error)  # noqa: PT017  # the other outcome is as good

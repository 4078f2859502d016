"""Dialects of regular expressions: Rust's regex and fancy-regex, PCRE and POSIX classes, written as Python's re has them.

Knows what the same thing is called, and for what there is no word here.
"""

import re
from typing import Final

from parsers.linear import has_set_operation


class PatternError(Exception):
    """A pattern that cannot be carried over: says why."""


_POSIX: Final = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z", "lower": "a-z", "space": r"\s",
    "blank": r" \t", "punct": r"!-/:-@\[-`{-~", "word": r"\w", "xdigit": "0-9a-fA-F",
}  # fmt: skip
_FOREIGN: Final = re.compile(
    r"\\Q(?P<quoted>.*?)(?:\\E|$)|\\x\{(?P<hex>[0-9a-fA-F]{1,6})\}|\[:(?P<posix>[a-z]+):\]|(?P<named>\(\?<(?![=!]))"
    r"|\\(?P<escape>.)|(?P<odd>\(\*|\(\?[R&0-9+|]|\(\?-?\d)",
    re.DOTALL,
)
_ESCAPES: Final = {"h": " ", "z": "$", "Z": "$", "A": "^", "/": "/", "<": r"\b", ">": r"\b", "e": "\x1b"}
_UNKNOWN: Final = {
    "K": "\\K (keep)", "G": "\\G", "R": "\\R", "X": "\\X", "p": "a Unicode property", "P": "a Unicode property",
    "N": "\\N", "g": "a numbered reference", "k": "a named reference", "C": "\\C",
}  # fmt: skip


def to_python(source: str) -> str:
    """The same in the dialect of re. Raises PatternError for what it has no word for."""
    flags = re.match(r"\(\?([a-z]+)\)", source)
    if flags and not set(flags[1]) <= set("ismx"):
        raise PatternError(f"flags {flags[0]} that are unknown here")
    if "(?i)" in source[1:] or re.search(r"(?<!^)\(\?[a-z]+\)", source):
        raise PatternError("flags in the middle of a pattern")
    translated = _FOREIGN.sub(_translated, source)
    if has_set_operation(translated):
        raise PatternError("a set of letters within a set, or an operation between two")
    return translated


def _translated(found: re.Match[str]) -> str:
    if found["quoted"] is not None:
        return re.escape(found["quoted"])
    if found["hex"]:
        return re.escape(chr(min(int(found["hex"], 16), 0x10FFFF)))
    if found["posix"]:
        if found["posix"] not in _POSIX:
            raise PatternError(f"an unknown class of letters {found[0]}")
        return _POSIX[found["posix"]]
    if found["named"]:
        return "(?P<"
    if found["odd"]:
        raise PatternError(f"{found[0]}...: recursion, verbs and branch resets are unknown here")
    escape = found["escape"]
    if escape in _UNKNOWN:
        raise PatternError(f"{_UNKNOWN[escape]} is unknown here")
    return _ESCAPES.get(escape, found[0])

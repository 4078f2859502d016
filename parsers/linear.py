"""Regular expressions of bounded work: texts are written by whoever answers, so no pattern may take long on any.

Knows how much a pattern can be made to backtrack, and refuses what is too much when it is read.
"""

import re
from re import _constants as constants  # type: ignore[attr-defined]  # the parser of re has no public name
from re import _parser as parser  # type: ignore[attr-defined]  # as above
from typing import Any, Final

_MOST: Final = 20_000
"""Ways to read one text from one place: one `.*` over a reply of 4,096 characters with a little beside it."""
_ENDLESS: Final = 4096
_TURNS: Final = 20
"""Turns of a repeat that are counted; with two ways a turn that many are far too many already."""
_REPEATS: Final = frozenset({constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT})
_LETTERS: Final = re.compile(r"\\.|\(\?P|[A-Z]")
_SET: Final = re.compile(r"\\.|\[\^?(\]?(?:\\.|[^\]\\])*)", re.DOTALL)
_UNSURE: Final = re.compile(r"^\[|--|&&|~~|\|\|")
"""Within a set; FutureWarning of re."""


def compile_pattern(source: str) -> re.Pattern[str]:
    """Compile a pattern, for text in small letters.

    Raises ValueError for what is no expression, and for repeats whose combinations are too many.
    """
    source = _LETTERS.sub(lambda found: found[0] if len(found[0]) > 1 else found[0].lower(), source)
    if has_set_operation(source):
        raise ValueError("in a set, write \\[ for [ and give signs once")
    try:
        pattern = re.compile(source)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"no regular expression: {error}") from error
    if _ways(parser.parse(source)) > _MOST:
        raise ValueError("its repeats combine to too many ways; use {0,80} in place of * and +")
    return pattern


def has_set_operation(source: str) -> bool:
    """Whether a pattern has what some dialects, and a later Python, read as an operation between sets."""
    return any(found[1] and _UNSURE.search(found[1]) for found in _SET.finditer(source))


def _ways(items: Any) -> int:
    """Bound the number of ways in which a parsed expression can match at one place."""
    ways = 1
    for operation, argument in items:
        if operation in _REPEATS:
            least, most, inner = argument
            most = _ENDLESS if most is constants.MAXREPEAT else min(int(most), _ENDLESS)
            inside = _ways(inner)
            # A turn that can be read in several ways multiplies them, also where the number of turns is fixed.
            ways *= max(1, most - least + 1) if inside == 1 else inside ** min(most, _TURNS)
        elif operation is constants.SUBPATTERN:
            ways *= _ways(argument[-1])
        elif operation is constants.BRANCH:
            ways *= sum(_ways(branch) for branch in argument[1])
        elif operation in {constants.ASSERT, constants.ASSERT_NOT}:
            ways *= _ways(argument[1])
        elif operation is constants.ATOMIC_GROUP:  # it forgets its ways once it has matched, but tries them first
            ways *= _ways(argument)
        elif operation is constants.GROUPREF_EXISTS:
            ways *= sum(_ways(branch) for branch in argument[1:] if branch is not None)
        if ways > _MOST:
            return ways
    return ways

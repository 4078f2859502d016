"""Regular expressions of bounded work: replies are written by whoever answers, so no pattern may take long on any.

Knows how much a pattern can be made to backtrack, and refuses what is too much when the rules are read.
"""

import re
from re import _constants as constants  # type: ignore[attr-defined]  # the parser of re has no public name
from re import _parser as parser  # type: ignore[attr-defined]  # as above
from typing import Any, Final

_MOST: Final = 20_000
"""Ways to read one text from one place: one `.*` over a reply of 4,096 characters with a little beside it."""
_ENDLESS: Final = 4096
_REPEATS: Final = frozenset({constants.MAX_REPEAT, constants.MIN_REPEAT})
_LETTERS: Final = re.compile(r"\\.|\(\?P|[A-Z]")


def compile_pattern(source: str) -> re.Pattern[str]:
    """Compile a rule's pattern, for text in small letters.

    Raises ValueError for what is no expression, and for repeats whose combinations are too many.
    """
    source = _LETTERS.sub(lambda found: found[0] if len(found[0]) > 1 else found[0].lower(), source)
    try:
        pattern = re.compile(source)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    if _ways(parser.parse(source)) > _MOST:
        raise ValueError("its repeats combine to too many ways; use {0,80} in place of * and +")
    return pattern


def _ways(items: Any) -> int:
    """Bound the number of ways in which a parsed expression can match at one place."""
    ways = 1
    for operation, argument in items:
        if operation in _REPEATS:
            least, most, inner = argument
            width = (min(int(most), _ENDLESS) if most is not constants.MAXREPEAT else _ENDLESS) - least + 1
            inside = _ways(inner)
            ways *= width if inside == 1 else inside ** min(width, 20)
        elif operation is constants.SUBPATTERN:
            ways *= _ways(argument[-1])
        elif operation is constants.BRANCH:
            ways *= sum(_ways(branch) for branch in argument[1])
        elif operation in {constants.ASSERT, constants.ASSERT_NOT}:
            ways *= _ways(argument[1])
        if ways > _MOST:
            return ways
    return ways

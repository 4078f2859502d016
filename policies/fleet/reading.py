"""Reads the JSON that others wrote into the fleet's store: another version, another program, or somebody who means harm.

Whatever is wrong with it is a ValueError, so that who reads it passes it over and goes on.
"""

import json
import math
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")
V = TypeVar("V")

LONGEST: Final = 1 << 20
"""Characters of a text: a host takes part in a fleet of a thousand with a tenth of that."""
_DIGITS: Final = 18
"""Of a whole number: what has more fits into no column of a store."""
_GREATEST: Final = 1e18
_WRONG: Final = (KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


def read(text: str, what: str, make: Callable[[Any], T], *, kind: type = dict, longest: int = LONGEST) -> T:
    """Give what `make` makes of the JSON in `text`. Raises ValueError, which names `what` was wanted.

    `kind`: of its outermost value. `make` need not look whether what it takes is there.
    """

    def found(text: str) -> T:
        if len(text) > longest:
            raise ValueError(f"{len(text)} characters; wanted at most {longest}")
        values = json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_no_number)
        if "\\u" in text:  # half a pair of surrogates can be written in no file, and sent to nobody
            json.dumps(values, ensure_ascii=False).encode(errors="surrogateescape")
        if not isinstance(values, kind):
            raise TypeError(f"a JSON {type(values).__name__}")
        return make(values)

    return made(text, what, found)


def made(values: V, what: str, make: Callable[[V], T]) -> T:
    """Give what `make` makes of what is read already. Raises ValueError, as `read`."""
    try:
        return make(values)
    except ValueError as error:
        raise ValueError(f"{values!r:.60} is no {what} of the fleet: {error}") from error
    except _WRONG as error:
        raise ValueError(f"{values!r:.60} is no {what} of the fleet: {error!r}") from error


def number(value: object, *, least: float = -_GREATEST) -> float:
    """Take a number. Raises ValueError for anything else, and for less than `least`."""
    # As nearly all are: a book of hundreds of hosts has thousands.
    if type(value) is float and least <= value <= _GREATEST:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _GREATEST:
        raise ValueError(f"{value!r:.40}; wanted a number from {least:g} up")
    return float(value)


def whole(value: object, *, least: int = 0) -> int:
    """Take a whole number. Raises ValueError, as `number`."""
    if type(value) is int and value >= least:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r:.40}; wanted a whole number from {least} up")
    return value


def text(value: object) -> str:
    """Take a text. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40}; wanted a text")  # noqa: TRY004  # of another program: the text is bad
    return value


def plain(value: object) -> str:
    """Take a text that is to be written down, and so is all UTF-8. Raises ValueError."""
    found = text(value)
    found.encode()
    return found


def flag(value: object) -> bool:
    """Take true or false. Raises ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.40}; wanted true or false")  # noqa: TRY004  # as above
    return value


def counted(digits: str) -> int:
    """Take a whole number from a field of a stream. Raises ValueError."""
    if len(digits) > _DIGITS or not digits.isdecimal():
        raise ValueError(f"{digits!r:.40}; wanted a whole number")
    return int(digits)


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits:.40}")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")

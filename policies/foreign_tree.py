"""The items of a parsed regular expression, and which texts they stand for.

Knows plain groups from choices, and which patterns are dear to try.
"""

from collections.abc import Iterable, Iterator, Sequence
from re import _constants as constants  # type: ignore[attr-defined]  # the parser of re has no public name
from typing import Any, Final, TypeAlias

Items: TypeAlias = list[tuple[Any, Any]]

REPEATS: Final = frozenset({constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT})
_EDGES: Final = frozenset({constants.AT_BOUNDARY, constants.AT_NON_BOUNDARY})
MANY: Final = 24
"""Phrases that one pattern may spell out."""
_BLANK: Final = (constants.LITERAL, ord(" "))
_WILD: Final = (constants.MAX_REPEAT, (0, constants.MAXREPEAT, [(constants.ANY, None)]))


def flat(tree: Any) -> Items:
    """The items of a pattern without its plain groups, and with fixed repeats written out."""
    items: Items = []
    for operation, argument in tree:
        if operation is constants.SUBPATTERN and items[-1:] == [_BLANK] and _is_plain(argument[-1]):
            items += [_WILD, *argument[-1], _WILD]  # with real brackets or without
        elif operation is constants.SUBPATTERN:
            items += flat(argument[-1])
        elif operation in REPEATS and argument[0] == argument[1] <= 3:
            items += flat(argument[2]) * argument[0]
        elif operation is constants.AT and argument in _EDGES:
            continue
        else:
            items.append((operation, argument))
    return items


def _is_plain(inner: Any) -> bool:
    return len(inner) > 2 and all(each[0] is constants.LITERAL for each in inner)


def suspicions(tree: Any) -> Iterator[str]:
    """Brackets around plain words after a blank: they were meant as signs, and are a group."""
    before = None
    for operation, argument in tree:
        if operation is constants.SUBPATTERN and before == _BLANK and _is_plain(argument[-1]):
            words = "".join(chr(value) for _, value in argument[-1])
            yield f"({words}) is a group there, which real brackets do not match: \\({words}\\) would"
        before = operation, argument


def texts_of(item: tuple[Any, Any], most: int = MANY) -> tuple[str, ...] | None:
    """All texts that an item matches, None where they are too many."""
    operation, argument = item
    if operation is constants.LITERAL:
        return (chr(argument),)
    if operation is constants.IN:
        return _letters(argument)
    if operation is constants.BRANCH:
        branches = [all_strings(flat(branch)) for branch in argument[1]]
        found = [text for branch in branches if branch is not None for text in branch]
        return tuple(found) if None not in branches and len(found) <= most else None
    if operation in REPEATS:
        least, most, inner = argument
        if is_blank(inner):
            return ("", " ") if least == 0 else (" ",)
        inside = all_strings(flat(inner)) if (least, most) == (0, 1) else None
        return ("", *inside) if inside is not None else None
    return ("",) if operation is constants.AT and argument is not constants.AT_END else None


def all_strings(items: Items) -> tuple[str, ...] | None:
    found: tuple[str, ...] = ("",)
    for item in items:
        strings = texts_of(item)
        if strings is None or len(found) * len(strings) > MANY:
            return None
        found = tuple(one + two for one in found for two in strings)
    return found


def _letters(members: Sequence[tuple[Any, Any]]) -> tuple[str, ...] | None:
    found: list[str] = []
    for operation, argument in members:
        if operation is constants.LITERAL:
            found.append(chr(argument))
        elif operation is constants.RANGE and argument[1] - argument[0] < MANY:
            found += map(chr, range(argument[0], argument[1] + 1))
        elif operation is constants.CATEGORY and argument is constants.CATEGORY_SPACE:
            found.append(" ")
        elif operation is constants.CATEGORY and argument is constants.CATEGORY_DIGIT:
            found += "0123456789"
        else:
            return None
    return tuple(found)


def is_blank(inner: Any) -> bool:
    items = flat(inner)
    letters = texts_of(items[0]) if len(items) == 1 and items[0][0] not in REPEATS else None
    return letters is not None and set(letters) <= {" ", "\t"}


def is_wild(item: tuple[Any, Any]) -> bool:
    """`.*`, `.+` and their like."""
    operation, argument = item
    return operation in REPEATS and argument[1] > 3 and list(argument[2]) == [(constants.ANY, None)]


def is_nested(items: Iterable[tuple[Any, Any]]) -> bool:
    """Whether a repeat of something that can itself be read in several ways makes trying the pattern dear."""
    for operation, argument in items:
        if operation in REPEATS:
            inner = flat(argument[2])
            if argument[1] > 1 and any(each[0] in REPEATS or each[0] is constants.BRANCH for each in inner):
                return True
            if is_nested(inner):
                return True
        elif (operation is constants.BRANCH and any(is_nested(flat(branch)) for branch in argument[1])) or (
            operation in {constants.ASSERT, constants.ASSERT_NOT} and is_nested(flat(argument[1]))
        ):
            return True
    return False

"""A regular expression over whole SMTP replies, as other mail servers use them, taken apart into what our rules ask for.

Knows the dialects (Rust's regex and fancy-regex, PCRE), where in such a pattern the codes stand, and which words every
match has. What the rule then means is `foreign_rules`' business.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from re import _constants as constants  # type: ignore[attr-defined]  # the parser of re has no public name
from re import _parser as parser  # type: ignore[attr-defined]  # as above
from typing import Any, Final, NamedTuple

from parsers.linear import compile_pattern, has_set_operation
from policies.said import normalise


class PatternError(Exception):
    """A pattern that cannot be carried over: says why."""


class Parts(NamedTuple):
    """What a pattern asks for."""

    codes: tuple[str, ...]
    """As a rule writes them: "421", "5xx"."""
    statuses: tuple[str, ...]
    """As a rule writes them: "x.7.1", "5.5.0-999"."""
    any_of: tuple[str, ...]
    all_of: tuple[str, ...]
    reply: str
    """A pattern for what the phrases do not say, "" where they say all."""
    samples: tuple[str, ...]
    """Texts behind the codes that match, one for each alternative."""
    remarks: tuple[str, ...]
    """What is not quite the same."""
    dead: str
    """Why it can match no reply where it comes from, "" where it can; then there are no phrases."""


Items = list[tuple[Any, Any]]


def searching(source: str, *, ignore_case: bool) -> Callable[[str], bool] | None:
    """The pattern itself on a whole reply; None where it is none here, or where trying it could take long."""
    try:
        python = _python(source)
        pattern = re.compile(python, re.IGNORECASE if ignore_case else 0)
        if _nested(_flat(parser.parse(python))):
            return None
    except (PatternError, re.error, OverflowError, RecursionError):
        return None
    return lambda text: pattern.search(text) is not None


def take_apart(source: str, *, begins_with: str) -> Parts:
    """Take a pattern apart; `begins_with`: "code" or "status", what the text that it is tried on begins with.

    Raises PatternError for what no rule of ours can say.
    """
    python = _python(source)
    try:
        items = _flat(parser.parse(python))
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"not a regular expression here: {error}") from error
    remarks = list(_suspicions(parser.parse(python)))
    anchored = bool(items) and items[0] == (constants.AT, constants.AT_BEGINNING)
    rest = items[1:] if anchored else items
    codes, behind = _codes(rest, anchored=anchored)
    has_code, rest = behind is not rest, behind
    statuses, rest = _statuses(_without_separators(rest))
    dead = _why_dead(anchored=anchored, has_code=has_code, has_status=bool(statuses), begins_with=begins_with)
    if "\\" in "".join(chr(value) for operation, value in rest if operation is constants.LITERAL):
        dead = dead or "it asks for a backslash (doubled in a literal string?), and replies have none"
    if dead:
        return Parts(codes, statuses, (), (), "", ("",), (), dead)
    rest = _trimmed(rest)
    any_of, all_of, reply = _words(rest, remarks)
    if not (codes or statuses or any_of or all_of):
        raise PatternError("it has no fixed words to look for" if rest else "it matches every reply")
    samples = tuple(dict.fromkeys(_sample(rest, turn) for turn in range(_alternatives(rest))))
    return Parts(codes, statuses, any_of, all_of, reply, samples, tuple(remarks), "")


# --- dialects -----------------------------------------------------------------------------------------------------

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


def _python(source: str) -> str:
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


# --- the tree -----------------------------------------------------------------------------------------------------

_REPEATS: Final = frozenset({constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT})
_EDGES: Final = frozenset({constants.AT_BOUNDARY, constants.AT_NON_BOUNDARY})
_MANY: Final = 24
"""Phrases that one pattern may spell out."""
_BLANK: Final = (constants.LITERAL, ord(" "))
_WILD: Final = (constants.MAX_REPEAT, (0, constants.MAXREPEAT, [(constants.ANY, None)]))


def _flat(tree: Any) -> Items:
    """The items of a pattern without its plain groups, and with fixed repeats written out."""
    items: Items = []
    for operation, argument in tree:
        if operation is constants.SUBPATTERN and items[-1:] == [_BLANK] and _is_plain(argument[-1]):
            items += [_WILD, *argument[-1], _WILD]  # with real brackets or without
        elif operation is constants.SUBPATTERN:
            items += _flat(argument[-1])
        elif operation in _REPEATS and argument[0] == argument[1] <= 3:
            items += _flat(argument[2]) * argument[0]
        elif operation is constants.AT and argument in _EDGES:
            continue
        else:
            items.append((operation, argument))
    return items


def _is_plain(inner: Any) -> bool:
    return len(inner) > 2 and all(each[0] is constants.LITERAL for each in inner)


def _suspicions(tree: Any) -> Iterator[str]:
    """Brackets around plain words after a blank: they were meant as signs, and are a group."""
    before = None
    for operation, argument in tree:
        if operation is constants.SUBPATTERN and before == _BLANK and _is_plain(argument[-1]):
            words = "".join(chr(value) for _, value in argument[-1])
            yield f"({words}) is a group there, which real brackets do not match: \\({words}\\) would"
        before = operation, argument


def _strings(item: tuple[Any, Any]) -> tuple[str, ...] | None:
    """All texts that an item matches, None where they are too many."""
    operation, argument = item
    if operation is constants.LITERAL:
        return (chr(argument),)
    if operation is constants.IN:
        return _letters(argument)
    if operation is constants.BRANCH:
        branches = [_all_strings(_flat(branch)) for branch in argument[1]]
        found = [text for branch in branches if branch is not None for text in branch]
        return tuple(found) if None not in branches and len(found) <= _MANY else None
    if operation in _REPEATS:
        least, most, inner = argument
        if _is_blank(inner):
            return ("", " ") if least == 0 else (" ",)
        inside = _all_strings(_flat(inner)) if (least, most) == (0, 1) else None
        return ("", *inside) if inside is not None else None
    return ("",) if operation is constants.AT and argument is not constants.AT_END else None


def _all_strings(items: Items) -> tuple[str, ...] | None:
    found: tuple[str, ...] = ("",)
    for item in items:
        strings = _strings(item)
        if strings is None or len(found) * len(strings) > _MANY:
            return None
        found = tuple(one + two for one in found for two in strings)
    return found


def _letters(members: Sequence[tuple[Any, Any]]) -> tuple[str, ...] | None:
    found: list[str] = []
    for operation, argument in members:
        if operation is constants.LITERAL:
            found.append(chr(argument))
        elif operation is constants.RANGE and argument[1] - argument[0] < _MANY:
            found += map(chr, range(argument[0], argument[1] + 1))
        elif operation is constants.CATEGORY and argument is constants.CATEGORY_SPACE:
            found.append(" ")
        elif operation is constants.CATEGORY and argument is constants.CATEGORY_DIGIT:
            found += "0123456789"
        else:
            return None
    return tuple(found)


def _is_blank(inner: Any) -> bool:
    items = _flat(inner)
    letters = _strings(items[0]) if len(items) == 1 and items[0][0] not in _REPEATS else None
    return letters is not None and set(letters) <= {" ", "\t"}


def _is_wild(item: tuple[Any, Any]) -> bool:
    """`.*`, `.+` and their like."""
    operation, argument = item
    return operation in _REPEATS and argument[1] > 3 and list(argument[2]) == [(constants.ANY, None)]


def _nested(items: Iterable[tuple[Any, Any]]) -> bool:
    """Whether a repeat of something that can itself be read in several ways makes trying the pattern dear."""
    for operation, argument in items:
        if operation in _REPEATS:
            inner = _flat(argument[2])
            if argument[1] > 1 and any(each[0] in _REPEATS or each[0] is constants.BRANCH for each in inner):
                return True
            if _nested(inner):
                return True
        elif (operation is constants.BRANCH and any(_nested(_flat(branch)) for branch in argument[1])) or (
            operation in {constants.ASSERT, constants.ASSERT_NOT} and _nested(_flat(argument[1]))
        ):
            return True
    return False


# --- codes --------------------------------------------------------------------------------------------------------

_DIGITS: Final = frozenset("0123456789")


def _digits(item: tuple[Any, Any]) -> frozenset[str]:
    """The digits that an item stands for, empty for anything else."""
    strings = _strings(item) if item[0] in {constants.LITERAL, constants.IN} else None
    found = frozenset(strings or ())
    return found if found <= _DIGITS else frozenset()


def _codes(items: Items, *, anchored: bool) -> tuple[tuple[str, ...], Items]:
    """The SMTP codes that a pattern begins with, and what follows them; no codes where any will do."""
    taken, codes = 3, tuple(sorted(map("".join, itertools.product(*map(_digits, items[:3])))))
    if items and items[0][0] is constants.BRANCH:
        taken, codes = 1, _strings(items[0]) or ()
    plain = bool(codes) and all(len(code) == 3 and code <= "599" and code.isdecimal() for code in codes)
    if not plain and (len(codes) < 1000 or taken != 3):  # 1,000: any three digits
        return (), items
    rest = items[taken:]
    if rest and not (_is_wild(rest[0]) or rest[0][0] is constants.ANY or _is_separator(rest[0])):
        return (), items
    if not rest and not anchored:
        return (), items
    return _as_classes(codes), rest


def _as_classes(codes: tuple[str, ...]) -> tuple[str, ...]:
    """550 ... 599 all of them: 5xx; 4xx and 5xx: any."""
    found: list[str] = []
    for first in "45":
        of_class = [code for code in codes if code[0] == first]
        found += [f"{first}xx"] if len(of_class) == 100 else of_class
    return () if found == ["4xx", "5xx"] else tuple(found)


def _is_separator(item: tuple[Any, Any]) -> bool:
    strings = _strings(item)
    return strings is not None and set(strings) <= {" ", "-", "", ";", "\t", "#"}


def _without_separators(items: Items) -> Items:
    start = 0
    while start < len(items) and (_is_separator(items[start]) or _is_wild(items[start])):
        start += 1
    return items[start:]


def _statuses(items: Items) -> tuple[tuple[str, ...], Items]:
    """The enhanced codes that items begin with, and what follows them."""
    parts: list[tuple[str, ...]] = []
    at = 0
    for number in range(3):
        found, after = _number(items, at)
        if not found:
            return (), items
        parts.append(found)
        if number < 2:
            if after >= len(items) or items[after] not in _DOTS:
                return (), items
            after += 1
        at = after
    classes = [digit for digit in parts[0] if digit in {"4", "5"}]
    if not classes or len(parts[1]) * len(parts[2]) > 60:
        return (), items
    klass = "x" if len(classes) == 2 else classes[0]
    statuses = tuple(f"{klass}.{subject}.{detail}" for subject in parts[1] for detail in parts[2])
    return statuses, items[at:]


_DOTS: Final = ((constants.LITERAL, ord(".")), (constants.ANY, None))


def _number(items: Items, at: int) -> tuple[tuple[str, ...], int]:
    """A part of an enhanced code: digits, alternatives of them, or any number."""
    found: tuple[str, ...] = ("",)
    start = at
    while at < len(items) and at - start < 3:
        operation, argument = items[at]
        if operation in _REPEATS and _digits(_only(argument[2])) == _DIGITS and at == start:
            return ("0-999",), at + 1
        digits: Iterable[str] = sorted(_digits(items[at]))
        if operation is constants.BRANCH:
            digits = _strings(items[at]) or ()
        if not digits or not all(text.isdecimal() for text in digits):
            break
        found = tuple(one + two for one in found for two in digits)
        at += 1
    return (found, at) if at > start else ((), at)


def _only(inner: Any) -> tuple[Any, Any]:
    items = _flat(inner)
    return items[0] if len(items) == 1 else (constants.ANY, None)


def _why_dead(*, anchored: bool, has_code: bool, has_status: bool, begins_with: str) -> str:
    if not anchored:
        return ""
    if begins_with == "code" and not has_code:
        what = "an enhanced code" if has_status else "a text"
        return f"it is tied to the begin with {what}, and a reply begins with its code"
    if begins_with == "status" and has_code:
        return "it is tied to the begin with an SMTP code, and what it is tried on begins with the enhanced code"
    return ""


# --- words --------------------------------------------------------------------------------------------------------


def _trimmed(items: Items) -> Items:
    """Without what may stand at both ends."""
    items = _without_separators(items)
    while items and (_is_wild(items[-1]) or items[-1][0] is constants.ANY):
        items = items[:-1]
    return items


def _words(items: Items, remarks: list[str]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Phrases for `any` and for `all`, and a pattern where these do not say everything."""
    any_of: tuple[str, ...] = ()
    all_of: list[str] = []
    enough = True
    for segment, loose in _segments(items):
        phrases = tuple(dict.fromkeys(filter(None, (_phrase(text, loose=loose) for text in segment))))
        whole = loose and len(phrases) == len({normalise(text) for text in segment}) and bool(phrases)
        if not phrases or (len(phrases) < len(segment) and not whole):
            enough = enough and all(not text.strip() for text in segment)
        elif len(phrases) == 1:
            all_of.append(phrases[0])
        elif not any_of:
            any_of = phrases
        else:
            enough = False
        enough = enough and whole
    enough = enough and all(_is_wild(item) or _strings(item) is not None for item in items)
    reply = "" if enough else _bounded(items, remarks, phrases=bool(any_of or all_of))
    if not any_of and len(all_of) == 1:
        any_of, all_of = (all_of[0],), []
    return any_of, tuple(all_of), reply


def _segments(items: Items) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Runs of items that are few texts, and whether anything may stand before (so that it begins at a word)."""
    run: Items = []
    loose = True
    for item in [*items, (constants.AT, constants.AT_END)]:
        if _strings(item) is not None and _all_strings([*run, item]) is not None:
            run.append(item)
            continue
        if found := _all_strings(run):
            yield found, loose
        split = _strings(item) is not None  # only too many together: the next run begins within this text
        run = [item] if split else []
        loose = _is_wild(item)


def _phrase(text: str, *, loose: bool) -> str:
    """What a rule can look for of a text; behind something else it begins at the next word."""
    phrase = normalise(text)
    if not loose and text[:1].isalnum():
        phrase = normalise(re.sub(r"^[^\W_]+", "", text))
    return phrase if sum(map(str.isalnum, phrase)) > 2 else ""


_ADDRESS: Final = re.compile(r"(?:(?:\[\\d\]\{1,\d+\}|\[0-9\]\{1,\d+\})(?:\\\.|\.\?)){3}(?:\[\\d\]|\[0-9\])\{1,\d+\}")
"""Four numbers with dots between them, as `_emitted` writes them."""


def _bounded(items: Items, remarks: list[str], *, phrases: bool) -> str:
    source = _ADDRESS.sub("[0-9a-f.:]{7,39}", _emitted(items))
    try:
        compile_pattern(source)
    except ValueError:
        if not phrases:
            raise PatternError("its repeats combine to too many ways, and it has no fixed words") from None
        remarks.append("only its words are asked for, not their order: its repeats combine to too many ways")
        return ""
    return source


def _emitted(items: Iterable[tuple[Any, Any]]) -> str:
    """Items as a pattern for normalised text: without quotation marks, blanks single, repeats bounded."""
    written = ""
    for operation, argument in items:
        if operation is constants.LITERAL:
            sign = chr(argument).lower()
            written += "" if sign in "'\"`" or (sign == " " and written.endswith(" ")) else _escaped(sign)
        elif operation is constants.ANY:
            written += ".?"  # it may have stood for a quotation mark
        elif operation is constants.IN:
            written += _emitted_set(argument)
        elif operation is constants.NOT_LITERAL:
            written += f"[^{re.escape(chr(argument).lower())}]"
        elif operation is constants.BRANCH:
            written += f"(?:{'|'.join(_emitted(_flat(branch)) for branch in argument[1])})"
        elif operation in _REPEATS:
            written += _emitted_repeat(operation, argument)
        elif operation is constants.AT:
            written += {constants.AT_BEGINNING: "^", constants.AT_END: "$"}.get(argument, "")
        else:
            raise PatternError("look-around, references and conditions cannot be carried over")
    return written


def _emitted_set(members: Sequence[tuple[Any, Any]]) -> str:
    inside = ""
    for operation, argument in members:
        if operation is constants.NEGATE:
            inside += "^"
        elif operation is constants.LITERAL:
            inside += re.escape(chr(argument).lower())
        elif operation is constants.RANGE:
            inside += "-".join(re.escape(chr(end).lower()) for end in argument)
        else:
            inside += _CATEGORIES[argument]
    return f"[{inside}]"


_CATEGORIES: Final = {
    constants.CATEGORY_DIGIT: r"\d", constants.CATEGORY_NOT_DIGIT: r"\D", constants.CATEGORY_SPACE: r"\s",
    constants.CATEGORY_NOT_SPACE: r"\S", constants.CATEGORY_WORD: r"\w", constants.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


def _emitted_repeat(operation: Any, argument: Any) -> str:
    least, most, inner = argument
    if _is_blank(inner):
        return " ?" if least == 0 else " "
    most = min(int(most), 120 if list(inner) == [(constants.ANY, None)] else 60)
    body = "." if list(inner) == [(constants.ANY, None)] else _emitted(_flat(inner))
    if len(_flat(inner)) > 1:
        body = f"(?:{body})"
    lazy = "?" if operation is constants.MIN_REPEAT else ""
    return f"{body}?" if (least, most) == (0, 1) else f"{body}{{{min(least, most)},{most}}}{lazy}"


def _escaped(sign: str) -> str:
    return re.escape(sign) if sign != " " else " "


# --- samples ------------------------------------------------------------------------------------------------------


def _alternatives(items: Items) -> int:
    """So many samples show each alternative once."""
    return max([1, *(len(argument[1]) for operation, argument in items if operation is constants.BRANCH)])


def _sample(items: Items, turn: int) -> str:
    """A text that matches; `turn` chooses among alternatives."""
    text = "".join(_said(item, turn) for item in items)
    text = re.sub(r"n\.t\b", "n't", text)  # the sign that somebody did not want to write
    return " ".join(text.replace("1.1.1.1", "192.0.2.7").replace("1@1", "a@b.example").split())


def _said(item: tuple[Any, Any], turn: int) -> str:
    operation, argument = item
    if operation is constants.LITERAL:
        return str(chr(argument))
    if operation is constants.ANY:
        return "."
    if operation is constants.NOT_LITERAL:
        return "x" if argument != ord("x") else "y"
    if operation is constants.IN:
        signs = "1xaX .-_:/@" + "".join(map(chr, range(33, 127)))
        return "".join([sign for sign in signs if _in(sign, argument)][:1])
    if operation is constants.BRANCH:
        branch = argument[1][turn % len(argument[1])]
        return "".join(_said(each, turn) for each in _flat(branch))
    if operation in _REPEATS:
        if _is_wild(item):
            return " xy " if argument[0] else " "
        return "".join(_said(each, turn) for each in _flat(argument[2])) * min(int(argument[0]), 20)
    return ""


def _in(sign: str, members: Any) -> bool:
    return re.fullmatch(_emitted_set(members), sign, re.IGNORECASE) is not None

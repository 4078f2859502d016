"""A regular expression over whole SMTP replies, as other mail servers use them, taken apart into what our rules ask for.

Knows where in such a pattern the codes stand, and which words every match has. What the rule then
means is `foreign_rules`' business.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from re import _constants as constants  # type: ignore[attr-defined]  # the parser of re has no public name
from re import _parser as parser  # type: ignore[attr-defined]  # as above
from typing import Any, Final, NamedTuple

from parsers.linear import compile_pattern
from policies.foreign_dialect import PatternError, to_python
from policies.foreign_tree import REPEATS, Items, all_strings, flat, is_blank, is_nested, is_wild, suspicions, texts_of
from policies.said import normalise


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
    gap: bool
    """Anything may stand before the text, also behind a code."""
    samples: tuple[str, ...]
    """Texts behind the codes that match, one for each alternative."""
    remarks: tuple[str, ...]
    """What is not quite the same."""
    dead: str
    """Why it can match no reply where it comes from, "" where it can; then there are no phrases."""


def searching(source: str, *, ignore_case: bool) -> Callable[[str], bool] | None:
    """The pattern itself on a whole reply; None where it is none here, or where trying it could take long."""
    try:
        python = to_python(source)
        pattern = re.compile(python, re.IGNORECASE if ignore_case else 0)
        if is_nested(flat(parser.parse(python))):
            return None
    except (PatternError, re.error, OverflowError, RecursionError):
        return None
    return lambda text: pattern.search(text) is not None


def take_apart(source: str, *, begins_with: str) -> Parts:
    """Take a pattern apart; `begins_with`: "code" or "status", what the text that it is tried on begins with.

    Raises PatternError for what no rule of ours can say.
    """
    python = to_python(source)
    try:
        items = flat(parser.parse(python))
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"not a regular expression here: {error}") from error
    remarks = list(suspicions(parser.parse(python)))
    anchored = bool(items) and items[0] == (constants.AT, constants.AT_BEGINNING)
    rest = items[1:] if anchored else items
    codes, behind = _codes(rest, anchored=anchored)
    has_code, rest = behind is not rest, behind
    statuses, rest = _statuses(_without_separators(rest))
    dead = _why_dead(anchored=anchored, has_code=has_code, has_status=bool(statuses), begins_with=begins_with)
    if "\\" in "".join(chr(value) for operation, value in rest if operation is constants.LITERAL):
        dead = dead or "it asks for a backslash (doubled in a literal string?), and replies have none"
    if dead:
        return Parts(codes, statuses, (), (), "", False, ("",), (), dead)
    gap = not anchored or any(is_wild(item) for item in items[: len(items) - len(_without_separators(rest))])
    rest = _trimmed(rest)
    any_of, all_of, reply = _words(rest, remarks)
    if not (codes or statuses or any_of or all_of):
        raise PatternError("it has no fixed words to look for" if rest else "it matches every reply")
    samples = tuple(dict.fromkeys(_sample(rest, turn) for turn in range(_alternatives(rest))))
    return Parts(codes, statuses, any_of, all_of, reply, gap, samples, tuple(remarks), "")


# --- codes --------------------------------------------------------------------------------------------------------

_DIGITS: Final = frozenset("0123456789")


def _digits(item: tuple[Any, Any]) -> frozenset[str]:
    """The digits that an item stands for, empty for anything else."""
    strings = texts_of(item) if item[0] in {constants.LITERAL, constants.IN} else None
    found = frozenset(strings or ())
    return found if found <= _DIGITS else frozenset()


def _codes(items: Items, *, anchored: bool) -> tuple[tuple[str, ...], Items]:
    """The SMTP codes that a pattern begins with, and what follows them; no codes where any will do."""
    taken, codes = 3, tuple(sorted(map("".join, itertools.product(*map(_digits, items[:3])))))
    if items and items[0][0] is constants.BRANCH:
        taken, codes = 1, texts_of(items[0]) or ()
    plain = bool(codes) and all(len(code) == 3 and code <= "599" and code.isdecimal() for code in codes)
    if not plain and (len(codes) < 1000 or taken != 3):  # 1,000: any three digits
        return (), items
    rest = items[taken:]
    if rest and not (is_wild(rest[0]) or rest[0][0] is constants.ANY or _is_separator(rest[0])):
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
    strings = texts_of(item)
    return strings is not None and set(strings) <= {" ", "-", "", ";", "\t", "#"}


def _without_separators(items: Items) -> Items:
    start = 0
    while start < len(items) and (_is_separator(items[start]) or is_wild(items[start])):
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
    if not classes or len(parts[1]) * len(parts[2]) > 100:
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
        if operation in REPEATS and _digits(_only(argument[2])) == _DIGITS and at == start:
            return ("0-999",), at + 1
        digits: Iterable[str] = sorted(_digits(items[at]))
        if operation is constants.BRANCH:
            digits = texts_of(items[at], 100) or ()
        if not digits or not all(text.isdecimal() for text in digits):
            break
        found = tuple(one + two for one in found for two in digits)
        at += 1
    return (found, at) if at > start else ((), at)


def _only(inner: Any) -> tuple[Any, Any]:
    items = flat(inner)
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
    while items and (is_wild(items[-1]) or items[-1][0] is constants.ANY):
        items = items[:-1]
    return items


def _words(items: Items, remarks: list[str]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Phrases for `any` and for `all`, and a pattern where these do not say everything."""
    any_of: tuple[str, ...] = ()
    all_of: list[str] = []
    enough = told = True
    for segment, loose in _segments(items):
        phrases = tuple(dict.fromkeys(filter(None, (_phrase(text, loose=loose) for text in segment))))
        whole = loose and len(phrases) == len({normalise(text) for text in segment}) and bool(phrases)
        if not phrases or (len(phrases) < len(segment) and not whole):
            enough = enough and all(not text.strip() for text in segment)
            told = told and not any(sum(map(str.isalnum, text)) > 2 for text in segment)
        elif len(phrases) == 1:
            all_of.append(phrases[0])
        elif not any_of:
            any_of = phrases
        else:
            enough = told = False
        enough = enough and whole
    fixed = all(is_wild(item) or texts_of(item) is not None for item in items)
    reply = ""
    if not (enough and fixed):
        reply = _bounded(items, remarks, phrases=bool(any_of or all_of), told=told and fixed)
    if not any_of and len(all_of) == 1:
        any_of, all_of = (all_of[0],), []
    return any_of, tuple(all_of), reply


def _segments(items: Items) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Runs of items that are few texts, and whether anything may stand before (so that it begins at a word)."""
    run: Items = []
    loose = True
    for item in [*items, (constants.AT, constants.AT_END)]:
        if texts_of(item) is not None and all_strings([*run, item]) is not None:
            run.append(item)
            continue
        if found := all_strings(run):
            yield found, loose
        split = texts_of(item) is not None  # only too many together: the next run begins within this text
        run = [item] if split else []
        loose = is_wild(item)


def _phrase(text: str, *, loose: bool) -> str:
    """What a rule can look for of a text; behind something else it begins at the next word."""
    phrase = normalise(text)
    if not loose and text[:1].isalnum():
        phrase = normalise(re.sub(r"^[^\W_]+", "", text))
    letters = sum(map(str.isalnum, phrase))
    return phrase if letters > 2 or (letters == 2 and phrase[0] in "[(<#") else ""


_ADDRESS: Final = re.compile(r"(?:(?:\[\\d\]\{1,\d+\}|\[0-9\]\{1,\d+\})(?:\\\.|\.\?)){3}(?:\[\\d\]|\[0-9\])\{1,\d+\}")
"""Four numbers with dots between them, as `_emitted` writes them."""


_LEADING: Final = re.compile(r"^(\[(?:\\.|[^\]\\])+\]|\\?.)\{1,\d+\}")
_MAIL_ADDRESS: Final = r"[\S]{1,60}@[\S]{1,60}"


def _bounded(items: Items, remarks: list[str], *, phrases: bool, told: bool) -> str:
    """A pattern of bounded work. `told`: the phrases say all but the order, and may stand alone where there is none.

    Where they say less ("user" of "user unknown"), a rule of them would take replies of every kind.
    """
    source = _ADDRESS.sub("[0-9a-f.:]{7,39}", _emitted(items))
    for tried in (source, _with_fewer_ways(source)):
        try:
            compile_pattern(tried)
        except ValueError:
            continue
        return tried
    if not phrases:
        raise PatternError("its repeats combine to too many ways, and it has no fixed words")
    if not told:
        raise PatternError("its repeats combine to too many ways, and its words alone say too little")
    remarks.append("only its words are asked for, not their order: its repeats combine to too many ways")
    return ""


def _with_fewer_ways(source: str) -> str:
    """What is sought anywhere needs one of what it may begin with several of; between words, an address is a word."""
    return _LEADING.sub(r"\1", source).replace(_MAIL_ADDRESS, r"[\S]{3,120}")


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
            written += f"(?:{'|'.join(_emitted(flat(branch)) for branch in argument[1])})"
        elif operation in REPEATS:
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
    if is_blank(inner):
        return " ?" if least == 0 else " "
    most = min(int(most), 120 if list(inner) == [(constants.ANY, None)] else 60)
    body = "." if list(inner) == [(constants.ANY, None)] else _emitted(flat(inner))
    if len(flat(inner)) > 1:
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
        return "".join(_said(each, turn) for each in flat(branch))
    if operation in REPEATS:
        if is_wild(item):
            return " xy " if argument[0] else " "
        return "".join(_said(each, turn) for each in flat(argument[2])) * min(int(argument[0]), 20)
    return ""


def _in(sign: str, members: Any) -> bool:
    return re.fullmatch(_emitted_set(members), sign, re.IGNORECASE) is not None

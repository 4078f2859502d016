"""Whether files of rules do what they say: each rule is proved by its own examples, and by what stands before it.

Knows what makes a rule dead, hidden by an earlier one, out of reach, or too broad.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from re import _constants as constants  # type: ignore[attr-defined]  # the parser of re has no public name
from re import _parser as parser  # type: ignore[attr-defined]  # as above
from typing import Any, Final

from policies.classify import RuleSet
from policies.matching import Table, says
from policies.rules import FaultKind, Provider, Rule, RuleError, examine
from policies.said import Heard, Said, hear
from policies.verdict import Reaction, Scope


def lint(provider: Provider) -> list[RuleError]:
    """Every fault of a file: a rule that matches nothing, that an earlier rule takes everything from, that has no
    example, or one that it does not match or an earlier rule takes, or takes a counterexample. In the file's order."""
    table = Table(provider.rules)
    return [fault for rule in provider.rules for fault in _faults(provider, table, rule)]


def lint_text(name: str, text: str) -> tuple[Provider | None, list[RuleError]]:
    """Read and lint one file; faults have their lines, and where the text cannot be used there is no Provider."""
    provider, faults = examine(name, text)
    if provider is None:
        return None, faults
    return provider, [fault.located(text) for fault in lint(provider)]


def lint_together(
    files: Sequence[Provider], checked: Collection[str], organizational: Callable[[str], str]
) -> list[RuleError]:
    """What is wrong with the `checked` ones (their `file`) of these files, in order of precedence, beside each other.

    Hosts, domains, tokens and codes that are another provider's already; and rules whose examples come to another
    rule when all are asked. Raises RuleError where a file leans on an unknown provider.
    """
    rules = RuleSet(files, organizational=organizational)
    faults = list(_claimed_twice(files, checked))
    for file in files:
        if file.file in checked:
            faults += [fault for rule in file.rules for fault in _taken_elsewhere(rules, file, rule)]
    return faults


_Fault = tuple[str, str, str]
"""Key, problem, remedy."""


def _faults(provider: Provider, table: Table, rule: Rule) -> list[RuleError]:
    if dead := _why_dead(rule):
        return [_fault(provider, rule, dead, FaultKind.DEAD)]
    if earlier := next((one for one in provider.rules[: rule.number - 1] if _covers(one, rule)), None):
        problem = f"{earlier.label} takes everything that this rule is for"
        return [_fault(provider, rule, ("", problem, f"put it before {earlier.label}"), FaultKind.SHADOWED)]
    if not rule.examples:
        missing = ("examples", "missing", "give a reply that the rule must match, as it was logged")
        return [_fault(provider, rule, missing, FaultKind.NO_EXAMPLE)]
    faults = []
    for text in rule.examples:
        heard = _hear(provider, text)
        if Table((rule,)).find(heard) is not rule:
            wrong = ("examples", f"does not match {text!r}", "correct the rule, or the example")
            faults.append(_fault(provider, rule, wrong, FaultKind.EXAMPLE, text))
        elif (first := table.find(heard)) is not rule:
            assert first is not None
            wrong = ("examples", f"{first.label} takes {text!r} first", f"put it before {first.label}")
            faults.append(_fault(provider, rule, wrong, FaultKind.SHADOWED, text))
    for text in rule.counterexamples:
        if table.find(_hear(provider, text)) is rule:
            wrong = ("counterexamples", f"matches {text!r}", "narrow the rule, or add to `none`")
            faults.append(_fault(provider, rule, wrong, FaultKind.COUNTEREXAMPLE, text))
    return faults


def _hear(provider: Provider, text: str) -> Heard:
    return hear(Said(text))._replace(remote=provider.said_by != "postfix")


def _fault(provider: Provider, rule: Rule, fault: _Fault, kind: FaultKind, said: str = "") -> RuleError:
    key, problem, remedy = fault
    return RuleError(provider.file, rule.label, key, problem, remedy, kind=kind, said=said)


# --- dead ---------------------------------------------------------------------------------------------------------


def _why_dead(rule: Rule) -> _Fault | None:
    """What in a rule no reply can have, whatever its examples say."""
    if excluded := _excludes_itself(rule):
        return "none", f"{excluded!r} is in what the rule asks for, so that it matches nothing", "correct one of them"
    if rule.pattern and (sign := _never_said(rule.pattern)):
        return "reply", f"it asks for {sign}, and rules see replies without", _REMEDY_SIGN.get(sign, _LEAVE_OUT)
    if rule.pattern and _LEADING_CODE.match(rule.pattern.pattern):
        return "reply", "the text that it is tried on begins behind the codes", "give `code`, or leave ^ out"
    return None


_LEAVE_OUT: Final = "leave it out of the pattern"
_REMEDY_SIGN: Final = {"a backslash": "write '\\[' in single quotation marks, \"\\\\[\" in double ones"}
_LEADING_CODE: Final = re.compile(r"\^[(?:]*[245]\d\d|\^[(?:]*[245]\\d(?:\\d|\{2\})|\^[(?:]*[245]\\?\.\d")


def _excludes_itself(rule: Rule) -> str:
    """The phrase of `none` that every reply has that fits the rest."""
    for phrase in rule.none_of:
        if any(says(asked, phrase) for asked in rule.all_of):
            return phrase
        if rule.any_of and all(says(asked, phrase) for asked in rule.any_of):
            return phrase
    return ""


def _never_said(pattern: re.Pattern[str]) -> str:
    """A sign that a pattern needs and that `normalise` takes out of every reply."""
    needed = _needed(parser.parse(pattern.pattern))
    for sign, name in (("'", "a quotation mark"), ('"', "a quotation mark"), ("`", "a quotation mark")):
        if sign in needed:
            return name
    if "\\" in needed:
        return "a backslash"
    return "two blanks in a row" if "  " in needed else ""


def _needed(items: Any) -> str:
    """The letters that every match has, with a line end wherever something else may stand between them."""
    needed = ""
    for operation, argument in items:
        if operation is constants.LITERAL:
            needed += chr(argument)
        elif operation is constants.SUBPATTERN:
            needed += _needed(argument[-1])
        elif operation in {constants.MAX_REPEAT, constants.MIN_REPEAT} and argument[0] > 0:
            needed += f"{_needed(argument[2])}\n"
        else:
            needed += "\n"
    return needed


# --- shadowed -----------------------------------------------------------------------------------------------------


def _covers(earlier: Rule, rule: Rule) -> bool:
    """Whether every reply that fits a rule fits an earlier one too; where that is not plain, no."""
    if earlier.pattern or (earlier.reaction is Reaction.SUPPRESS) > (rule.reaction is Reaction.SUPPRESS):
        return False
    if (earlier.scope is Scope.MESSAGE) > (rule.scope is Scope.MESSAGE):
        return False
    return (
        _codes_within(rule.codes, earlier.codes)
        and _within(rule.statuses, earlier.statuses)
        and _within(rule.commands, earlier.commands)
        and (not earlier.any_of or _says_one(rule, earlier.any_of))
        and all(_says_one(rule, (phrase,)) for phrase in earlier.all_of)
        and set(earlier.none_of) <= set(rule.none_of)
    )


def _within(narrow: frozenset[str], wide: frozenset[str]) -> bool:
    return not wide or (bool(narrow) and narrow <= wide)


def _codes_within(narrow: frozenset[str], wide: frozenset[str]) -> bool:
    return not wide or (bool(narrow) and all(code in wide or f"{code[0]}xx" in wide for code in narrow))


def _says_one(rule: Rule, phrases: tuple[str, ...]) -> bool:
    """Whether any reply that fits the rule has one of the phrases."""
    if any(says(asked, phrase) for asked in rule.all_of for phrase in phrases):
        return True
    return bool(rule.any_of) and all(any(says(asked, phrase) for phrase in phrases) for asked in rule.any_of)


# --- out of reach -------------------------------------------------------------------------------------------------

_CLAIMS: Final = ("mx", "domains", "tokens", "statuses")


def _claimed_twice(files: Sequence[Provider], checked: Collection[str]) -> Iterator[RuleError]:
    """What two providers say is theirs: the first has it."""
    owners: dict[tuple[str, str], Provider] = {}
    for file in files:
        for key in _CLAIMS:
            for claim in sorted(getattr(file, key)):
                owner = owners.setdefault((key, claim), file)
                if owner.name == file.name or file.name in owner.then:
                    continue
                if file.file in checked:
                    yield RuleError(
                        file.file, "", key, f"{claim!r} is {owner.name}'s already ({owner.file})",
                        f"leave it out, or call the file {owner.name}.toml",
                        kind=FaultKind.UNREACHABLE, said=claim,
                    )  # fmt: skip
                elif owner.file in checked and key in {"mx", "domains"}:
                    yield RuleError(
                        owner.file, "", key, f"{claim!r} is {file.name}'s, whose rules would not be asked any more",
                        f'call the file {file.name}.toml, or give then = ["{file.name}"]',
                        kind=FaultKind.UNREACHABLE, said=claim,
                    )  # fmt: skip


def _taken_elsewhere(rules: RuleSet, file: Provider, rule: Rule) -> Iterator[RuleError]:
    """Examples that come to another file's rule when all rules are asked."""
    host = f"mx1{file.mx[0]}" if file.mx and file.mx[0].startswith(".") else "".join(file.mx[:1])
    domain = "" if file.mx else "".join(file.domains[:1]).lstrip(".")
    for text in rule.examples:
        taker = rules.classify(Said(text, host, domain)).rule
        if taker.rpartition("/")[0] != file.name:
            takes = "no rule takes" if taker == "unknown" else f"{taker} takes"
            wrong = ("examples", f"{takes} {text!r} when all rules are asked", _REMEDY_ELSEWHERE)
            yield _fault(file, rule, wrong, FaultKind.UNREACHABLE, text)


_REMEDY_ELSEWHERE: Final = "put the rule where such replies come to it, or give a plainer example"

"""Rules of other mail servers written as ours, with a report of what could not be carried over, and which were dead.

Knows how their parts become a rule that `lint` has nothing against. Whatever it gives is proved by an example, which is
made from the pattern until the admin puts a real reply in its place.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import product
from typing import Final, NamedTuple

from policies.classify import RuleSet
from policies.foreign_dialect import PatternError
from policies.foreign_pattern import Parts, searching, take_apart
from policies.foreign_rules import Foreign, FormatError, Home, kebab, provider_matches, read
from policies.lint import lint_text, lint_together
from policies.rule import OPENING_REACTIONS, Provider
from policies.rules import RuleError
from policies.said import Said
from policies.verdict import Bounce, Reaction


class Outcome(StrEnum):
    CARRIED = "carried"
    LEFT = "left"
    """There is nothing like it here, or our rules cannot say it."""
    DEAD = "dead"
    """It can never decide anything where it comes from."""
    KNOWN = "known"
    """Another rule takes all its replies already here."""


class Line(NamedTuple):
    """What became of one rule."""

    source: str
    """The file it stands in."""
    line: int
    pattern: str
    action: str
    outcome: Outcome
    rule: str
    """Ours, "google/too-many"; "" where there is none."""
    why: str
    remarks: tuple[str, ...]
    ours: str
    """What our rules say of such a reply without it."""


class Imported(NamedTuple):
    files: dict[str, str]
    """File name -> rules as TOML."""
    report: tuple[Line, ...]


class _Draft(NamedTuple):
    """A rule on its way."""

    source: str
    foreign: Foreign
    file: str
    name: str
    text: str
    remarks: tuple[str, ...]
    read_as: str
    """What our rules say of its example, "" where they do not know it."""
    wholes: list[str]
    """Replies that its pattern matches there."""

    @property
    def id(self) -> str:
        return f"{self.file.removesuffix('.toml')}/{self.name}"


LONGEST: Final = 4_000_000
"""Characters of a file; theirs have a hundred thousand at most."""


def import_rules(
    texts: Mapping[str, str],
    ours: Sequence[Provider],
    organizational: Callable[[str], str],
    *,
    suppress: bool = False,
    only_unknown: bool = False,
) -> Imported:
    """Write the rules of foreign files (name -> text) as ours. Raises FormatError, which names the file that is none.

    Files of one kind belong together: KumoMTA asks a provider that one of them matches to hosts with rules of another.

    Without `suppress` no imported rule takes a recipient for dead: theirs were not written with that in mind. With
    `only_unknown`, what our own rules read already is left out.
    """
    known = RuleSet(ours, organizational=organizational)
    drafts: list[_Draft] = []
    report: list[Line] = []
    earlier: dict[str, list[_Earlier]] = {}
    names: set[str] = set()
    for source, rule in _read_all(texts):
        writer = _Writer(source, known, suppress)
        outcome = _outcome(rule, earlier.setdefault(rule.group, []), writer, names)
        if isinstance(outcome, _Draft) and only_unknown and outcome.read_as:
            outcome = writer.line(rule, Outcome.KNOWN, f"our rules read such replies: {outcome.read_as}")
        if isinstance(outcome, Line):
            report.append(outcome)
            continue
        names.add(outcome.id)
        drafts.insert(_place(outcome, drafts), outcome)
        remarks = (*rule.remarks, *outcome.remarks)
        report.append(
            Line(
                source, rule.line, rule.pattern, rule.action, Outcome.CARRIED, outcome.id, "", remarks, outcome.read_as
            )
        )
    files, dropped = _sound(drafts, ours, organizational)
    lines = tuple(
        line._replace(outcome=Outcome.KNOWN, rule="", why=dropped[line.rule], remarks=(), ours="")
        if line.rule in dropped
        else line
        for line in report
    )
    return Imported(files, lines)


def _read_all(texts: Mapping[str, str]) -> Iterator[tuple[str, Foreign]]:
    source = ""
    try:
        matches: dict[str, object] = {}
        for source, text in texts.items():  # noqa: B007  # the error names it
            matches |= provider_matches(text)
        for source, text in texts.items():
            _, rules = read(text, matches)
            yield from ((source, rule) for rule in rules)
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from error


def _place(draft: _Draft, drafts: list[_Draft]) -> int:
    """Where all that match act, a wide pattern may stand before a narrow one; here the first decides."""
    search = searching(draft.foreign.pattern, ignore_case=True)
    for place, other in enumerate(drafts):
        if draft.foreign.first_decides or other.file != draft.file or search is None:
            continue
        wide = searching(other.foreign.pattern, ignore_case=True)
        if wide and draft.wholes and all(map(wide, draft.wholes)) and not all(map(search, other.wholes)):
            return place
    return len(drafts)


class _Earlier(NamedTuple):
    rule: Foreign
    search: Callable[[str], bool]


def _outcome(rule: Foreign, before: list[_Earlier], writer: "_Writer", names: set[str]) -> "_Draft | Line":
    """What becomes of a rule, which then stands before the next ones of its group."""
    search = searching(rule.pattern, ignore_case=rule.ignore_case)
    try:
        parts = take_apart(rule.pattern, begins_with=rule.begins_with)
    except PatternError as error:
        parts, why = None, str(error)
    else:
        why = rule.meaning.why_not
    dead = rule.dead or (parts and (parts.dead or _shadowed(rule, parts, before)))
    if search is not None and not dead:
        before.append(_Earlier(rule, search))
    if dead:
        return writer.line(rule, Outcome.DEAD, dead)
    if parts is None or why:
        return writer.line(rule, Outcome.LEFT, why)
    draft = writer.draft(rule, parts, names)
    return writer.line(rule, Outcome.LEFT, draft) if isinstance(draft, str) else draft


def _host(home: Home) -> str:
    suffix = "".join(home.mx[:1])
    return f"mx1{suffix}" if suffix.startswith(".") else suffix


def _wholes(rule: Foreign, parts: Parts) -> list[str]:
    """Replies as the pattern sees them there: each alternative text, with each code and what may stand before it."""
    codes = [one for code in parts.codes for one in _each_code(code)] or ["550", "451", "421"]
    statuses = [one for status in parts.statuses for one in _each_status(status)] or [""]
    texts = [f"{filler}{sample or 'refused'}" for filler in ("", "xy ")[: 1 + parts.gap] for sample in parts.samples]
    if rule.begins_with == "status":
        wholes = [f"{status or '5.0.0'}; {text}" for status in statuses for text in texts]
    else:
        every = product(codes, ("", "xy"), statuses)
        wholes = [" ".join(filter(None, (*each, text))) for each in every for text in texts]
    matches = searching(rule.pattern, ignore_case=rule.ignore_case)
    both = [each for whole in wholes[:_MOST] for each in (whole, f"{whole}.")]
    return [whole for whole in both if matches and matches(whole)]


_MOST: Final = 200
"""Replies that are tried for one pattern."""


def _each_code(code: str) -> tuple[str, ...]:
    return (f"{code[0]}50", f"{code[0]}51", f"{code[0]}99") if code.endswith("xx") else (code,)


def _each_status(status: str) -> list[str]:
    ends = re.sub(r"0-999$", "7", status), re.sub(r"0-999$", "137", status)
    return [end.replace("x", digit) for end in dict.fromkeys(ends) for digit in ("45" if "x" in end else "5")]


def _shadowed(rule: Foreign, parts: Parts, before: Iterable[_Earlier]) -> str:
    """The earlier rule that matches whatever this one matches: each alternative of it is tried."""
    wholes = _wholes(rule, parts)
    if not rule.first_decides or not wholes:
        return ""
    takers = []
    for whole in wholes:
        taker = next((other.rule for other in before if other.search(whole)), None)
        if taker is None:
            return ""
        takers.append(f"line {taker.line} /{taker.pattern}/")
    return f"shadowed: {', '.join(dict.fromkeys(takers))} takes its replies first"


# --- one rule -----------------------------------------------------------------------------------------------------


class _Writer(NamedTuple):
    """Writes the foreign rules of a file as ours."""

    source: str
    known: RuleSet
    suppress: bool

    def line(self, rule: Foreign, outcome: Outcome, why: str) -> Line:
        return Line(self.source, rule.line, rule.pattern, rule.action, outcome, "", why, (), "")

    def draft(self, rule: Foreign, parts: Parts, names: set[str]) -> "_Draft | str":
        """Write one rule; a text says why it cannot be."""
        meaning, remarks = rule.meaning, list(parts.remarks)
        if not (parts.any_of or parts.all_of) and (not parts.statuses or meaning.reaction in OPENING_REACTIONS):
            return "a code alone is too little to act upon: it would take replies that are told apart here"
        codes, bounce, reaction = self._consequence(rule, parts, remarks)
        code = _example_code(rule, parts, codes)
        sample = " ".join(filter(None, (code, _example_status(parts, code), *_shown(parts))))
        file = self._file(rule.home)
        name = _name(rule, parts, file, names)
        lines = [
            "[[rule]]",
            f"name = {json.dumps(name)}",
            _listed("code", codes),
            _listed("enhanced", parts.statuses),
            _listed("any", parts.any_of),
            _listed("all", parts.all_of),
            f"reply = {_quoted(parts.reply)}" if parts.reply else "",
            f'detail = "{meaning.detail}"',
            f'scope = "{meaning.scope}"',
            f"bounce = {bounce}",
            f'reaction = "{reaction}"',
            *(_opening(rule, remarks) if reaction in OPENING_REACTIONS else ()),
            _listed("examples", (sample,)),
        ]
        verdict = self.known.classify(Said(sample, _host(rule.home)))
        read_as = "" if verdict.rule == "unknown" else f"{verdict.rule}: {verdict.detail}, {verdict.reaction}"
        return _Draft(
            self.source,
            rule,
            file,
            name,
            "\n".join(filter(None, lines)) + "\n",
            tuple(remarks),
            read_as,
            _wholes(rule, parts),
        )

    def _consequence(self, rule: Foreign, parts: Parts, remarks: list[str]) -> tuple[tuple[str, ...], str, Reaction]:
        """Codes, bounce and reaction: what takes a recipient for dead does so for a permanent code, and if asked to."""
        meaning = rule.meaning
        if not meaning.hard:
            bounce = f'"{meaning.bounce}"' if meaning.bounce else '{ 4xx = "transient", 5xx = "block" }'
            return parts.codes, bounce, meaning.reaction
        permanent = tuple(code for code in parts.codes or ("5xx",) if code.startswith("5"))
        if not self.suppress or not permanent or _is_temporary(parts):
            remarks += [] if self.suppress else ["does not suppress; --suppress lets it"]
            return parts.codes, f'"{Bounce.SOFT}"', Reaction.NOTHING
        if permanent != parts.codes:
            remarks.append(f"only for {', '.join(permanent)}: a 4xx is no proof")
        return permanent, f'"{Bounce.HARD}"', Reaction.SUPPRESS

    def _file(self, home: Home) -> str:
        """The file a rule goes into: our provider's, where the hosts or domains are known here as one's."""
        if not (home.mx or home.domains):
            return f"{self._new(_slug(self.source.rpartition('/')[2].partition('.')[0]))}.toml"
        directory = self.known.providers
        owners = {directory.known_host(f"mx1{suffix}" if suffix.startswith(".") else suffix) for suffix in home.mx}
        owners |= {directory.of_domain(domain.lstrip(".")) for domain in home.domains}
        (owner, *more) = owners
        return f"{owner if owner and not more else self._new(_slug(home.name))}.toml"

    def _new(self, name: str) -> str:
        """Of two files with one name the rules would be mixed, so a name of ours is not given to something else."""
        taken = {rule.id.partition("/")[0] for rule in self.known.rules}
        return f"{name}-imported" if name in taken else name


def _is_temporary(parts: Parts) -> bool:
    return bool(parts.statuses) and all(status.startswith("4") for status in parts.statuses)


def _shown(parts: Parts) -> tuple[str, ...]:
    """A text to show behind the codes, with the recipient where the pattern asks for nothing."""
    return parts.samples[:1] if parts.samples[0] else ("refused",)


def _example_code(rule: Foreign, parts: Parts, codes: tuple[str, ...] = ()) -> str:
    code = next(iter(codes or parts.codes), "")
    if not code:
        throttles = rule.meaning.reaction in OPENING_REACTIONS
        permanent = not (throttles or _is_temporary(parts))
        return "550" if permanent else "451"
    return code.replace("xx", "50") if code == "5xx" else code.replace("xx", "51")


def _example_status(parts: Parts, code: str) -> str:
    if not parts.statuses:
        return ""
    first = re.sub(r"(\d+)-\d+$", r"\1", parts.statuses[0])
    return first.replace("x", code[0])


def _opening(rule: Foreign, remarks: list[str]) -> list[str]:
    lines = []
    if rule.recipients:
        within = f', within = "{rule.within}"' if rule.within else ""
        lines.append(f"open_after = {{ recipients = {min(rule.recipients, 1000)}{within} }}")
    if rule.pause:
        pause = min(max(rule.pause, 30.0), _LONGEST_PAUSE)
        if pause != rule.pause:
            remarks.append(f"a pause of {rule.pause:g} s becomes {pause:g} s")
        lines.append(f'pause = "{pause:g}s"')
        lines += [f'pause_max = "{pause:g}s"'] if pause > _PAUSE_MAX else []
    return lines


_PAUSE_MAX: Final = 3600.0
"""What a rule has that says nothing."""
_LONGEST_PAUSE: Final = 6 * 3600.0
"""A probe costs one message: to wait longer than this before the first gains nothing."""


def _listed(key: str, values: tuple[str, ...]) -> str:
    return f"{key} = [{', '.join(map(_quoted, values))}]" if values else ""


def _quoted(text: str) -> str:
    """As a TOML string; literal where there are backslashes, so that patterns stay legible."""
    return f"'{text}'" if "\\" in text and "'" not in text and text.isprintable() else json.dumps(text)


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:40].strip("-") or "rule"


def _name(rule: Foreign, parts: Parts, file: str, names: set[str]) -> str:
    phrase = next(iter((*parts.any_of, *parts.all_of)), "")
    said = "-".join(filter(None, (phrase, *(() if phrase else (*parts.codes[:1], *parts.statuses[:1])))))
    slug = name = _slug(said if phrase else f"{kebab(rule.action)} {said}")
    number = 2
    while f"{file.removesuffix('.toml')}/{name}" in names:
        name, number = f"{slug}-{number}", number + 1
    return name


# --- files --------------------------------------------------------------------------------------------------------


def _sound(
    drafts: list[_Draft], ours: Sequence[Provider], organizational: Callable[[str], str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Files that `lint` has nothing against, and why the rules were dropped that it had."""
    dropped: dict[str, str] = {}
    while True:
        kept = [draft for draft in drafts if draft.id not in dropped]
        files = _files(kept)
        faults = _faults(files, ours, organizational)
        found = {draft.id: fault.problem for fault in faults for draft in kept if _concerns(fault, draft)}
        if not found:
            return files, dropped
        dropped |= found


def _concerns(fault: RuleError, draft: _Draft) -> bool:
    """Whether a fault is a rule's, or its whole file's."""
    return fault.file == draft.file and (not fault.rule or f'"{draft.name}"' in fault.rule)


def _faults(files: dict[str, str], ours: Sequence[Provider], organizational: Callable[[str], str]) -> list[RuleError]:
    read_files = [lint_text(name, text) for name, text in files.items()]
    if faults := [fault for _, found in read_files for fault in found]:
        return faults
    providers = [provider for provider, _ in read_files if provider is not None]
    return lint_together([*providers, *ours], files, organizational) if providers else []


def _files(drafts: list[_Draft]) -> dict[str, str]:
    of_file: dict[str, list[_Draft]] = {}
    for draft in drafts:
        of_file.setdefault(draft.file, []).append(draft)
    return {file: _written(rules) for file, rules in sorted(of_file.items())}


def _written(rules: list[_Draft]) -> str:
    mx = tuple(dict.fromkeys(host for rule in rules for host in rule.foreign.home.mx))
    domains = tuple(dict.fromkeys(domain for rule in rules for domain in rule.foreign.home.domains))
    head = [
        f"# Imported from {', '.join(dict.fromkeys(_comment(rule.source) for rule in rules))}. The examples are made from the patterns: put real replies in their place.",
        _listed("mx", mx),
        _listed("domains", domains),
        'said_by = "any"' if not (mx or domains) else "",
    ]
    bodies = [
        f"# {_comment(rule.source)}, line {rule.foreign.line}: {_comment(rule.foreign.pattern)}\n{rule.text}"
        for rule in rules
    ]
    return "\n".join([*filter(None, head), "", "\n".join(bodies)])


def _comment(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)

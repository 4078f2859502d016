"""Rules for replies: what a TOML file of rules says, checked and made into values.

Knows the file format and what a good error says. Whether a reply fits a rule is `matching`'s business; whether a rule is
dead or hidden is `lint`'s.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from parsers import linear
from policies.rule import DETAILS, LEAVES, OPENING_REACTIONS, Opening, Provider, Rule, Strategy
from policies.rule_lines import line_of, line_told
from policies.said import normalise, one_mail
from policies.verdict import Bounce, IdentityType, Reaction, Scope

__all__ = [
    "DETAILS",
    "FILE_KEYS",
    "LEAVES",
    "OPENING_REACTIONS",
    "RULE_KEYS",
    "FaultKind",
    "Opening",
    "Provider",
    "Rule",
    "RuleError",
    "examine",
    "parse_provider",
]

_SCOPES_OF: Final = {
    Reaction.PAUSE_DOMAIN: (Scope.SENDER_DOMAIN, Scope.URL),
    Reaction.SLOW_IP: (Scope.IP,),
    Reaction.SUPPRESS: (Scope.RECIPIENT, Scope.RECIPIENT_DOMAIN),
}
"""Scope first: whom a reply must be about before a reaction is thinkable."""


class FaultKind(StrEnum):
    """What is wrong with a rule."""

    INVALID = "invalid"
    """It cannot be read, or says what no rule may."""
    LABEL = "label"
    """A label outside the closed vocabularies."""
    DEAD = "dead"
    """It can match nothing."""
    SHADOWED = "shadowed"
    """An earlier rule of its file takes what it is for."""
    UNREACHABLE = "unreachable"
    """Another file takes what it is for, so that it is never asked."""
    NO_EXAMPLE = "no-example"
    EXAMPLE = "example"
    """It does not match an example of its own."""
    COUNTEREXAMPLE = "counterexample"
    """It takes what it says that it does not."""


class RuleError(Exception):
    """A rule that cannot be used: says the file and line, the rule, the key, what is wrong and what would be right."""

    def __init__(
        self,
        file: str,
        rule: str,
        key: str,
        problem: str,
        remedy: str,
        *,
        kind: FaultKind = FaultKind.INVALID,
        said: str = "",
        line: int = 0,
    ) -> None:
        where = f"{file}:{line}" if line else file
        super().__init__(": ".join(part for part in (where, rule, key, f"{problem}; {remedy}") if part))
        self.file = file
        self.rule = rule
        """`rule 3 "rate-ip"`, "" where the file as a whole is wrong."""
        self.key = key
        self.problem = problem
        self.remedy = remedy
        self.kind = kind
        self.said = said
        """The example that it is about."""
        self.line = line
        """From 1; 0 where it is not known."""

    def located(self, text: str) -> "RuleError":
        """The same with its line in the file's text."""
        if self.line:
            return self
        rule = re.match(r"rule (\d+)", self.rule)
        above = self.rule.rpartition(": ")[2]  # the table that the key stands in, as `bounce`
        number = int(rule[1]) if rule else 0
        line = max(line_of(text, number, key, self.said) for key in (self.key, above))
        return RuleError(
            self.file, self.rule, self.key, self.problem, self.remedy, kind=self.kind, said=self.said, line=line
        )


FILE_KEYS: Final = {
    "said_by": '"provider" (the default), "any" (whatever server answers) or "postfix" (its own findings)',
    "mx": 'MX hosts: ".google.com" for all below it, "smtp.example.net" for one',
    "domains": 'recipient domains that are always this provider\'s; ".rr.com" for all below it',
    "tokens": "phrases that no other provider uses, for replies without context",
    "statuses": "enhanced codes that no other provider gives, for the same",
    "then": "providers whose own rules are asked after these",
    "rule": "[[rule]] tables, asked in their order; the first that fits decides",
}
RULE_KEYS: Final = {
    "name": "unique in its file",
    # What the reply looks like; all that are given must hold.
    "code": 'SMTP codes: "421", "5xx"',
    "enhanced": 'enhanced codes: "4.7.28", "x.7.26" (4 or 5), "5.7.606-649"',
    "any": "phrases, one of which it has; case, blanks, quotes and mail/email/e-mail make no difference",
    "all": "phrases, all of which it has",
    "none": "phrases, none of which it has",
    "reply": "a regular expression on the text in small letters, besides any or all",
    "command": 'what it answers: "RCPT TO", "end of DATA", "greeting"',
    # What it means: the words of `verdict` and `rule`.
    "detail": "category and leaf",
    "scope": "whom it is about",
    "bounce": "hard, soft, block or transient, or { 4xx = ..., 5xx = ... }",
    "reaction": "what to do",
    "identity": 'what it names: a type, { type, pattern } with one group, or "none"; for scope ip the IP by itself',
    "blocklists": "ids of lists, where the text names none",
    # How a reply of scope sender-domain, url or ip opens a sub-queue: see `Opening`.
    "open_after": '{ recipients = 3, within = "5m", ratio = 0.1 }',
    "recipients_named": "the same number where the reply names the identity",
    "pause": 'first pause, "10m"',
    "pause_min": "no pause is shorter",
    "pause_max": "nor longer",
    "default_identity": 'whom it means where it names nobody: "sender-domain" or "host"',
    "strategy": '"park", "lane" or "pushback"',
    "configuration": "true: something of ours wants repair, so mail is held only if that is configured",
    # The proof, run by the tests and when an admin's rules are loaded.
    "examples": "replies that it must match, as logged",
    "counterexamples": "replies that it must not take",
}
"""Every key and its meaning; others are refused."""
_PROVIDER_ID: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_HOST: Final = re.compile(r"\.?(?:[a-z0-9_-]{1,63}\.)*[a-z0-9-]{1,63}")


def parse_provider(name: str, text: str) -> Provider:
    """Read one file of rules; `name` is its path or just "google".

    Raises RuleError for TOML that cannot be read, unknown keys, labels outside the vocabularies, a reaction that does
    not go with the scope, patterns that could take long, and files that nothing could ever reach.
    """
    provider, faults = examine(name, text)
    if provider is None:
        raise faults[0]
    return provider


def examine(name: str, text: str) -> tuple[Provider | None, list[RuleError]]:
    """The same, with one fault for each rule that cannot be used; None where there is any."""
    faults: list[RuleError] = []
    try:
        provider = _provider(name, text, faults)
    except RuleError as fault:
        faults.append(fault)
    return (None, [fault.located(text) for fault in faults]) if faults else (provider, [])


def _provider(name: str, text: str, faults: list[RuleError]) -> Provider:
    """Read a file; what is wrong with single rules is added to `faults`, what is wrong with the file is raised."""
    entry = _Entry(name, "", _toml(name, text))
    entry.refuse_unknown(FILE_KEYS)
    provider = name.rpartition("/")[2].removesuffix(".toml")
    if not _PROVIDER_ID.fullmatch(provider):
        raise entry.error("", f"the file's name gives the id {provider!r}", "name it in [a-z0-9-], as gmx.toml")
    said_by = entry.word("said_by", ("provider", "any", "postfix"), default="provider")
    mx, domains, tokens = entry.hosts("mx"), entry.hosts("domains"), entry.phrases("tokens")
    if said_by == "provider" and not (mx or domains or tokens):
        raise entry.error(
            "",
            "a dead block: nothing says whose replies these are",
            'give mx = [".example.com"] or said_by = "any"',
            FaultKind.DEAD,
        )
    tables = entry.table.get("rule", [])
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        raise entry.error("rule", "found something else", "wanted tables headed [[rule]]")
    statuses, then = entry.statuses("statuses"), entry.texts("then")
    rules: dict[str, Rule] = {}
    for number, table in enumerate(tables, 1):
        try:
            rule = _rule(name, provider, said_by, number, table)
        except RuleError as fault:
            faults.append(fault)
            continue
        if rules.setdefault(rule.id, rule) is not rule:
            faults.append(
                RuleError(name, rule.label, "name", "there is an earlier rule of this name", "names are unique")
            )
    return Provider(provider, name, said_by, mx, domains, tokens, statuses, then, tuple(rules.values()))


def _toml(name: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = line_told(str(error))
        raise RuleError(
            name, "", "", f"not valid TOML: {error}", "wanted keys and [[rule]] tables", line=line
        ) from error


def _rule(file: str, provider: str, said_by: str, number: int, table: dict[str, Any]) -> Rule:
    entry = _Entry(file, f"rule {number}", table)
    name = entry.text("name")
    entry = _Entry(file, f'rule {number} "{name}"', table)
    entry.refuse_unknown(RULE_KEYS)
    if not _PROVIDER_ID.fullmatch(name):
        raise entry.error("name", f"found {name!r}", "wanted [a-z0-9-], as rate-ip")
    detail = entry.word("detail", DETAILS)
    scope = Scope(entry.word("scope", Scope))
    reaction = Reaction(entry.word("reaction", Reaction))
    transient, permanent = entry.bounce()
    identity, identity_pattern = entry.identity(scope)
    rule = Rule(
        id=f"{provider}/{name}",
        number=number,
        codes=entry.codes(),
        statuses=entry.statuses("enhanced"),
        any_of=entry.phrases("any"),
        all_of=entry.phrases("all"),
        none_of=entry.phrases("none"),
        pattern=entry.pattern("reply", normalised=True),
        commands=frozenset(entry.texts("command")),
        category=detail.partition(".")[0],
        detail=detail,
        scope=scope,
        bounce_transient=transient,
        bounce_permanent=permanent,
        reaction=reaction,
        identity=identity,
        identity_pattern=identity_pattern,
        blocklists=entry.texts("blocklists"),
        opening=entry.opening(scope, reaction),
        examples=entry.texts("examples"),
        counterexamples=entry.texts("counterexamples"),
    )
    _check(rule, said_by, entry)
    return rule


def _check(rule: Rule, said_by: str, entry: "_Entry") -> None:
    """What no rule may do, whoever wrote it."""
    if not (rule.codes or rule.statuses or rule.any_of or rule.all_of or rule.commands):
        raise entry.error("", "it would match every reply", "give code, enhanced, any or all")
    if rule.pattern and not (rule.any_of or rule.all_of):
        raise entry.error(
            "reply", "a pattern alone is tried on every reply", "name in `any` or `all` the words that it needs"
        )
    if scopes := _SCOPES_OF.get(rule.reaction):
        if rule.scope not in scopes:
            raise entry.error(
                "reaction", f"{rule.reaction} with scope {rule.scope}", f"it goes with scope {' or '.join(scopes)} only"
            )
        if said_by == "postfix" and rule.reaction in OPENING_REACTIONS:
            raise entry.error("reaction", f"{rule.reaction} for our own finding", "wanted nothing or an alert")
    hard = Bounce.HARD in {rule.bounce_transient, rule.bounce_permanent}
    if hard != (rule.reaction is Reaction.SUPPRESS):
        raise entry.error("bounce", f"{rule.reaction} with this bounce", "hard and suppress stand together or not")


_MISSING: Final = object()
_LABELS: Final = frozenset({"detail", "scope", "reaction", "bounce", "4xx", "5xx", "identity", "type"})
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_CODE: Final = re.compile(r"[245](?:\d\d|xx)")
_STATUS: Final = re.compile(r"([245x])\.(\d{1,3})\.(\d{1,3})(?:-(\d{1,3}))?")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A TOML table that is being read: gives typed values, or an error that says where it stands."""

    file: str
    rule: str
    table: dict[str, Any]

    def error(self, key: str, problem: str, remedy: str, kind: FaultKind = FaultKind.INVALID) -> RuleError:
        return RuleError(self.file, self.rule, key, problem, remedy, kind=kind)

    def refuse_unknown(self, known: Iterable[str]) -> None:
        for key in self.table:
            if key not in known:
                near = difflib.get_close_matches(key, list(known), n=1)
                raise self.error(
                    key, "unknown key", f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                )

    def text(self, key: str) -> str:
        value = self.table.get(key, _MISSING)
        if not isinstance(value, str) or not value:
            found = "missing" if value is _MISSING else f"found {value!r}"
            raise self.error(key, found, "wanted a text in quotes")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, or one; empty where the key is not given."""
        value = self.table.get(key, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) and one for one in values):
            raise self.error(key, f"found {value!r}", 'wanted a text or a list of texts, as ["one", "two"]')
        return tuple(values)

    def word(self, key: str, vocabulary: Iterable[str], *, default: str = "") -> str:
        if default and key not in self.table:
            return default
        found, known = self.text(key), list(vocabulary)
        if found not in known:
            near = difflib.get_close_matches(found, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            kind = FaultKind.LABEL if key in _LABELS else FaultKind.INVALID
            raise self.error(key, f"found {found!r}", f"wanted one of {', '.join(known)}{hint}", kind)
        return found

    def phrases(self, key: str) -> tuple[str, ...]:
        phrases = tuple(normalise(text) for text in self.texts(key))
        if "" in phrases:
            raise self.error(key, "a phrase of quotes and blanks only", "wanted words that the reply has")
        return phrases

    def hosts(self, key: str) -> tuple[str, ...]:
        hosts = tuple(text.lower() for text in self.texts(key))
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise self.error(key, f"found {host!r}", 'wanted ".example.com" or "example.com", no dot at the end')
        return hosts

    def codes(self) -> frozenset[str]:
        codes = self.texts("code")
        for code in codes:
            if not _CODE.fullmatch(code):
                raise self.error("code", f"found {code!r}", 'wanted SMTP codes, as "421" or "5xx"')
        return frozenset(codes)

    def statuses(self, key: str) -> frozenset[str]:
        """Enhanced codes; "x.7.26" stands for 4.7.26 and 5.7.26, "5.7.606-649" for all of them."""
        statuses: set[str] = set()
        for text in self.texts(key):
            parts = _STATUS.fullmatch(text)
            if parts is None:
                raise self.error(key, f"found {text!r}", 'wanted "4.7.28", "x.7.26" or "5.7.606-649"')
            klass, subject, first, last = parts.groups()
            numbers = range(int(first), int(last or first) + 1)
            statuses |= {f"{digit}.{subject}.{n}" for digit in ("45" if klass == "x" else klass) for n in numbers}
        return frozenset(statuses)

    def pattern(self, key: str, *, normalised: bool = False) -> re.Pattern[str] | None:
        if key not in self.table:
            return None
        source = self.text(key)
        try:
            return linear.compile_pattern(one_mail(source) if normalised else source)
        except ValueError as error:
            raise self.error(key, f"{source!r}: {error}", "wanted a regular expression of bounded work") from error

    def bounce(self) -> tuple[Bounce, Bounce]:
        """One word for both, or a table {4xx = ..., 5xx = ...}."""
        value = self.table.get("bounce")
        if not isinstance(value, dict):
            bounce = Bounce(self.word("bounce", Bounce))
            return bounce, bounce
        twins = _Entry(self.file, f"{self.rule}: bounce", value)
        twins.refuse_unknown(("4xx", "5xx"))
        return Bounce(twins.word("4xx", Bounce)), Bounce(twins.word("5xx", Bounce))

    def identity(self, scope: Scope) -> tuple[IdentityType | None, re.Pattern[str] | None]:
        """A type, or {type, pattern}; by default the IP that a reply of scope ip names; "none": nothing is named."""
        value = self.table.get("identity", "ip" if scope is Scope.IP else "none")
        if value == "none":
            return None, None
        if not isinstance(value, dict):
            return IdentityType(_Entry(self.file, self.rule, {"identity": value}).word("identity", IdentityType)), None
        entry = _Entry(self.file, f"{self.rule}: identity", value)
        entry.refuse_unknown(("type", "pattern"))
        pattern = entry.pattern("pattern")
        if pattern is not None and pattern.groups != 1:
            raise entry.error("pattern", f"it has {pattern.groups} groups", "wanted one group, around the value")
        return IdentityType(entry.word("type", IdentityType)), pattern

    def seconds(self, key: str, default: float) -> float:
        value = self.table.get(key, default)
        parts = _DURATION.fullmatch(str(value)) if type(value) in {str, int, float} else None
        if parts is None:
            raise self.error(key, f"found {value!r}", 'wanted a time, as "10m", "1h" or seconds')
        return float(parts[1]) * _SECONDS[parts[2]]

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value = self.table.get(key, default)
        if type(value) not in {int, float} or not least <= value <= most:
            raise self.error(key, f"found {value!r}", f"wanted a number from {least:g} to {most:g}")
        return float(value)

    def opening(self, scope: Scope, reaction: Reaction) -> Opening:
        after = self.table.get("open_after", {})
        if not isinstance(after, dict):
            raise self.error("open_after", f"found {after!r}", 'wanted {recipients = 3, within = "5m", ratio = 0.1}')
        window = _Entry(self.file, f"{self.rule}: open_after", after)
        window.refuse_unknown(("recipients", "within", "ratio"))
        default = Opening()
        repair = self.table.get("configuration", reaction in {Reaction.ALERT_AUTH, Reaction.ALERT_TLS})
        if not isinstance(repair, bool):
            raise self.error("configuration", f"found {repair!r}", "wanted true or false")
        opening = Opening(
            recipients=int(window.number("recipients", default.recipients, 1, 1000)),
            recipients_named=int(self.number("recipients_named", default.recipients_named, 1, 1000)),
            within=window.seconds("within", default.within),
            ratio=window.number("ratio", default.ratio, 0, 1),
            pause=self.seconds("pause", default.pause),
            pause_min=self.seconds("pause_min", default.pause_min),
            pause_max=self.seconds("pause_max", default.pause_max),
            default_identity=self.word(
                "default_identity", ("sender-domain", "host"), default="host" if scope is Scope.IP else "sender-domain"
            ),
            strategy=Strategy(self.word("strategy", tuple(Strategy), default=Strategy.PARK)),
            configuration=repair,
        )
        if not opening.pause_min <= opening.pause <= opening.pause_max:
            raise self.error(
                "pause",
                f"{opening.pause:g} s is not between pause_min {opening.pause_min:g} s and pause_max "
                f"{opening.pause_max:g} s",
                "wanted pause_min <= pause <= pause_max",
            )
        return opening

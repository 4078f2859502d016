"""What a reply means: from its text and the server that said it to one verdict.

Knows which rules are asked in what order: those of the provider that answered, then those for any server; and for
Postfix's own findings its own. The rules themselves are data.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, Self

from policies.blocklists import find_blocklists
from policies.identity import find_identity
from policies.matching import Phrases, Table
from policies.provider_directory import ProviderDirectory, last_two_labels
from policies.rules import Opening, Provider, Rule, RuleError, parse_provider
from policies.said import LONGEST, Heard, Said, hear
from policies.verdict import Bounce, Reaction, Scope, Verdict
from policies.wording import says_only_that

__all__ = ["RuleSet", "Said"]

_REMEMBERED: Final = 2_000
"""Verdicts kept; a throttled queue says the same again and again. At most 8 MB of text."""
_AFTER_SUSPENDED: Final = frozenset(
    {Reaction.ALERT_AUTH, Reaction.ALERT_CONTENT, Reaction.ALERT_TLS, Reaction.ALERT_LOCAL}
)
"""What remains to do when Postfix only repeats an earlier refusal: nothing was attempted, so nothing is counted."""


class RuleSet:
    """All rules of a site, ready to be asked."""

    def __init__(
        self, providers: Iterable[Provider], *, organizational: Callable[[str], str] = last_two_labels
    ) -> None:
        """Take the files of rules in order of precedence. Raises RuleError where one leans on an unknown provider."""
        files = tuple(providers)
        self.providers = ProviderDirectory(files, organizational)
        own = _own_rules(files)
        self._tables = _provider_tables(files, own)
        self._any = Table(rule for file in files if file.said_by == "any" for rule in own[file.name])
        self._postfix = Table(rule for file in files if file.said_by == "postfix" for rule in own[file.name])
        tokens = [(token, file.name) for file in files for token in file.tokens]
        self._tokens = Phrases((order, token, provider) for order, (token, provider) in enumerate(tokens))
        self._statuses = {status: file.name for file in reversed(files) for status in file.statuses}
        self._rules = {rule.id: rule for rules in own.values() for rule in rules}
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self.classify_anew)

    @classmethod
    def read(cls, files: Iterable[tuple[str, str]], *, organizational: Callable[[str], str] = last_two_labels) -> Self:
        """Read (name, TOML text) in order of precedence; a file's earlier namesake goes first. Raises RuleError."""
        return cls([parse_provider(name, text) for name, text in files], organizational=organizational)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(self._rules.values())

    def opening(self, rule: str) -> Opening:
        """How the named rule opens a sub-queue; the defaults for a rule that is no more, or was never one."""
        known = self._rules.get(rule)
        return known.opening if known else Opening()

    def detail(self, rule: str) -> str:
        """The named rule's leaf; "" for a rule that is no more, or was never one."""
        known = self._rules.get(rule)
        return known.detail if known else ""

    def classify(self, said: Said) -> Verdict:
        """What a reply means; the same for the same, whatever was asked before. Never raises."""
        if len(said.reason) > LONGEST:
            said = said._replace(reason=said.reason[:LONGEST])
        return self._remembered(said)

    def classify_anew(self, said: Said) -> Verdict:
        """The same, without looking at what was classified before."""
        heard = hear(said)
        known = self.providers.known_host(heard.host) or self.providers.of_domain(heard.recipient_domain)
        token = self._token(heard) if known is None else None
        provider = known or self.providers.of_host(heard.host) or token
        rule = self._find(heard, known or token)
        if rule is None:
            return _unknown(heard, provider)
        return _verdict(rule, heard, provider)

    def _find(self, heard: Heard, provider: str | None) -> Rule | None:
        if not heard.remote and (rule := self._postfix.find(heard)):
            return rule
        table = self._tables.get(provider) if provider else None
        if heard.remote:
            rule = table.find(heard) if table else None
            return self._any.find(heard) if rule is None else self._second_thought(rule, heard)
        # Text without a code that is none of Postfix's: taken for a reply only where a provider's own token says so.
        return table.find(heard) if table and self._token(heard) == provider else None

    def _second_thought(self, rule: Rule, heard: Heard) -> Rule:
        """A provider's enhanced code alone condemns a recipient only where no words speak of something else."""
        if rule.reaction is not Reaction.SUPPRESS or rule.any_of or rule.all_of:
            return rule
        other = self._any.find(heard)
        if other is None or other.reaction is Reaction.SUPPRESS or not (other.any_of or other.all_of):
            return rule
        return other

    def _token(self, heard: Heard) -> str | None:
        said = self._tokens.said(heard.text, heard.words)
        return min(said)[2] if said else self._statuses.get(heard.enhanced)


def _own_rules(files: tuple[Provider, ...]) -> dict[str, tuple[Rule, ...]]:
    """Name -> rules; files of one name are one, and of two rules with the same name the first holds."""
    own: dict[str, dict[str, Rule]] = {}
    for file in files:
        rules = own.setdefault(file.name, {})
        for rule in file.rules:
            rules.setdefault(rule.id, rule)
    return {name: tuple(rules.values()) for name, rules in own.items()}


def _provider_tables(files: tuple[Provider, ...], own: dict[str, tuple[Rule, ...]]) -> dict[str, Table]:
    then: dict[str, list[str]] = {}
    for file in files:
        if file.said_by == "provider":
            then.setdefault(file.name, []).extend(file.then)
        for name in file.then:
            if name not in own:
                raise RuleError(
                    file.file, "", "then", f"no file of rules is called {name!r}", f"known: {', '.join(own)}"
                )
    return {name: Table(rule for one in (name, *others) for rule in own[one]) for name, others in then.items()}


def _verdict(rule: Rule, heard: Heard, provider: str | None) -> Verdict:
    bounce = rule.bounce_permanent if heard.is_permanent else rule.bounce_transient
    reaction = rule.reaction
    if heard.suspended:
        bounce = Bounce.TRANSIENT
        reaction = reaction if reaction in _AFTER_SUSPENDED else Reaction.NOTHING
    elif reaction is Reaction.SUPPRESS and heard.remote and not says_only_that(rule, heard):
        bounce, reaction = Bounce.SOFT, Reaction.NOTHING
    identity = find_identity(rule.identity, heard.plain.lower(), rule.identity_pattern) if rule.identity else None
    lists: tuple[str, ...] = ()
    if rule.detail in _LISTED:
        zone_in = heard.plain if rule.detail == _BLOCKLIST else ""
        lists = find_blocklists(heard.text, heard.words, zone_in=zone_in)
    if lists in _VAGUE:
        lists = rule.blocklists or lists
    return Verdict(
        provider,
        rule.id,
        rule.category,
        rule.detail,
        bounce,
        rule.scope,
        identity,
        lists,
        reaction,
        heard.code,
        heard.enhanced,
    )


_BLOCKLIST: Final = "reputation.blocklist"
_LISTED: Final = frozenset({_BLOCKLIST, "reputation.ip", "reputation.domain", "policy.other", "content.spam"})
"""What a listing may lie behind; elsewhere a list's name is none (a receiver whose own query was refused)."""


_VAGUE: Final = ((), ("spamhaus",))
"""Where the rule may know better than the words."""


def _unknown(heard: Heard, provider: str | None) -> Verdict:
    """No rule: it concerns this message and nobody else, and nothing is done."""
    bounce = Bounce.BLOCK if heard.is_permanent and not heard.suspended else Bounce.TRANSIENT
    return Verdict(
        provider,
        "unknown",
        "unknown",
        "unknown",
        bounce,
        Scope.MESSAGE,
        None,
        (),
        Reaction.NOTHING,
        heard.code,
        heard.enhanced,
    )

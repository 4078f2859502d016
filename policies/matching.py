"""Finds the first rule that a reply fits, in a table of hundreds, in about ten microseconds.

Knows how rules are laid out for that: by SMTP code, then by one whole word of each phrase, so that only rules whose
word the reply has are tried at all. The order of the rules decides, whatever the layout.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from policies.rules import Rule
from policies.said import Heard, words
from policies.verdict import Reaction, Scope

_BEFORE_RECIPIENT: Final = frozenset({"greeting", "EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "MAIL FROM"})
"""Answers to these were given before any recipient was named, so none of them condemns one."""


def says(text: str, phrase: str) -> bool:
    """Whether a normalised text has the phrase, beginning at a word: "ip blocked" is not in "zip blocked"."""
    at = text.find(phrase)
    while at > 0 and phrase[0].isalnum() and text[at - 1].isalnum():
        at = text.find(phrase, at + 1)
    return at >= 0


def fits(rule: Rule, heard: Heard) -> bool:
    """Whether a reply meets all conditions of a rule but its code."""
    if rule.statuses and heard.enhanced not in rule.statuses:
        return False
    if heard.command in _BEFORE_RECIPIENT and _about_what_came_later(rule, heard.command):
        return False
    if rule.commands and heard.command not in rule.commands:
        return False
    text = heard.text
    if rule.any_of and not any(says(text, phrase) for phrase in rule.any_of):
        return False
    if not all(says(text, phrase) for phrase in rule.all_of) or any(says(text, phrase) for phrase in rule.none_of):
        return False
    return rule.pattern is None or _pattern_fits(rule, heard)


def _about_what_came_later(rule: Rule, command: str) -> bool:
    return rule.reaction is Reaction.SUPPRESS or (command == "greeting" and rule.scope is Scope.MESSAGE)


def _pattern_fits(rule: Rule, heard: Heard) -> bool:
    """A group named recipient_domain must be the recipient's domain, where that is known."""
    assert rule.pattern is not None
    found = rule.pattern.search(heard.text)
    if found is None or not heard.recipient_domain or "recipient_domain" not in rule.pattern.groupindex:
        return found is not None
    return found["recipient_domain"] == heard.recipient_domain


class _Try(NamedTuple):
    """A rule to be tried, if its phrase is there."""

    order: int
    phrase: str
    rule: Rule


class _Bucket(NamedTuple):
    """The rules that one SMTP code leaves, by what must be in the reply."""

    always: tuple[_Try, ...]
    by_word: dict[str, tuple[_Try, ...]]
    by_status: dict[str, tuple[_Try, ...]]
    known: frozenset[str]
    """The keys of `by_word`."""


class Table:
    """Rules in the order in which they are asked."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._named = frozenset(code for rule in self.rules for code in rule.codes)
        self._buckets: dict[str, _Bucket] = {}

    def find(self, heard: Heard) -> Rule | None:
        """The first rule that fits."""
        bucket = self._bucket(heard)
        tries = list(bucket.always)
        for word in bucket.known & heard.words:
            tries += bucket.by_word[word]
        if heard.enhanced:
            tries += bucket.by_status.get(heard.enhanced, ())
        text = heard.text
        for attempt in sorted([attempt for attempt in tries if attempt.phrase in text]):
            if fits(attempt.rule, heard):
                return attempt.rule
        return None

    def _bucket(self, heard: Heard) -> _Bucket:
        """One for each code that a rule names, one for the others of a class, one a class for no code at all."""
        code = heard.code
        if code not in self._named:
            code = f"{code[0]}xx" if code else f"{heard.enhanced[:1]}??"
        bucket = self._buckets.get(code)
        if bucket is None:
            bucket = self._buckets[code] = _lay_out(rule for rule in self.rules if _takes(rule, code))
        return bucket


def _takes(rule: Rule, code: str) -> bool:
    """Whether a rule is for "550", for "5xx" (a code that no rule names), "5??" or "??" (a reply without a code)."""
    if not rule.codes or code in rule.codes or code == "??":
        return True
    if code.endswith("??"):
        return any(code[0] == one[0] for one in rule.codes)
    return f"{code[0]}xx" in rule.codes


def _lay_out(rules: Iterable[Rule]) -> _Bucket:
    always: list[_Try] = []
    by_word: dict[str, list[_Try]] = {}
    by_status: dict[str, list[_Try]] = {}
    order = 0
    for rule in rules:
        for phrase in rule.any_of or rule.all_of[:1] or ("",):
            order += 1
            attempt = _Try(order, phrase, rule)
            if whole := _whole_words(phrase):
                by_word.setdefault(max(whole, key=len), []).append(attempt)
            elif rule.statuses and not phrase:
                for status in rule.statuses:
                    by_status.setdefault(status, []).append(attempt)
            else:
                always.append(attempt)
    return _Bucket(
        tuple(always),
        {word: tuple(tries) for word, tries in by_word.items()},
        {status: tuple(tries) for status, tries in by_status.items()},
        frozenset(by_word),
    )


def _whole_words(phrase: str) -> list[str]:
    """The words of a phrase that are whole in every reply that has it: its last may go on, its first is one's begin."""
    whole = sorted(words(phrase))
    if phrase[-1:].isalnum():
        whole.remove(_last_word(phrase))
    return whole


def _last_word(phrase: str) -> str:
    at = len(phrase)
    while at and phrase[at - 1].isalnum():
        at -= 1
    return phrase[at:]

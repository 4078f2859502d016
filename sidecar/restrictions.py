"""A restriction list of smtpd as text: its elements, and the place in it where a policy service is asked in time.

Knows which restrictions take an argument and which let mail pass; what they mean otherwise is Postfix's business.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

# smtpd_check.c: these are followed by one argument; so is every check_*.
_WITH_ARGUMENT = frozenset({
    "permit_dnswl_client",
    "permit_rhswl_client",
    "reject_rbl_client",
    "reject_rhsbl_client",
    "reject_rhsbl_helo",
    "reject_rhsbl_recipient",
    "reject_rhsbl_reverse_client",
    "reject_rhsbl_sender",
    "sleep",
})  # fmt: skip
_BEFORE_ANOTHER = "warn_if_reject"


class Element(NamedTuple):
    """One restriction with its argument."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def name(self) -> str:
        """The restriction itself, without `warn_if_reject`."""
        return next((word for word in self.words if word.lower() != _BEFORE_ANOTHER), self.words[-1]).lower()

    @property
    def permits(self) -> bool:
        """Ends the list for the mail that it names: what stands behind is not asked."""
        return self.name == "permit" or self.name.startswith("permit_")

    @property
    def rejects(self) -> bool:
        return self.name in {"reject", "defer"} or self.name.startswith("reject_")

    @property
    def reference(self) -> str:
        """Name of the parameter that `$name` stands for, "" for another word."""
        word = self.words[0]
        return word.lstrip("$").strip("{}()") if word.startswith("$") else ""


def split(text: str) -> list[Element]:
    """The elements of a list; commas and blanks part words, `{ ... }` is one word (mystrtok.c)."""
    elements: list[Element] = []
    pending: list[str] = []
    wanted = 1
    for word in _words(text):
        pending.append(word)
        wanted -= 1
        lower = word.lower()
        if not word.startswith("{") and (
            lower == _BEFORE_ANOTHER or (wanted == 0 and (lower in _WITH_ARGUMENT or lower.startswith("check_")))
        ):
            wanted = 1
        if wanted == 0:
            elements.append(Element(tuple(pending)))
            pending, wanted = [], 1
    if pending:
        elements.append(Element(tuple(pending)))
    return elements


def join(elements: Sequence[Element]) -> str:
    return ", ".join(map(str, elements))


def asked_in_time(text: str, ours: Callable[[Element], bool]) -> bool:
    """Whether an element that is `ours` stands before the first that lets mail pass; of an expanded list."""
    for element in split(text):
        if ours(element):
            return True
        if element.permits:
            return False
    return False


def placed(text: str, element: str, values: Mapping[str, str], ours: Callable[[Element], bool]) -> str:
    """The list with `element` before the first that lets mail pass, so behind every rejection before that.

    `values`: parameters that `$name` may stand for. Elements that are `ours` go: twice is the same as once.
    """
    others = [one for one in split(text) if not ours(one)]
    at = next((i for i, one in enumerate(others) if _permits(one, values)), len(others))
    return join([*others[:at], Element((element,)), *others[at:]])


def first(text: str, element: str, ours: Callable[[Element], bool]) -> str:
    """The list with `element` at its head, and without others that are `ours`."""
    return join([Element((element,)), *(one for one in split(text) if not ours(one))])


def last(text: str, element: str) -> str:
    """The list with `element` at its end; where it stands already it stays."""
    elements = split(text)
    return text if any(str(one) == element for one in elements) else join([*elements, Element((element,))])


def without(text: str, ours: Callable[[Element], bool]) -> str:
    """The list without what is `ours`."""
    return join([one for one in split(text) if not ours(one)])


def _permits(element: Element, values: Mapping[str, str]) -> bool:
    """Whether an element, or the parameter that it refers to, lets mail pass."""
    if element.reference not in values:
        return element.permits
    deeper = {name: value for name, value in values.items() if name != element.reference}  # no circles
    return any(_permits(one, deeper) for one in split(values[element.reference]))


class PolicyService(NamedTuple):
    """The argument of `check_policy_service`."""

    endpoint: str
    """"unix:private/sidecar", "inet:127.0.0.1:10040"."""
    settings: Mapping[str, str]
    """timeout, default_action and the like (3.0 and later), where given in braces."""


def policy_service(element: Element) -> PolicyService | None:
    """What a `check_policy_service` element asks; None for any other."""
    words = element.words[-2:]
    if len(words) < 2 or words[0].lower() != "check_policy_service":
        return None
    if not words[1].startswith("{"):
        return PolicyService(words[1], {})
    inner = _words(words[1][1:].rpartition("}")[0])
    settings = {}
    for word in inner[1:]:
        name, _, value = word.strip("{} ").partition("=")
        settings[name.strip()] = value.strip()
    return PolicyService(inner[0] if inner else "", settings)


def _words(text: str) -> list[str]:
    words: list[str] = []
    word, depth = "", 0
    for character in text:
        if depth == 0 and (character == "," or character.isspace()):
            if word:
                words.append(word)
            word = ""
            continue
        depth += {"{": 1, "}": -1}.get(character, 0)
        word += character
    return [*words, word] if word else words

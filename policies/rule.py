"""A rule for replies as a value: what a reply looks like, what it means, and how it opens a sub-queue.

Knows the closed vocabulary of causes. How rules are written is `rules`' business, how they are asked `matching`'s.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from policies.verdict import Bounce, IdentityType, Reaction, Scope

LEAVES: Final = {
    "authentication": ("spf", "dkim", "dmarc", "unauthenticated", "ptr", "arc"),
    "content": ("spam", "phish", "attachment"),
    "recipient": ("unknown", "bad-domain", "bad-address", "inactive", "full", "moved"),
    "throttling": ("ip", "domain", "recipient", "connections", "url", "message", "greylist", "generic"),
    "reputation": ("blocklist", "ip", "domain"),
    "infrastructure": ("dns", "connect", "tls", "timeout", "remote", "local", "loop"),
    "policy": (
        "sender", "recipient-org", "relay", "size", "rfc", "protocol", "too-many-recipients", "submission", "other",
    ),
}  # fmt: skip
"""Category -> its leaves. Closed: a rule with any other label is refused."""
DETAILS: Final = tuple(f"{category}.{leaf}" for category, leaves in LEAVES.items() for leaf in leaves)

OPENING_REACTIONS: Final = frozenset({Reaction.PAUSE_DOMAIN, Reaction.SLOW_IP})
"""Those that open a sub-queue."""


class Strategy(StrEnum):
    """What becomes of the mail of a key that may not leave now."""

    PARK = "park"
    """It waits on hold, new and queued."""
    LANE = "lane"
    """New mail goes over a transport with few connections; nothing is held."""
    PUSHBACK = "pushback"
    """The client is told to try again later; nothing is held."""


class Opening(NamedTuple):
    """When a reply opens a sub-queue, and how it begins."""

    recipients: int = 3
    """That many different recipients must have been refused ..."""
    recipients_named: int = 1
    """... or that many, where the reply names the identity."""
    within: float = 300.0
    """Seconds."""
    ratio: float = 0.1
    """Least share of refused among the attempts of the key within the window."""
    pause: float = 300.0
    """First pause, seconds."""
    pause_min: float = 30.0
    pause_max: float = 3600.0
    default_identity: str = "sender-domain"
    """What is paused where the reply names nobody: "sender-domain", or "host" (this host's mail) for scope ip."""
    strategy: Strategy = Strategy.PARK
    configuration: bool = False
    """A repair of ours is asked for (SPF, DKIM, DMARC, PTR, TLS): held only if that is configured."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of reply: what it looks like and what it means.

    All conditions that are given must hold. Phrases are compared as `normalise` leaves them and begin at a word.
    """

    id: str
    """"google/rate-dkim-domain"."""
    number: int
    """Place in its file, from 1."""
    codes: frozenset[str]
    """"421", "4xx"; empty: any."""
    statuses: frozenset[str]
    """Enhanced codes (RFC 3463), ranges spelled out; empty: any."""
    any_of: tuple[str, ...]
    all_of: tuple[str, ...]
    none_of: tuple[str, ...]
    pattern: re.Pattern[str] | None
    """Searched in the normalised text, after the phrases were found."""
    commands: frozenset[str]
    """As in `Reply.command`; empty: any."""
    category: str
    detail: str
    """Category and leaf."""
    scope: Scope
    bounce_transient: Bounce
    """For a 4xx code ..."""
    bounce_permanent: Bounce
    """... and for its 5xx twin."""
    reaction: Reaction
    identity: IdentityType | None
    identity_pattern: re.Pattern[str] | None
    """Searched in the folded text in small letters; its one group is the value. None: where such values stand."""
    blocklists: tuple[str, ...]
    """Meant where the text itself names none."""
    opening: Opening
    examples: tuple[str, ...]
    counterexamples: tuple[str, ...]

    @property
    def label(self) -> str:
        return f'rule {self.number} "{self.id.rpartition("/")[2]}"'


@dataclass(frozen=True, slots=True)
class Provider:
    """One file of rules: a mailbox provider's, or one for replies of any server."""

    name: str
    """Provider id, the file's name without ".toml"."""
    file: str
    said_by: str
    """"provider", "any" (whatever server answers) or "postfix" (Postfix's own findings)."""
    mx: tuple[str, ...]
    """".google.com" for all hosts below it, "smtp.example.net" for one."""
    domains: tuple[str, ...]
    """Recipient domains that are always this provider's; ".rr.com" for all below it."""
    tokens: tuple[str, ...]
    """Phrases that no other provider uses; they tell whose a reply without context is."""
    statuses: frozenset[str]
    """Enhanced codes that no other provider gives; they tell the same."""
    then: tuple[str, ...]
    """Providers whose own rules are asked after these."""
    rules: tuple[Rule, ...]

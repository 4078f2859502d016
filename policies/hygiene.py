"""List hygiene: recipients that cannot be meant, known by their address alone or by what the DNS said in the background.

Knows the checks, their order and what smtpd is told; an answer is looked up in memory, and what is not known is let in.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from parsers.address import domain_of
from parsers.policy_protocol import Action, Info, PolicyRequest, Reject, RejectUnverified
from policies.strangers import Strangers

MAX_DOMAINS = 100_000
_MOST_PLAIN: Final = 8_192
CONFIRM_WITHIN: Final = 86_400.0
"""Seconds in which a second look-up confirms the first."""
VERIFY: Final = "verify"
"""What Postfix's own verification is counted as, beside the checks."""


class Check(StrEnum):
    SYNTAX = "syntax"
    NULL_MX = "null_mx"
    NO_HOST = "no_host"
    TYPO = "typo"
    DISPOSABLE = "disposable"
    ROLE = "role"


class Level(StrEnum):
    OFF = "off"
    WARN = "warn"
    """Let in, and say it in Postfix's log (INFO)."""
    REJECT = "reject"


class NoHost(StrEnum):
    """Why no host takes mail for a domain."""

    NULL_MX = "null-mx"
    """It says so itself: one MX record that names the root (RFC 7505 section 3)."""
    NOTHING = "nothing"
    """No such domain, or neither MX nor address (RFC 5321 section 5.1)."""


class Said(NamedTuple):
    status: str
    """RFC 3463; 5.1.10 is RFC 7505's."""
    text: str


SAID: Final[Mapping[Check, Said]] = MappingProxyType({
    Check.SYNTAX: Said("5.1.3", "no mailbox can have this address"),
    Check.NULL_MX: Said("5.1.10", "this domain says that it takes no mail (null MX)"),
    Check.NO_HOST: Said("5.1.2", "this domain has neither a mail exchanger nor an address"),
    Check.TYPO: Said("5.1.2", "this domain is a known misspelling of {right}"),
    Check.DISPOSABLE: Said("5.7.1", "this domain gives out mailboxes for minutes"),
    Check.ROLE: Said("5.7.1", "this is a role, and no person asked for this mail"),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Levels:
    """What is done about each check."""

    syntax: Level = Level.OFF
    null_mx: Level = Level.OFF
    no_host: Level = Level.OFF
    typo: Level = Level.OFF
    disposable: Level = Level.OFF
    role: Level = Level.OFF


class Lists(NamedTuple):
    typos: Mapping[str, str]
    """Misspelt domain -> the one that is meant. Lower case, as all of these."""
    disposable: frozenset[str]
    """Domains; what is below them counts too."""
    roles: frozenset[str]
    """Local parts."""


class Found(NamedTuple):
    check: Check | None
    """None: Postfix's own verification is asked for."""
    action: Action
    why: str


class _Answer(NamedTuple):
    why: NoHost
    until: float
    confirmed: bool


class NoHosts:
    """Domains that take no mail, as look-ups in the background found."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Answer] = OrderedDict()

    def learn(self, domain: str, why: NoHost | None, *, ttl: float, now: float) -> None:
        """Take a look-up's answer; `why` None: there is a host. A failed look-up is none, and changes nothing.

        That there is nothing counts only when a second look-up says so after the first answer's time: a resolver that
        is out of order for an hour refuses nobody. A null MX is somebody's own word and counts at once.
        """
        if why is None or not _in_dns(domain):
            self._known.pop(domain, None)
            return
        before = self._known.pop(domain, None)
        known_since = before is not None and before.why is why and now - before.until < CONFIRM_WITHIN
        again = before is not None and known_since and (before.confirmed or now >= before.until)
        until = before.until if before is not None and known_since and now < before.until else now + ttl
        if len(self._known) >= MAX_DOMAINS:
            self._known.popitem(last=False)
        self._known[domain] = _Answer(why, until, again or why is NoHost.NULL_MX)

    def of(self, domain: str, *, now: float) -> NoHost | None:
        """Say why no host takes mail for a lower-case domain; None where one does, or it is not known (any more)."""
        known = self._known.get(domain)
        return known.why if known is not None and known.confirmed and now < known.until else None

    def __contains__(self, domain: str) -> bool:
        """Whether anything was found about a lower-case domain, be it over or not confirmed yet."""
        return domain in self._known

    def __len__(self) -> int:
        return len(self._known)


class Hygiene:
    def __init__(
        self,
        levels: Levels,
        lists: Lists,
        *,
        by_tenant: Mapping[str, Levels] = MappingProxyType({}),
        by_sending_domain: Mapping[str, Levels] = MappingProxyType({}),
        verify: frozenset[str] = frozenset(),
    ) -> None:
        """`by_tenant` (SASL login) goes before `by_sending_domain` (the envelope sender's domain), that before `levels`.

        `verify`: recipient domains for which smtpd is told to verify the address itself.
        """
        self.no_hosts = NoHosts()
        self.strangers = Strangers()
        self._levels = levels
        self._lists = lists
        self._by_tenant = dict(by_tenant)
        self._by_sending_domain = dict(by_sending_domain)
        self._verify = verify
        self._plain: dict[str, bool] = {}
        """Domain as written -> whether no check finds anything about it, but for what the DNS said."""
        self.found = dict.fromkeys((*map(str, Check), VERIFY), 0)
        """Recipients by check, since the start, as `count` was told; those that are only said among them."""

    @property
    def wants_dns(self) -> bool:
        """Some mail is judged by whether its recipient's domain has a host."""
        all_levels = (self._levels, *self._by_tenant.values(), *self._by_sending_domain.values())
        return any(Level.OFF is not level for each in all_levels for level in (each.null_mx, each.no_host))

    def look(self, request: PolicyRequest, *, now: float) -> Found | None:
        """Say what is wrong with a recipient, None where nothing is or nothing is known. The null sender is let in.

        Nothing is counted, for asking is no answer.

        The first check that rejects counts; else the first that warns; else whether Postfix is to verify.
        """
        recipient = request.recipient
        if not request.sender or self._is_plain(recipient):
            return None
        levels = self._of(request)
        domain = domain_of(recipient)
        warned = None
        for check, level, text in self._faults(recipient, domain, levels, now):
            if level is Level.REJECT:
                return _found(check, level, domain, text)
            warned = warned or _found(check, level, domain, text)
        if domain in self._verify:
            return Found(None, RejectUnverified(), f"{domain!a} is among hygiene.verify_domains")
        return warned

    def count(self, found: Found) -> None:
        """A recipient was answered so."""
        self.found[found.check or VERIFY] += 1

    def _is_plain(self, recipient: str) -> bool:
        """Whether no check can find anything, at whatever level: nearly all are so. What is doubtful is not."""
        at = recipient.rfind("@")
        if at < 0:
            return False
        written = recipient[at + 1 :]
        plain = self._plain.get(written)
        if plain is None:
            if len(self._plain) >= _MOST_PLAIN:
                self._plain.clear()
            plain = self._plain[written] = self._is_plain_domain(written)
        local = recipient[:at]
        return (
            plain
            and 0 < at <= 64
            and local.isascii()
            and local.isprintable()
            and _role(recipient) not in self._lists.roles
            and domain_of(recipient) not in self.no_hosts
        )

    def _is_plain_domain(self, written: str) -> bool:
        domain = domain_of(f"@{written}")
        disposable, typo = _is_below(domain, self._lists.disposable), _right_for(domain, self._lists.typos)
        return not (disposable or typo or domain in self._verify) and is_possible(f"a@{written}")

    def _of(self, request: PolicyRequest) -> Levels:
        chosen = self._by_tenant.get(request.sasl_username) if self._by_tenant else None
        if chosen is None and self._by_sending_domain:
            chosen = self._by_sending_domain.get(domain_of(request.sender))
        return chosen or self._levels

    def _faults(self, recipient: str, domain: str, levels: Levels, now: float) -> list[tuple[Check, Level, str]]:
        lists = self._lists
        faults: list[tuple[Check, Level, str]] = []
        if levels.syntax is not Level.OFF and not is_possible(recipient):
            faults.append((Check.SYNTAX, levels.syntax, ""))
        if levels.typo is not Level.OFF and (right := _right_for(domain, lists.typos)):
            faults.append((Check.TYPO, levels.typo, right))
        if levels.null_mx is not Level.OFF or levels.no_host is not Level.OFF:
            why = self.no_hosts.of(domain, now=now)
            if why is NoHost.NULL_MX and levels.null_mx is not Level.OFF:
                faults.append((Check.NULL_MX, levels.null_mx, ""))
            elif why is NoHost.NOTHING and levels.no_host is not Level.OFF:
                faults.append((Check.NO_HOST, levels.no_host, ""))
        if levels.disposable is not Level.OFF and _is_below(domain, lists.disposable):
            faults.append((Check.DISPOSABLE, levels.disposable, ""))
        if levels.role is not Level.OFF and _role(recipient) in lists.roles:
            faults.append((Check.ROLE, levels.role, ""))
        return faults


def _found(check: Check, level: Level, domain: str, right: str) -> Found:
    said = SAID[check]
    text = said.text.format(right=right)
    why = f"hygiene.{check}: {text}: {domain[:100]!a}"
    action: Action = Reject(said.status, f"Recipient refused: {text}") if level is Level.REJECT else Info(text)
    return Found(check, action, why)


_LABEL: Final = re.compile(r"[^\x00-\x2c\x2e\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]{1,63}")
"""Letters, digits, hyphen, underscore (which occurs), and whatever is not ASCII: an IDN as it is written."""


def is_possible(recipient: str) -> bool:
    """Whether RFC 5321 section 4.5.3.1 and section 4.1.2 let a mailbox be called so, in internal form.

    What is doubtful is possible: which local parts a host has is its own affair, and quotes are gone by now. An address
    without a domain is this Postfix' own, also with an @ at its end.
    """
    local, at, domain = recipient.rpartition("@")
    if not at or not domain:
        return True
    if not local or len(local.encode(errors="replace")) > 64 or any(sign < " " or sign == "\x7f" for sign in local):
        return False
    if domain.startswith("[") and domain.endswith("]"):
        return len(domain) > 2
    domain = domain.removesuffix(".")
    return len(domain.encode(errors="replace")) <= 255 and all(map(_LABEL.fullmatch, domain.split(".")))


def _in_dns(domain: str) -> bool:
    """Whether "no such domain" means something: not of an address literal, nor of a name that might be written wrongly.

    How letters beyond ASCII are written in the DNS depends on the version of Unicode that somebody knows.
    """
    return domain.isascii() and not domain.startswith("[")


def _right_for(domain: str, typos: Mapping[str, str]) -> str:
    right = typos.get(domain, "")
    if not right and domain.endswith(".con"):  # no such top-level domain
        return f"{domain[:-1]}m"
    return right


def _is_below(domain: str, listed: frozenset[str]) -> bool:
    while domain:
        if domain in listed:
            return True
        domain = domain.partition(".")[2]
    return False


def _role(recipient: str) -> str:
    """The local part in lower case, without what stands behind a +."""
    local = recipient[: recipient.rfind("@")] if "@" in recipient else ""
    end = local.find("+")
    return (local if end < 0 else local[:end]).lower()

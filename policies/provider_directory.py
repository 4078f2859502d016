"""Which mailbox provider is behind an MX host or a well-known recipient domain.

Knows the host suffixes and domains that the rules' files declare. What a hosted domain's MX is, others learn.
"""

from collections.abc import Callable, Iterable
from typing import Final

from policies.rules import Provider

_MOST: Final = 10_000
"""Answers remembered; a busy host talks to some thousand MX hosts."""


def last_two_labels(domain: str) -> str:
    """An organizational domain without the Public Suffix List: right for example.com, wrong for example.co.uk."""
    return ".".join(domain.split(".")[-2:])


class ProviderDirectory:
    """Host name or recipient domain -> provider id."""

    def __init__(self, providers: Iterable[Provider], organizational: Callable[[str], str] = last_two_labels) -> None:
        self._organizational = organizational
        self._hosts: dict[str, str] = {}
        self._domains: dict[str, str] = {}
        providers = tuple(providers)
        self._names = frozenset(provider.name for provider in providers)
        for provider in providers:
            for host in provider.mx:
                self._hosts.setdefault(host, provider.name)
            for domain in provider.domains:
                self._domains.setdefault(domain, provider.name)
        self._known: dict[str, str | None] = {}
        self._answers: dict[str, str | None] = {}

    def of_host(self, host: str) -> str | None:
        """The provider that runs an MX or relay host; unknown: the host's organizational domain; no name: None."""
        if host not in self._answers:
            _make_room(self._answers)
            self._answers[host] = self.known_host(host) or self._domain_of(host.rstrip(".").lower())
        return self._answers[host]

    def known_host(self, host: str) -> str | None:
        """The provider whose file names the host, None where none does."""
        if host not in self._known:
            _make_room(self._known)
            self._known[host] = _longest(self._hosts, host.rstrip(".").lower())
        return self._known[host]

    def names(self) -> frozenset[str]:
        """Give the ids of all providers that rules are about."""
        return self._names

    def domains(self) -> dict[str, str]:
        """All well-known recipient domains with their providers; ".rr.com" stands for all below it."""
        return dict(self._domains)

    def of_domain(self, domain: str) -> str | None:
        """The provider of a well-known recipient domain; hosted domains are not known here."""
        return _longest(self._domains, domain.rstrip(".").lower())

    def _domain_of(self, host: str) -> str | None:
        if "." not in host or ":" in host or host.rpartition(".")[2].isdecimal():
            return None
        return self._organizational(host)


def _make_room(answers: dict[str, str | None]) -> None:
    if len(answers) >= _MOST:
        answers.clear()


def _longest(names: dict[str, str], name: str) -> str | None:
    """Look up a name itself, then what is above it (".google.com"), the longest suffix first."""
    found = names.get(name)
    at = name.find(".")
    while found is None and at >= 0:
        found = names.get(name[at:])
        at = name.find(".", at + 1)
    return found

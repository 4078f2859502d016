"""What the look at our own authentication needs to know of this site: domains, keys, addresses, ages.

Reads the outside process's store for when a key was first seen; what is asked stands in the feed's module.
"""

from collections.abc import Iterable, Mapping

from parsers.feeds import own_authentication
from parsers.feeds.asking import Poll
from parsers.feeds.own_authentication import Key as DkimKey
from parsers.feeds.own_authentication import Sender, Site
from policies.key import Key
from policies.sent_as import HOUR
from policies.subqueues import IP_TYPES
from sidecar import own_log, sent_mail
from sidecar.config import Config, ConfigError
from sidecar.database import Database, StoreError
from sidecar.outside_store import OutsideStore
from sidecar.rules import organizational_domain
from sidecar.scope import Scope
from sidecar.statements import BROKEN, SCHEMA

_OPEN = "SELECT key FROM subqueue WHERE opened_rule != ''"
_BITS = "dkim-key-bits."
"""Its text is the key's fingerprint: its history tells since when a key is there."""
IN_USE = 2 * 86_400.0
"""Seconds back in which our signer must have used a key for it to be looked at; core notes it every ten minutes."""


def poll(config: Config, scope: Scope, now: float, *, active: bool) -> Poll:
    """Look at the domains that send now, or at all others. Raises ConfigError."""
    ours = config.feeds.authentication
    site = Site(
        now,
        scope.addresses,
        dict(scope.helos),
        organizational_domain,
        first_seen(config),
        ours.any_address,
        ours.rotate_after_days * 86_400.0,
        ours.policy_base.rstrip("/"),
        ours.test_name,
    )
    configured = configured_keys(config)
    all_ours = own(config, scope, configured)
    waiting = set(_waiting(config, scope, all_ours))  # what is held sends nothing, and is to be seen repaired
    domains = [domain for domain in all_ours if (domain in scope.active or domain in waiting) == active]
    used = (DkimKey(domain, selector) for domain, selector, seen in scope.selectors if seen >= now - IN_USE)
    senders = tuple(_senders(domains, scope.signers, dict.fromkeys((*configured, *used))))
    ours_of_all = {organizational_domain(domain) for domain in (*all_ours, *config.outside.domains)}
    return own_authentication.poll(
        site,
        senders,
        inbound=() if active else all_ours,
        mail=[
            each.presented
            for each in sent_mail.lately(config, now=now)
            if (each.newest >= now - 2 * HOUR) == active and organizational_domain(each.presented.domain) in ours_of_all
        ],
        with_addresses=bool(domains) or not active or host_waits(config),
    )


def _waiting(config: Config, scope: Scope, ours: Iterable[str]) -> Iterable[str]:
    """Tell the domains of which mail is held because their authentication is broken."""
    broken = {(key.type, key.value) for key in _core_keys(config, BROKEN)}
    signers: dict[str, list[str]] = {}
    for domain, signer in scope.signers if broken else ():
        signers.setdefault(domain, []).append(signer)
    for domain in ours if broken else ():
        signing = signers.get(domain) or [domain, organizational_domain(domain)]
        if ("spf-domain", domain) in broken or any(("dkim-domain", signer) in broken for signer in signing):
            yield domain


def host_waits(config: Config) -> bool:
    """Whether all mail to some provider is held, perhaps for want of a name of our addresses."""
    return any(key.type in IP_TYPES for key in _core_keys(config, _OPEN))


def _core_keys(config: Config, query: str) -> list[Key]:
    """List the keys that core's store gives: those held for the sake of their authentication, those that are open."""
    if not config.core_database.exists():
        return []
    try:
        database = Database.open_read_only(config.core_database, SCHEMA)
        try:
            return [Key.read(row[0]) for row in database.rows(query)]
        finally:
            database.close()
    except StoreError as error:
        own_log.scope_incomplete(str(error))
        return []


def own(config: Config, scope: Scope, keys: Iterable[DkimKey]) -> list[str]:
    """Tell which of the domains that send are ours: forwarded mail keeps its sender, whose SPF is not our affair.

    Ours are those named in the configuration, and those below an organizational domain that our signer signs for or
    that is named there; where nothing of that is known, all.
    """
    known = {*config.outside.domains, *(key.domain for key in keys), *(domain for domain, *_ in scope.selectors)}
    parents = {organizational_domain(domain) for domain in known}
    domains = dict.fromkeys((*scope.active, *scope.domains))
    return [domain for domain in domains if not parents or organizational_domain(domain) in parents]


def configured_keys(config: Config) -> list[DkimKey]:
    """Raises ConfigError."""
    keys = []
    for name in config.outside.selectors:
        selector, found, domain = name.rstrip(".").lower().partition("._domainkey.")
        if not (selector and found and "." in domain):
            raise ConfigError(f"outside.selectors: found {name!r}, wanted where the key is: s1._domainkey.example.com")
        keys.append(DkimKey(domain, selector))
    return keys


def _senders(domains: Iterable[str], signers: Iterable[tuple[str, str]], keys: Iterable[DkimKey]) -> Iterable[Sender]:
    """A domain's keys are those of the domains that sign its mail; where none is known, its own and its parent's."""
    seen: dict[str, set[str]] = {}
    for domain, signer in signers:
        seen.setdefault(domain, set()).add(signer)
    by_domain: dict[str, list[DkimKey]] = {}
    for key in keys:
        by_domain.setdefault(key.domain, []).append(key)
    for domain in domains:
        signing = sorted(seen.get(domain) or {domain, organizational_domain(domain)})
        yield Sender(domain, tuple(key for signer in signing for key in by_domain.get(signer, ())))


def first_seen(config: Config) -> Mapping[tuple[DkimKey, str], float]:
    """When each key was first told; nothing where it is not known, for then a key is as old as this poll."""
    if not config.outside_database.exists():
        return {}
    try:
        store = OutsideStore.open_read_only(config.outside_database)
        try:
            told = store.keys_first_told()
        finally:
            store.close()
    except StoreError as error:
        own_log.scope_incomplete(str(error))
        return {}
    return {(DkimKey(domain, measure.removeprefix(_BITS)), text): at for (domain, measure, text), at in told.items()}

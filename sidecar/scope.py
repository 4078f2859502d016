"""Whom the feeds are asked about: the addresses that mail leaves from, and the domains that sign or send it.

Knows Postfix's parameters for the first, core's store for the second, and what the configuration adds.
"""

import ipaddress
import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sidecar import own_log, postfix, postfix_configuration
from sidecar.config import Config, ConfigError
from sidecar.database import Database, StoreError
from sidecar.postfix_configuration import Configuration
from sidecar.statements import SCHEMA

RECENTLY = 86_400.0
"""Seconds back in which a domain must have sent to be asked about."""
NOW = 3_600.0
"""Seconds back in which a domain must have sent to be one that sends now."""
DOMAINS_MAX = 5_000
"""The busiest; a feed may ask about fewer."""

_BOUND = ("smtp_bind_address", "smtp_bind_address6")
_DELIVER = frozenset({"smtp", "lmtp"})
_SENDERS = """
    SELECT sender_domain FROM attempt WHERE time >= ? AND sender_domain != ''
    GROUP BY sender_domain ORDER BY count(*) DESC, sender_domain LIMIT ?
"""

_SIGNERS = "SELECT name, value FROM learned WHERE kind = 'dkim-domain'"
_SELECTORS = "SELECT name, value, last_seen FROM learned WHERE kind = 'dkim-selector'"


class Scope(NamedTuple):
    addresses: tuple[str, ...]
    """Those of the configuration, then Postfix's public ones."""
    domains: tuple[str, ...]
    """Envelope senders' domains, busiest first, after those of the configuration."""
    active: tuple[str, ...] = ()
    """Those that sent in the last hour."""
    helos: tuple[tuple[str, str], ...] = ()
    """(address, name that Postfix greets with from there), where both are known."""
    signers: tuple[tuple[str, str], ...] = ()
    """(envelope domain, domain that its mail is signed by), as seen in the log."""
    selectors: tuple[tuple[str, str, float], ...] = ()
    """(signing domain, selector, last time) of keys that our own signer used, as seen in the log."""


def find(config: Config) -> Scope:
    """Look it all up; a part that cannot be read is said and left out, for the feeds go on with the rest."""
    found: set[str] = set()
    names: list[tuple[str, str]] = []
    try:
        here = not config.postfix.reach  # of another host's Postfix only core knows, and nothing of its addresses
        for instance in postfix.instances(Path(config.postfix.config_directory)) if here else ():
            configuration = postfix_configuration.read(instance)
            found |= set(bound(configuration))
            names += greeted(configuration)
    except postfix.PostfixError as error:
        own_log.scope_incomplete(str(error))
    addresses = tuple(dict.fromkeys((*_configured(config), *_public(found))))
    sent = _from_core(config)
    domains = tuple(dict.fromkeys((*config.outside.domains, *sent.lately)))
    return Scope(addresses, domains, sent.now, tuple(_helos(addresses, names)), sent.signers, sent.selectors)


def _configured(config: Config) -> Iterator[str]:
    """Raises ConfigError."""
    for address in config.outside.addresses:
        try:
            yield str(ipaddress.ip_address(address))
        except ValueError as error:
            raise ConfigError(f"outside.addresses: found {address!r}, wanted an address, as 192.0.2.7") from error


def bound(configuration: Configuration) -> Iterator[str]:
    """Tell the addresses that an instance's smtp clients leave from; the host's own where they are not bound."""
    clients = [service for service in configuration.services if service.command in _DELIVER]
    chosen = [configuration.effective(service, name) for service in clients for name in _BOUND]
    yield from filter(None, chosen)
    if any(not any(configuration.effective(service, name) for name in _BOUND) for service in clients):
        interfaces = configuration.expanded.get("inet_interfaces", "all").replace(",", " ").split()
        # An instance that listens on one address alone delivers from it too (postconf(5), smtp_bind_address).
        yield from interfaces if "all" not in interfaces else _of_this_host()


def greeted(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Tell (address, name) of each smtp client: "" as address where it leaves from any of the host's."""
    for service in configuration.services:
        if service.command in _DELIVER:
            name = configuration.effective(service, "smtp_helo_name")
            chosen = [configuration.effective(service, parameter) for parameter in _BOUND]
            yield from ((address, name) for address in filter(None, chosen)) if any(chosen) else (("", name),)


def _helos(addresses: Iterable[str], names: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """An address that no client is bound to greets as the clients do that are bound to none, where these agree."""
    own = {address.strip("[]"): name for address, name in names if address}
    unbound = {name for address, name in names if not address}
    for address in addresses:
        if name := own.get(address) or (next(iter(unbound)) if len(unbound) == 1 else ""):
            yield address, name


def _of_this_host() -> Iterator[str]:
    try:
        command = ["ip", "-json", "address", "show", "scope", "global"]
        shown = subprocess.run(command, capture_output=True, check=True, timeout=5).stdout
        links = json.loads(shown)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        own_log.scope_incomplete(f"addresses of this host: {error}; name them in outside.addresses")
        return
    for link in links:
        for address in link.get("addr_info", ()):
            yield str(address.get("local", ""))


def _public(addresses: Iterable[str]) -> tuple[str, ...]:
    """Leave out what no list can know: private addresses, and words as "loopback-only"."""
    found = set()
    for address in addresses:
        try:
            parsed = ipaddress.ip_address(address.strip("[]"))
        except ValueError:
            continue
        if parsed.is_global:
            found.add(parsed)
    return tuple(str(each) for each in sorted(found, key=lambda each: (each.version, int(each))))


class _Sent(NamedTuple):
    lately: tuple[str, ...] = ()
    now: tuple[str, ...] = ()
    signers: tuple[tuple[str, str], ...] = ()
    selectors: tuple[tuple[str, str, float], ...] = ()


def _from_core(config: Config) -> _Sent:
    """Tell what core's store knows of senders; nothing where there is none."""
    if not config.core_database.exists():
        return _Sent()
    now = time.time()
    try:
        database = Database.open_read_only(config.core_database, SCHEMA)
        try:
            return _Sent(
                tuple(domain for (domain,) in database.rows(_SENDERS, (now - RECENTLY, DOMAINS_MAX))),
                tuple(domain for (domain,) in database.rows(_SENDERS, (now - NOW, DOMAINS_MAX))),
                tuple((name, value) for name, value in database.rows(_SIGNERS, ())),
                tuple((name, value, seen) for name, value, seen in database.rows(_SELECTORS, ())),
            )
        finally:
            database.close()
    except StoreError as error:
        own_log.scope_incomplete(str(error))
        return _Sent()

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
DOMAINS_MAX = 5_000
"""The busiest; a feed may ask about fewer."""

_BOUND = ("smtp_bind_address", "smtp_bind_address6")
_DELIVER = frozenset({"smtp", "lmtp"})
_SENDERS = """
    SELECT sender_domain FROM attempt WHERE time >= ? AND sender_domain != ''
    GROUP BY sender_domain ORDER BY count(*) DESC, sender_domain LIMIT ?
"""


class Scope(NamedTuple):
    addresses: tuple[str, ...]
    """Those of the configuration, then Postfix's public ones."""
    domains: tuple[str, ...]
    """Envelope senders' domains, busiest first, after those of the configuration."""


def find(config: Config) -> Scope:
    """Look it all up; a part that cannot be read is said and left out, for the feeds go on with the rest."""
    found: set[str] = set()
    try:
        for instance in postfix.instances(Path(config.postfix.config_directory)):
            found |= set(bound(postfix_configuration.read(instance)))
    except postfix.PostfixError as error:
        own_log.scope_incomplete(str(error))
    addresses = dict.fromkeys((*_configured(config), *_public(found)))
    return Scope(tuple(addresses), tuple(dict.fromkeys((*config.outside.domains, *_senders(config)))))


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


def _senders(config: Config) -> list[str]:
    if not config.core_database.exists():
        return []
    try:
        database = Database.open_read_only(config.core_database, SCHEMA)
        try:
            return [domain for (domain,) in database.rows(_SENDERS, (time.time() - RECENTLY, DOMAINS_MAX))]
        finally:
            database.close()
    except StoreError as error:
        own_log.scope_incomplete(str(error))
        return []

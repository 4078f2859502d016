"""Which DNS lists this site asks: those that come with the package and the admin's own, with their keys.

Reads the files; what a list's answers mean stands in parsers/feeds/dnsbl.
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from parsers.feeds import dnsbl
from parsers.feeds.asking import Poll
from parsers.feeds.dnsbl import Asked, BlockList
from sidecar.config import Config, ConfigError
from sidecar.rules import organizational_domain
from sidecar.scope import Scope
from sidecar.toml_table import read_table

CADENCES: Mapping[str, int] = {"dnsbl-15min": 15, "dnsbl-1h": 60, "dnsbl-4h": 240}
"""Name of the feed -> minutes; each list says which of them is its own."""

_PACKAGED = Path("dnsbl.toml")


def read(text: str, *, file: Path) -> list[BlockList]:
    """Read a file of lists. Raises ConfigError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    gone = packaged_gone()
    lists = [_list(dict(row), file=file, number=number) for number, row in enumerate(table.get("list", ()), 1)]
    for spec in lists:
        for zone, why in gone.items():
            if f".{spec.zone}".endswith(f".{zone}"):
                raise ConfigError(f"{file}: list {spec.id}: {spec.zone}: {why}; leave it out")
    return lists


def _list(row: dict[str, Any], *, file: Path, number: int) -> BlockList:
    prefix = f"list {row.get('id') or number}: "
    spec = read_table(BlockList, row, file=file, prefix=prefix)
    if spec.every not in CADENCES.values():
        wanted = ", ".join(map(str, CADENCES.values()))
        raise ConfigError(f"{file}: {prefix}every: found {spec.every}, wanted one of {wanted} minutes")
    if not (spec.zone or (spec.keyed and spec.key)):
        raise ConfigError(f"{file}: {prefix}zone: missing; wanted zone, or keyed and key")
    for name in ("error_networks", "allow_networks", "neutral_networks"):
        for network in getattr(spec, name):
            _checked_network(network, file=file, key=prefix + name)
    for bit in (*spec.bits, *spec.milder_bits):
        if not bit.isdecimal():
            raise ConfigError(f"{file}: {prefix}bits: found {bit!r}, wanted a number, as 64")
    return spec


def _checked_network(network: str, *, file: Path, key: str) -> None:
    try:
        ipaddress.IPv4Network(network)
    except ValueError as error:
        raise ConfigError(f"{file}: {key}: found {network!r}, wanted a network, as 127.0.2.0/24") from error


@cache
def _packaged_text() -> str:
    return (resources.files("parsers") / "feeds" / _PACKAGED).read_text(encoding="utf-8")


@cache
def packaged_gone() -> dict[str, str]:
    """Zones that do not exist any more, or lie, and why."""
    return dict(tomllib.loads(_packaged_text())["gone"])


@cache
def packaged() -> tuple[BlockList, ...]:
    return tuple(read(_packaged_text(), file=_PACKAGED))


def known(config: Config) -> list[BlockList]:
    """Give all lists, ours and the admin's, asked or not. Raises ConfigError."""
    return [*packaged(), *_own(config.feeds.blocklists.lists)]


def in_force(config: Config) -> list[Asked]:
    """Tell the lists that are asked here, and where. Raises ConfigError."""
    ours = config.feeds.blocklists
    lists = known(config)
    ids_known = {spec.id for spec in lists}
    for setting, ids in (("without", ours.without), ("also", ours.also)):
        for name in ids:
            if name not in ids_known:
                there = ", ".join(sorted(ids_known))
                raise ConfigError(f"feeds.blocklists.{setting}: no list {name!r}; known: {there}")
    keys = {"spamhaus": _secret(ours.spamhaus_key), "abusix": _secret(ours.abusix_key)}
    wanted = [spec for spec in lists if (spec.enabled or spec.id in ours.also) and spec.id not in ours.without]
    return [asked for spec in wanted if (asked := dnsbl.zone_of(spec, keys)) is not None]


def _own(name: str) -> list[BlockList]:
    if not name:
        return []
    path = Path(name)
    try:
        return read(path.read_text(encoding="utf-8"), file=path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"feeds.blocklists.lists: {path}: cannot be read: {error}") from error


def _secret(name: str) -> str:
    if not name:
        return ""
    try:
        return Path(name).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: the key cannot be read: {error}") from error


def poll(config: Config, scope: Scope, every: int, *, feed: str) -> Poll:
    """Ask all lists of one cadence (minutes). Raises ConfigError."""
    lists = [asked for asked in in_force(config) if asked.list.every == every]
    registrable = {domain: organizational_domain(domain) for domain in scope.domains}
    return dnsbl.poll(lists, (*scope.addresses, *scope.domains), registrable, feed=feed)

"""Who may see what: everybody on this host where the page listens on loopback, else who has a password or comes from a
trusted proxy. Knows requests by their address and headers alone; `gate` stands at the door.
"""

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sidecar.config import Config, ConfigError
from sidecar.page import passwords
from sidecar.web_address import address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

OPEN_PATHS = frozenset({"/healthz"})
"""Tell nothing that a connection would not."""
_METRICS = "/metrics"


class Rules(NamedTuple):
    """Who is let in, read from the configuration."""

    password_file: Path | None
    proxies: tuple[Network, ...]
    user_header: str
    scrapers: tuple[Network, ...]
    hosts: frozenset[str]
    """Names in Host under which the page may be asked for without a password: a foreign page may have its name point to
    127.0.0.1, so that a browser here would show it ours."""

    @property
    def asks(self) -> bool:
        """Whether anybody is asked who they are."""
        return self.password_file is not None or bool(self.proxies)


class Verdict(NamedTuple):
    allowed: bool
    user: str = ""
    credentials: tuple[str, str] | None = None
    """Name and password that are still to be tried."""
    why: str = ""


def rules(config: Config) -> Rules:
    """Raises ConfigError: also where anybody could look in."""
    web = config.web
    host, _ = address(web.listen)
    found = Rules(
        Path(web.password_file) if web.password_file else None,
        _networks("web.proxies", web.proxies),
        web.user_header,
        _networks("web.scrapers", web.scrapers),
        frozenset({"localhost", "127.0.0.1", "[::1]", host, urlsplit(config.alerts.page).hostname or "localhost"}),
    )
    if found.password_file is not None:
        passwords.read(found.password_file)
    if not found.asks and not ipaddress.ip_address(host).is_loopback:
        raise ConfigError(
            f"web.listen: {web.listen} can be reached from other hosts, and nobody would be asked who they are; wanted "
            "web.password_file (`sidecar password NAME` makes a line of it), or web.proxies with the addresses of a "
            "reverse proxy that names the user, or an address on loopback, as 127.0.0.1:8025"
        )
    return found


def _networks(key: str, named: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(each) for each in named)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}; wanted addresses or networks, as 192.0.2.7 or 2001:db8::/64") from error


def judge(rules: Rules, scope: Mapping[str, Any]) -> Verdict:
    """Decide as far as that is possible without trying a password."""
    client = ipaddress.ip_address((scope["client"] or ("::",))[0].partition("%")[0])
    path = scope["path"]
    if path in OPEN_PATHS or (path == _METRICS and (not rules.asks or _within(client, rules.scrapers))):
        return Verdict(allowed=True)
    if _within(client, rules.proxies):
        user = header(scope, rules.user_header)
        if user:
            return Verdict(allowed=True, user=user)
    if rules.password_file is not None:
        return Verdict(allowed=False, credentials=_basic(header(scope, "authorization")), why="password")
    if rules.asks:
        return Verdict(allowed=False, why=f"proxy: {client} is no trusted proxy, or named no user")
    host = _host(header(scope, "host"))
    if host in rules.hosts:
        return Verdict(allowed=True)
    return Verdict(allowed=False, why=f"host: {host!r} is not a name of this page; see alerts.page")


def _within(client: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: tuple[Network, ...]) -> bool:
    mapped = getattr(client, "ipv4_mapped", None)
    return any(client in network or (mapped is not None and mapped in network) for network in networks)


def _host(said: str) -> str:
    """Without its port."""
    name, colon, port = said.lower().rpartition(":")
    return name if colon and port.isdecimal() and (not name.count(":") or name.endswith("]")) else said.lower()


def _basic(said: str) -> tuple[str, str] | None:
    """RFC 7617."""
    scheme, _, encoded = said.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon else None


def header(scope: Mapping[str, Any], name: str) -> str:
    """One header of a request; "" where it has none or more than one."""
    wanted = name.lower().encode()
    found = [value for key, value in scope["headers"] if key == wanted]
    return found[0].decode("latin-1") if len(found) == 1 else ""

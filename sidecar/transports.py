"""The transports that the configuration wants Postfix to have: caps on connections, addresses, HELO names, limits.

Says how each is written into master.cf and main.cf, and where an entry that is there differs from it.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from policies.routing import POOL
from sidecar.config import Config, Route, TransportConfig
from sidecar.postfix_configuration import Configuration

LANES = 4
"""Transports for keys that ramp up, each with few connections."""
LANE_PROCESSES = 2

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_OPTION = re.compile(r"[A-Za-z0-9_-]+=[^\s{}]*")
_HOST = re.compile(r"[A-Za-z0-9$][A-Za-z0-9.$_-]{0,254}")
_RESERVED = frozenset({"smtp", "relay", "local", "virtual", "lmtp", "error", "retry", "discard", "bounce", "defer"})


class Transport(NamedTuple):
    """One entry of master.cf, of smtp(8)."""

    name: str
    maxproc: int
    """Cap on connections, to whatever domains."""
    options: tuple[str, ...]
    """`-o` NAME=VALUE, without that of the log's tag."""
    limits: Mapping[str, str]
    """Parameters of main.cf: of the queue manager, so that they cannot be options."""

    def line(self, site: Configuration) -> str:
        """Write the entry as `postconf -M` prints it."""
        chroot = next((one.chroot for one in site.services if (one.name, one.type) == ("smtp", "unix")), "-")
        options = (f"syslog_name={site.instance.syslog_name}/{self.name}", *self.options)
        return f"{self.name} unix - - {chroot} - {self.maxproc} smtp" + "".join(f" -o {one}" for one in options)


class Difference(NamedTuple):
    """One thing about a transport that Postfix has otherwise."""

    key: str
    """out-google/unix/maxproc, out-google/unix/smtp_bind_address, or a parameter of main.cf."""
    found: str
    """"" where it says nothing."""
    wanted: str
    """"" where it should say nothing."""


def wanted(config: Config, *, lanes: int = 0, refused: list[str] | None = None) -> dict[str, Transport]:
    """Gather those of [[transport]], of routes and the lanes, by name; to `refused` goes what cannot be rendered."""
    problems = [] if refused is None else refused
    found: dict[str, Transport] = {}
    for each in config.transport:
        if problem := _problem(each.name, each.maxproc, each.options) or _address_problem(each):
            problems.append(f"[[transport]] {each.name}: {problem}")
        elif each.name in found:
            problems.append(f"[[transport]] {each.name}: there are two of that name")
        else:
            found[each.name] = _declared(each)
    for route in config.route:
        if route.transport.startswith(POOL):
            continue
        if problem := _route_problem(route, found, {each.name for each in config.transport}):
            problems.append(f"[[route]] {route.name or route.provider or route.when[:60]}: {problem}")
        else:
            found.setdefault(route.transport, Transport(route.transport, route.maxproc, route.options, {}))
    for name in (f"lane-{i:02}" for i in range(1, lanes + 1)):
        found.setdefault(name, Transport(name, LANE_PROCESSES, (), {}))
    return found


def differences(transport: Transport, site: Configuration) -> Iterator[Difference]:
    """Compare an entry that is there with what is wanted of it, thing by thing; other options of the admin's are theirs."""
    service = site.service(transport.name, "unix")
    if service is None:
        return
    if service.maxproc != str(transport.maxproc):
        yield Difference(f"{service.id}/maxproc", service.maxproc, str(transport.maxproc))
    for name, _, value in (option.partition("=") for option in transport.options):
        if service.overrides.get(name) != value:
            yield Difference(f"{service.id}/{name}", service.overrides.get(name, ""), value)
    for name in _OWN_OPTIONS - {option.partition("=")[0] for option in transport.options}:
        if name in service.overrides:
            yield Difference(f"{service.id}/{name}", service.overrides[name], "")
    for name, value in transport.limits.items():
        if site.values.get(name) != value:
            yield Difference(name, site.values.get(name, ""), value)


_OWN_OPTIONS = frozenset({"smtp_bind_address", "smtp_bind_address6", "smtp_helo_name"})
"""Where mail comes from and under which name: with these, saying nothing has a meaning as well."""


def _declared(each: TransportConfig) -> Transport:
    options = {
        "smtp_bind_address": each.bind_address,
        "smtp_bind_address6": each.bind_address6,
        "smtp_helo_name": each.helo,
    }
    limits = {
        "concurrency_limit": str(each.concurrency or ""),
        "recipient_limit": str(each.recipients or ""),
        "rate_delay": f"{each.rate_delay_seconds}s" if each.rate_delay_seconds else "",
    }
    return Transport(
        each.name,
        each.maxproc,
        (*(f"{name}={value}" for name, value in options.items() if value), *each.options),
        {f"{each.name}_destination_{name}": value for name, value in limits.items() if value},
    )


def _problem(name: str, maxproc: int, options: tuple[str, ...]) -> str:
    """What is wrong with an entry, "" for nothing."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        return f"transport = {name!r}: wanted a name of your own for an entry of master.cf, as out-google"
    if maxproc < 1:
        return f"maxproc = {maxproc}: wanted 1 or more connections"
    for option in options:
        if not _OPTION.fullmatch(option):
            return f"options: {option!r}: wanted NAME=VALUE without blanks, as smtp_bind_address=192.0.2.7"
    return ""


def _address_problem(each: TransportConfig) -> str:
    for key, text, version in (("bind_address", each.bind_address, 4), ("bind_address6", each.bind_address6, 6)):
        try:
            if text and ipaddress.ip_address(text).version != version:
                return f"{key} = {text!r}: wanted an IPv{version} address"
        except ValueError:
            return f"{key} = {text!r}: wanted an IPv{version} address of this host"
    if each.helo and not _HOST.fullmatch(each.helo):
        return f"helo = {each.helo!r}: wanted a host name, as out.example.com"
    return ""


def _route_problem(route: Route, found: Mapping[str, Transport], declared: set[str]) -> str:
    if problem := _problem(route.transport, route.maxproc, route.options):
        return problem
    if route.transport in declared:
        plain = Route(route.transport)
        said = (route.maxproc, route.options) != (plain.maxproc, plain.options)
        return f"transport = {route.transport!r}: has a [[transport]], which alone says its settings" if said else ""
    known = found.get(route.transport)
    if known is not None and (known.maxproc, known.options) != (route.maxproc, route.options):
        return f"transport = {route.transport!r}: another route gives it other settings"
    return ""

"""Questions about names and addresses of our own: what is there, what is not, and what nobody could say.

Knows which answers are answers; what they mean for mail is for those who ask.
"""

import ipaddress
from collections.abc import Iterable

from parsers.feeds.asking import Asked, DnsAnswer, DnsAsk
from parsers.feeds.reversed_name import reversed_address
from parsers.spf_check import is_name

HOSTS_MAX = 10
"""Hosts of one name that are looked at."""


def look_up(name: str, kind: str, zone: str) -> Asked[DnsAnswer]:
    """Ask for one name; one that cannot be does not exist."""
    if not is_name(name):
        return DnsAnswer("NXDOMAIN")
    (answer,) = yield (DnsAsk(name, kind, zone),)
    assert isinstance(answer, DnsAnswer)
    return answer


def unanswered(answer: DnsAnswer, name: str) -> str:
    """Why this is no answer; "" where it is one, also where the name does not exist."""
    return "" if answer.rcode in {"NOERROR", "NXDOMAIN"} else f"{name}: {answer.rcode}"


def hosts_of(answer: DnsAnswer) -> tuple[str, ...]:
    """Names of an MX answer, best first; the null MX (RFC 7505) names none."""
    pairs = sorted((int(number), host.rstrip(".").lower()) for number, host in map(str.split, answer.records))
    return tuple(dict.fromkeys(host for _, host in pairs if host))


def addresses_of(names: Iterable[str], zone: str) -> Asked[tuple[set[str], str]]:
    """All addresses of some hosts, and why there may be more: "" where each look-up was answered."""
    found: set[str] = set()
    why = ""
    for name in list(names)[:HOSTS_MAX]:
        for kind in ("A", "AAAA"):
            answer = yield from look_up(name, kind, zone)
            why = why or unanswered(answer, name)
            found |= {_normal(record) for record in answer.records}
    return found, why


def points_back(address: str) -> Asked[tuple[tuple[str, ...], bool | None, str]]:
    """Look whether an address has a name that leads back to it: the names, the verdict (None: nobody knows), why."""
    zone = "in-addr.arpa" if ipaddress.ip_address(address).version == 4 else "ip6.arpa"
    answer = yield from look_up(f"{reversed_address(address)}.{zone}", "PTR", address)
    if why := unanswered(answer, f"PTR of {address}"):
        return (), None, why
    names = tuple(record.rstrip(".").lower() for record in answer.records)
    if not names:
        return (), False, f"{address} has no PTR, wanted the name of this host"
    found, why = yield from addresses_of(names, address)
    if _normal(address) in found:
        return names, True, ", ".join(names)
    if why:
        return names, None, why
    return names, False, f"{', '.join(names[:3])} does not lead back, wanted an A or AAAA with {address}"


def _normal(record: str) -> str:
    try:
        return str(ipaddress.ip_address(record))
    except ValueError:
        return record

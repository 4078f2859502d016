"""Whom a reply names: the domain, address or network that the other side holds responsible.

Knows how mail servers write such names ("your DKIM domain [example.com 35]", "?ip=192.0.2.1") and gives them in one form.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from policies.verdict import Identity, IdentityType

_DOMAIN: Final = r"([a-z0-9_](?:[a-z0-9_-]{0,62}\.){1,8}[a-z][a-z0-9-]{0,62})"
_IPV4: Final = r"(?:\d{1,3}\.){3}\d{1,3}"
_IPV6: Final = r"[0-9a-f]{0,4}:[0-9a-f:]{0,40}:[0-9a-f:.]{0,40}"
_IP: Final = rf"({_IPV4}|{_IPV6})"
_NETWORK: Final = rf"((?:{_IPV4}|{_IPV6})/\d{{1,3}})"


class Way(NamedTuple):
    """How a name may be written."""

    mark: str
    """In every text that has it; looked for first, for most texts name nobody."""
    pattern: re.Pattern[str]
    """Its one group is the name."""


def _ways(*ways: tuple[str, str]) -> tuple[Way, ...]:
    return tuple(Way(mark, re.compile(source)) for mark, source in ways)


_BEFORE_ADDRESS: Final = r"(?:from|address|host|client|server|messages|ip|<|\()"

WAYS: Final = {
    IdentityType.DKIM_DOMAIN: _ways(
        ("dkim", rf"dkim[ -]domain:? ?[\[(<]? ?{_DOMAIN}"),
        ("d=", rf"\bd={_DOMAIN}"),
    ),
    IdentityType.SPF_DOMAIN: _ways(
        ("spf", rf"spf[ -]domain:? ?[\[(<]? ?{_DOMAIN}"),
        ("spf", rf"spf ?[\[(<] ?{_DOMAIN}"),
        ("domain", rf"mail ?from\)? domain:? ?[\[(<]? ?{_DOMAIN}"),
        ("with ip", rf"spf {_DOMAIN} with ip"),
        ("/query/domain/", rf"/query/domain/{_DOMAIN}"),
        ("sender", rf"sender(?: address)?:? ?[\[(<]?[^ @<>\[\]]{{0,80}}@{_DOMAIN}"),
        ("sender", rf"[\[(<][^ @<>\[\]]{{0,80}}@{_DOMAIN}[\])>][:.]{{0,3}} ?(?:domain of )?sender"),
        ("openspf.", rf"openspf\.[a-z]{{3}}/why\?[^ ]{{0,80}}?\bid=(?:[^ ;&]{{0,80}}?(?:@|%40))?{_DOMAIN}"),
        (
            "send",
            rf"to send (?:(?:e?-?mail|messages?) )?(?:from|for|as) (?:domain )?[\[(<]?(?:[^ @<>\[\]]{{0,80}}@)?{_DOMAIN}",
        ),
        ("spf", rf"spf[ :][^\[\]<>]{{0,60}}?\b(?:for|of|from) (?:domain )?[\[(<]?(?:[^ @<>\[\]]{{0,80}}@)?{_DOMAIN}"),
        ("verification failed for", rf"verification failed for <[^ @<>]{{0,80}}@{_DOMAIN}"),
    ),
    IdentityType.FROM_DOMAIN: _ways(
        ("sending domain", rf"sending domain:? ?[\[(<]? ?{_DOMAIN}"),
        ("is not accepted", rf"mail from {_DOMAIN} is not accepted"),
        ("s dmarc", rf" {_DOMAIN}.?s dmarc"),
        ("dmarc policy", rf"dmarc policy (?:of|for) (?:domain )?[\[(<]? ?{_DOMAIN}"),
        ("dmarc", rf"dmarc[^\[\]<>]{{0,40}}? (?:for|of) (?:domain )?[\[(<]?{_DOMAIN}"),
        ("anti-spoofing", rf"anti-spoofing policy:? [^ @<>]{{0,80}}@{_DOMAIN}"),
        ("from", rf"from:? ?[\[(<]? ?(?:[^ @<>\[\]]{{0,80}}@)?{_DOMAIN}"),
    ),
    IdentityType.URL_DOMAIN: _ways(
        ("url domain", rf"url domains?:? ?[\[(<] ?{_DOMAIN}"),
        ("/query/domain/", rf"/query/domain/{_DOMAIN}"),
        ("url", rf"url in (?:this|the|your) (?:e?-?mail|message):? [\[(<]?(?:https?://)?{_DOMAIN}"),
        ("url", rf"url ?[\[(<] ?(?:https?://)?{_DOMAIN}"),
    ),
    IdentityType.IP: _ways(
        ("=", rf"(?:\bip|\bv|\bip_address|\bclient)=[\[<]?{_IP}(?![\d.:])"),
        ("lookup.shtml?", rf"lookup\.shtml\?{_IP}(?![\d.:])"),
        ("ip/", rf"/(?:query/)?ip/{_IP}(?![\d.:])"),
        ("[", rf"\[(?:ipv6:)?{_IP}(?: \d{{1,6}})?\]"),
        ("", rf"{_BEFORE_ADDRESS}[ :]{{0,2}}{_IP}(?![\d.:]*\w)"),
        ("", rf"(?:^| ){_IP}(?=[ ,;:.)>\]]|$)(?!\.\d)"),
    ),
    IdentityType.NETBLOCK: _ways(
        ("/", rf"(?:^|[ \[(]){_NETWORK}"),
        ("netblock", rf"netblock ?[\[(]? ?{_IP}"),
        ("[", rf"\[{_IP}\]"),
    ),
    IdentityType.MESSAGE_ID: _ways(("message-id", r"message-id:? ?<([^<> ]{3,200})>")),
}
"""Each type of identity, and the ways in which it is written, the surest first; for text in small letters."""


_NUMBERS: Final = re.compile(r"\d+\.\d+\.\d[\d.]+")


def _only_address(text: str) -> str | None:
    """The IPv4 address of a text that has just one, "" for a text that has none; None: several or IPv6, so weigh them."""
    if "::" in text or text.count(":") > 5:
        return None
    found = {number.rstrip(".") for number in _NUMBERS.findall(text)} if text.count(".") > 2 else ()
    if len(found) > 1:
        return None
    return _ipv4(*found) if found else ""


def find_identity(kind: IdentityType, text: str, pattern: re.Pattern[str] | None = None) -> Identity | None:
    """The identity that a folded text in small letters names; a rule's own pattern is asked alone.

    None where it names none. Not the normalised text: a domain called email.example.com must stay what it is.
    """
    if kind is IdentityType.IP and pattern is None and (address := _only_address(text)) is not None:
        return Identity(kind, address) if address else None
    read = _READERS[kind]
    for way in (Way("", pattern),) if pattern else WAYS[kind]:
        for found in way.pattern.finditer(text) if way.mark in text else ():
            value = read(found[1])
            if value:
                return Identity(kind, value)
    return None


def _domain(value: str) -> str:
    return value.strip(".")


_EXACT_IPV4: Final = re.compile(r"(?!127\.)(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}", re.ASCII)


def _ipv4(value: str) -> str:
    """Nothing for what is none, and for 127.0.0.x, which is a blocklist's answer code."""
    return value if _EXACT_IPV4.fullmatch(value) else ""


def _address(value: str) -> str:
    """In canonical form; "" for what is none."""
    if ":" not in value.strip(":"):
        return _ipv4(value.strip(".:"))
    try:
        return str(ipaddress.IPv6Address(value.rstrip(".") if "::" in value else value.strip(".:")))
    except ValueError:
        return ""


def _network(value: str) -> str:
    """A range as the other side writes it; a bare address stays one, since the range's size is not said."""
    if "/" not in value:
        return _address(value)
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        return ""


_READERS: Final[dict[IdentityType, Callable[[str], str]]] = {
    IdentityType.DKIM_DOMAIN: _domain,
    IdentityType.SPF_DOMAIN: _domain,
    IdentityType.FROM_DOMAIN: _domain,
    IdentityType.URL_DOMAIN: _domain,
    IdentityType.IP: _address,
    IdentityType.NETBLOCK: _network,
    IdentityType.MESSAGE_ID: str.strip,
}

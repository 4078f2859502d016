"""Whom a reply names: the domain, address or network that the other side holds responsible.

Knows how mail servers write such names ("your DKIM domain [example.com 35]", "?ip=192.0.2.1") and gives them in one form.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Final

from policies.verdict import Identity, IdentityType

_DOMAIN: Final = r"([a-z0-9_](?:[a-z0-9_-]{0,62}\.){1,8}[a-z][a-z0-9-]{0,62})"
_IPV4: Final = r"(?:\d{1,3}\.){3}\d{1,3}"
_IPV6: Final = r"[0-9a-f]{0,4}:[0-9a-f:]{0,40}:[0-9a-f:.]{0,40}"
_IP: Final = rf"({_IPV4}|{_IPV6})"
_NETWORK: Final = rf"((?:{_IPV4}|{_IPV6})/\d{{1,3}})"


def _patterns(*sources: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(source) for source in sources)


WAYS: Final = {
    IdentityType.DKIM_DOMAIN: _patterns(
        rf"dkim[ -]domain:? ?[\[(<]? ?{_DOMAIN}",
        rf"dkim(?:-signature)?[^=]{{0,20}}\bd ?= ?{_DOMAIN}",
        rf"\bd={_DOMAIN}",
    ),
    IdentityType.SPF_DOMAIN: _patterns(
        rf"spf[ -]domain:? ?[\[(<]? ?{_DOMAIN}",
        rf"spf ?[\[(<] ?{_DOMAIN}",
        rf"mail ?from domain:? ?[\[(<]? ?{_DOMAIN}",
        rf"spf {_DOMAIN} with ip",
        rf"(?:sender(?: address)?|mail ?from):? ?[\[(<] ?[^ @<>\[\]]{{0,80}}@{_DOMAIN}",
        rf"/query/domain/{_DOMAIN}",
        rf"[\[(<][^ @<>\[\]]{{0,80}}@{_DOMAIN}[\])>]",
    ),
    IdentityType.FROM_DOMAIN: _patterns(
        rf"sending domain:? ?[\[(<]? ?{_DOMAIN}",
        rf"mail from {_DOMAIN} is not accepted",
        rf"(?:due to|policy of|for) {_DOMAIN}.?s dmarc",
        rf"dmarc policy (?:of|for) (?:domain )?[\[(<]? ?{_DOMAIN}",
        rf"(?:header )?from:? ?[\[(<]? ?(?:[^ @<>\[\]]{{0,80}}@)?{_DOMAIN}",
    ),
    IdentityType.URL_DOMAIN: _patterns(
        rf"url domains?:? ?[\[(<] ?{_DOMAIN}",
        rf"/query/domain/{_DOMAIN}",
        rf"url ?[\[(<] ?(?:https?://)?{_DOMAIN}",
    ),
    IdentityType.IP: _patterns(
        rf"(?:\bip|\bv|\bip_address|\bclient|lookup\.shtml)[=?:][\[<]?{_IP}(?![\d.:])",
        rf"/(?:query/)?ip/{_IP}(?![\d.:])",
        rf"\[(?:ipv6:)?{_IP}(?: \d{{1,6}})?\]",
        rf"(?:from|address|host|client|server|messages|ip|<|\() {{0,1}}{_IP}(?![\d.:]*\w)",
        rf"(?:^| ){_IP}(?=[ ,;:.)>\]]|$)(?!\.\d)",
    ),
    IdentityType.NETBLOCK: _patterns(
        rf"(?:^|[ \[(]){_NETWORK}",
        rf"netblock ?[\[(]? ?{_IP}",
        rf"\[{_IP}\]",
    ),
    IdentityType.MESSAGE_ID: _patterns(r"message-id:? ?<([^<> ]{3,200})>"),
}
"""Each type of identity, and the ways in which it is written, the surest first; for text in small letters."""


_SOME_IPV4: Final = re.compile(r"\d+\.\d+\.\d+\.\d+")


def _only_address(text: str) -> str:
    """The IPv4 address of a text that has just one, "" else: most have, and then nothing need be weighed."""
    found = set(_SOME_IPV4.findall(text))
    return _address(found.pop()) if len(found) == 1 and "::" not in text else ""


def find_identity(kind: IdentityType, text: str, pattern: re.Pattern[str] | None = None) -> Identity | None:
    """The identity that a folded text in small letters names; a rule's own pattern is asked alone.

    None where it names none. Not the normalised text: a domain called email.example.com must stay what it is.
    """
    if kind is IdentityType.IP and pattern is None and (address := _only_address(text)):
        return Identity(kind, address)
    read = _READERS[kind]
    for way in (pattern,) if pattern else WAYS[kind]:
        for found in way.finditer(text):
            value = read(found[1])
            if value:
                return Identity(kind, value)
    return None


def _domain(value: str) -> str:
    return value.strip(".")


def _address(value: str) -> str:
    """In canonical form; "" for what is none, and for 127.0.0.x, which is a blocklist's answer code."""
    try:
        address = ipaddress.ip_address(value.rstrip(".") if "::" in value else value.strip(".:"))
    except ValueError:
        return ""
    return "" if address.is_loopback else str(address)


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

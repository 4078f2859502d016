"""The names under which an address or a domain is asked for in a DNS list (RFC 5782 section 2)."""

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=65_536)
def reversed_address(address: str) -> str:
    """Give an address as it stands in front of a zone: octets, or 32 nibbles, backwards; mapped IPv4 as IPv4.

    Raises ValueError for what is no address.
    """
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    pointer = (mapped or parsed).reverse_pointer
    return pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")

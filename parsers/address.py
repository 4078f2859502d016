"""Mail addresses (RFC 5321 section 4.1.2), as far as their domain goes."""

from functools import lru_cache


def domain_of(address: str) -> str:
    """Give the lower-case domain of an address, without a trailing dot; "" where it has none.

    The domain stands after the last "@": a quoted local part may hold others.
    """
    _, at, domain = address.rpartition("@")
    return _normal(domain) if at else ""


@lru_cache(maxsize=8_192)
def _normal(domain: str) -> str:
    return domain.lower().rstrip(".")

"""Mail addresses (RFC 5321 section 4.1.2), as far as their domain goes."""

from typing import Final

_MOST: Final = 8_192
_NORMAL: Final[dict[str, str]] = {}
"""As written -> lower case, without a trailing dot."""


def domain_of(address: str) -> str:
    """Give the lower-case domain of an address, without a trailing dot; "" where it has none.

    The domain stands after the last "@": a quoted local part may hold others.
    """
    at = address.rfind("@")
    if at < 0:
        return ""
    domain = address[at + 1 :]
    known = _NORMAL.get(domain)
    if known is None:
        if len(_NORMAL) >= _MOST:
            _NORMAL.clear()
        known = _NORMAL[domain] = domain.lower().rstrip(".")
    return known

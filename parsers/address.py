"""Mail addresses (RFC 5321 section 4.1.2), as far as their domain goes."""


def domain_of(address: str) -> str:
    """Give the lower-case domain of an address, without a trailing dot; "" where it has none.

    The domain stands after the last "@": a quoted local part may hold others.
    """
    return address.rpartition("@")[2].lower().rstrip(".") if "@" in address else ""

"""Fragments of expressions that the shapes of several daemons are built of.

All are linear: every loop is possessive or ends at a character it cannot cross. All are meant for `re.ASCII`.
"""

from typing import Final

QUEUE_ID: Final = r"[0-9A-Z][0-9A-Za-z]{4,63}"
"""Short (upper case hexadecimal) and long (base 52) ids, and those that anonymised logs carry. Also NOQUEUE."""

CERTAIN_QUEUE_ID: Final = r"(?:[0-9A-F]{5,64}(?![0-9A-Za-z])|(?=[A-Za-z]{0,63}[0-9])[0-9A-Za-z]{6,64})"
"""For places where a common word ("Illegal: ") could stand as well: all hexadecimal, or with a digit."""

QUOTED_ADDRESS: Final = r'"(?>(?:[^"\\]|\\.)*)"[^<>"]*+'
PLAIN_ADDRESS: Final = r'[^<>"]*+'
ADDRESS: Final = f"(?:{PLAIN_ADDRESS}|{QUOTED_ADDRESS})"
"""What stands between `<>` in external form (RFC 5321 section 4.1.2): `>` only inside a quoted local part."""

BARE_ADDRESS: Final = r'[^<>,\s"]++'
"""An address without `<>`, as local(8) of some builds and anonymisers write it."""

PEER: Final = r"([^\[\s]*+)\[([^\]]*+)\](?::(\d{1,5}))?"
"""`H[I]` or `H[I]:port`: three groups. I is an IP address, "unknown" or the path of a unix socket."""

ENDPOINT: Final = r"\[([^\]]*+)\]:(\d{1,5})"
"""`[I]:port`, as postscreen(8) writes it: two groups."""

NUMBER: Final = r"\d{1,15}(?:\.\d{1,9})?"
"""Seconds with or without a fraction, short enough for a float."""


def queue_id(lead: str) -> str:
    """The queue id, "" for NOQUEUE."""
    return "" if lead == "NOQUEUE" else lead


def number(digits: str | None) -> int | None:
    """A decimal that an expression has matched, None where it was not there."""
    return int(digits) if digits else None

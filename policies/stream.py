"""Which stream a message belongs to: who submitted it, and which campaign and segment its headers name.

Knows what the headers look like that name such things (Feedback-ID, List-ID); which headers count, the site says.
"""

from functools import lru_cache
from typing import Final, NamedTuple

_LONGEST: Final = 100


class Stream(NamedTuple):
    """What is the same for many messages; "" where it is not known."""

    tenant: str = ""
    """sasl_username of who submitted it."""
    campaign: str = ""
    segment: str = ""


NO_STREAM: Final = Stream()

stream: Final = lru_cache(maxsize=20_000)(Stream)
"""Make one; the same for all messages that have it, for a million of them may be live."""


def header_word(header: str, value: str) -> str:
    """Read what a header names, as it is logged: folds as "?", cut by cleanup at 200 bytes.

    Of Feedback-ID (`campaign:customer:type:sender`) the first part, of List-ID (RFC 2919) the identifier in <>; of
    others all of it.
    """
    text = value.replace("?", " ").strip()
    name = header.lower()
    if name == "feedback-id":
        text = text.partition(":")[0]
    elif name == "list-id" and "<" in text:
        text = text.rpartition("<")[2].partition(">")[0]
    return " ".join(text.split())[:_LONGEST]

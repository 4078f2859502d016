"""What the outside world says of us: one value of one object, with how sure we are of it.

Three outcomes and never a fourth: a value, no data, or nobody could say. The last two are no zero.
"""

from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    OK = "ok"
    """The source answered, with a value."""
    NO_DATA = "no_data"
    """The source answered that it has none: too little volume, a day not yet published."""
    UNKNOWN = "unknown"
    """Nobody could say: no answer, an error, an answer that makes no sense."""


class Observation(NamedTuple):
    feed: str
    """Which source: "dnsbl", "google-postmaster", ..."""
    object: str
    """What it is about: an address, a domain, a zone."""
    measure: str
    """What was looked at, with dots for parts: "listed.spamhaus-zen", "auth-success.spf"."""
    outcome: Outcome
    value: float | None = None
    """Of OK alone: a ratio of 0 to 1, a count, 1 or 0 for yes and no. None where only words say it."""
    text: str = ""
    """Of OK the words that belong to the value (a sublist, a colour, a reason); else why there is none."""
    at: float = 0.0
    """The time that the value describes: for a daily figure the begin of the day, UTC. 0: the time of the poll."""

"""How a feed asks without waiting: a generator that yields questions, is sent the answers, and returns what it read.

A feed knows what to ask and what the answers mean; whoever drives it knows sockets, time-outs and files.
"""

from collections.abc import Generator
from enum import StrEnum
from typing import NamedTuple, TypeVar

from parsers.observation import Observation


class HttpAsk(NamedTuple):
    """One HTTP request. Redirects are not followed: a login page is an answer too."""

    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    secrets: tuple[str, ...] = ()
    """Never to be logged or kept, wherever they stand in here or in the answer."""
    private: bool = False
    """The answer brings a new secret: nothing of its body is kept."""


class HttpAnswer(NamedTuple):
    status: int
    """0 where there was no answer; `error` says why."""
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case."""
    body: bytes = b""
    error: str = ""

    def header(self, name: str) -> str:
        """Give the first of this name (lower case), "" where there is none."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def media_type(self) -> str:
        """Of Content-Type, in lower case, without its parameters."""
        return self.header("content-type").partition(";")[0].strip().lower()


class DnsAsk(NamedTuple):
    """One look-up of an absolute name."""

    name: str
    type: str = "A"
    zone: str = ""
    """Whose servers it goes to in the end: of each only a few are asked at a time."""
    secrets: tuple[str, ...] = ()


class DnsAnswer(NamedTuple):
    rcode: str
    """NOERROR, NXDOMAIN, SERVFAIL, REFUSED, ...; "TIMEOUT" or "ERROR" where no server answered."""
    records: tuple[str, ...] = ()
    """In presentation format, without quotes; the strings of a TXT record joined."""
    ttl: float = 0.0
    """Seconds, of the records or of the negative answer; 0 where unknown."""


class Keep(NamedTuple):
    """A secret that has changed: written whole and safely before the feed goes on (a rotated refresh token)."""

    path: str
    text: str


class Kept(NamedTuple):
    error: str = ""
    """"" when it is on disk."""


Ask = HttpAsk | DnsAsk | Keep
Answer = HttpAnswer | DnsAnswer | Kept


class Trouble(StrEnum):
    """Why a whole poll told nothing; a label of metrics, so it is a short and closed list."""

    NETWORK = "network"
    """No answer, or one that is a failure of theirs: 5xx, SERVFAIL."""
    AUTHENTICATION = "authentication"
    """Credentials refused or expired: a person must act."""
    REFUSED = "refused"
    """They do not want us: over the limit, an open resolver, not registered."""
    FORMAT = "format"
    """An answer that we cannot read."""
    CONFIGURATION = "configuration"
    """Ours: a file that cannot be read, a name they do not know."""


class Reading(NamedTuple):
    """What one poll told."""

    observations: tuple[Observation, ...] = ()
    trouble: Trouble | None = None
    """Set where the feed as a whole is blind; single UNKNOWN observations leave it None."""
    why: str = ""
    retry_after: float = 0.0
    """Seconds for which the source wants no more questions."""


Poll = Generator[tuple[Ask, ...], tuple[Answer, ...], Reading]
"""Yields questions that may be asked at once, is sent their answers in the same order."""

T = TypeVar("T")
Asked = Generator[tuple[Ask, ...], tuple[Answer, ...], T]
"""A part of a poll: what it found out, for `yield from`."""

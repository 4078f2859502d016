"""Where the fleet's store is: the URL of `store.redis`, read into what a client of Redis or Sentinel is made with.

Nothing here connects, and no Redis library is needed to find that a URL is no good.
"""

from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

_SCHEMES = ("redis", "rediss", "unix", "sentinel", "sentinels")
_WANTED = (
    "wanted redis://[USER@]HOST[:PORT][/DATABASE], rediss://... (TLS), unix:///PATH, or "
    "sentinel://[USER@]HOST[:PORT],HOST[:PORT],.../NAME[/DATABASE] (sentinels://... with TLS)"
)


class Sentinels(NamedTuple):
    hosts: tuple[tuple[str, int], ...]
    name: str
    """What they call the server that they watch."""
    database: int
    user: str
    password: str
    tls: bool


def check(url: str) -> None:
    """Raises ValueError, without the password, where `url` is none that we can use."""
    if sentinels(url):
        return
    parts = _split(url)
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError(f"unix:// names no socket; {_WANTED}")
    elif not parts.hostname:
        raise ValueError(f"{parts.scheme}:// names no host; {_WANTED}")


def sentinels(url: str) -> Sentinels | None:
    """Read a URL of Sentinels; None where it names the server itself. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme not in {"sentinel", "sentinels"}:
        return None
    netloc, _, path = rest.partition("?")[0].partition("/")  # by hand: several hosts, of which one may be in brackets
    account, _, hosts = netloc.rpartition("@")
    user, _, password = account.partition(":")
    name, _, database = path.strip("/").partition("/")
    if not hosts or not name or (database and not database.isdecimal()):
        raise ValueError(f"{scheme}:// lacks its hosts, the name of the server or a whole database; {_WANTED}")
    return Sentinels(
        tuple(_host(each) for each in hosts.split(",")),
        name,
        int(database or 0),
        unquote(user),
        unquote(password),
        scheme == "sentinels",
    )


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname:
            return parts.hostname, parts.port or 26_379
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no HOST[:PORT] of a Sentinel; {_WANTED}")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"no URL: {error}; {_WANTED}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{parts.scheme or 'no scheme'!r} is none of {', '.join(_SCHEMES)}; {_WANTED}")
    return parts

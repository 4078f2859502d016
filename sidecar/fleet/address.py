"""Where the fleet's store is: the URL of `store.redis`, read into what a client of Redis, Sentinel or a Cluster is made with.

Nothing here connects, and no Redis library is needed to find that a URL is no good.
"""

from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

_SCHEMES = ("redis", "rediss", "unix", "sentinel", "sentinels", "cluster", "clusters")
_WANTED = (
    "wanted redis://[USER@]HOST[:PORT][/DATABASE], rediss://... (TLS), unix:///PATH, "
    "sentinel://[USER@]HOST[:PORT],HOST[:PORT],.../NAME[/DATABASE] (sentinels://... with TLS), or "
    "cluster://[USER@]HOST[:PORT],HOST[:PORT],... (clusters://... with TLS)"
)


class Place(NamedTuple):
    host: str
    port: int


class Sentinels(NamedTuple):
    hosts: tuple[Place, ...]
    name: str
    """What they call the server that they watch."""
    database: int
    user: str
    password: str
    tls: bool


class Cluster(NamedTuple):
    nodes: tuple[Place, ...]
    """Some of them; they know the others."""
    user: str
    password: str
    tls: bool


def check(url: str) -> None:
    """Raises ValueError, without the password, where `url` is none that we can use."""
    if sentinels(url) or cluster(url):
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
    user, password, hosts, path = _several(rest)
    name, _, database = path.partition("/")
    if not hosts or not name or (database and not database.isdecimal()):
        raise ValueError(f"{scheme}:// lacks its hosts, the name of the server or a whole database; {_WANTED}")
    return Sentinels(
        tuple(_place(each, 26_379) for each in hosts.split(",")),
        name,
        int(database or 0),
        user,
        password,
        scheme == "sentinels",
    )


def cluster(url: str) -> Cluster | None:
    """Read a URL of a Cluster's nodes; None where it names another thing. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme not in {"cluster", "clusters"}:
        return None
    user, password, hosts, path = _several(rest)
    if not hosts or path:
        raise ValueError(f"{scheme}:// names hosts, and no database: a Cluster has one; {_WANTED}")
    return Cluster(tuple(_place(each, 6_379) for each in hosts.split(",")), user, password, scheme == "clusters")


def _several(rest: str) -> tuple[str, str, str, str]:
    """User, password, hosts and path: by hand, for of several hosts one may be in brackets."""
    netloc, _, path = rest.partition("?")[0].partition("/")
    account, _, hosts = netloc.rpartition("@")
    user, _, password = account.partition(":")
    return unquote(user), unquote(password), hosts, path.strip("/")


def _place(text: str, port: int) -> Place:
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname:
            return Place(parts.hostname, parts.port or port)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no HOST[:PORT]; {_WANTED}")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"no URL: {error}; {_WANTED}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{parts.scheme or 'no scheme'!r} is none of {', '.join(_SCHEMES)}; {_WANTED}")
    return parts

"""Where smtpd reaches us: the policy sockets that systemd hands over, and those that we make ourselves.

Knows addresses, owners and stale sockets; not what is said over them.
"""

import contextlib
import ipaddress
import logging
import os
import pwd
import resource
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sidecar.config import ConfigError
from sidecar.control import unlink_stale
from sidecar.systemd import Inherited

_LOG = logging.getLogger("sidecar.policyd")

BACKLOG = 4096
"""A full backlog of a unix socket costs smtpd a second and the default action; the kernel cuts it to somaxconn."""

_SPARE_DESCRIPTORS = 256  # kept from connections, for the log, the store and Postfix's commands
_PATH_MAX = 107  # bytes, sun_path of unix(7); smtpd itself dies of a longer one


class Listener(NamedTuple):
    """Where one Postfix instance asks."""

    address: str
    """unix:PATH, below the queue directory unless absolute, or inet:ADDRESS:PORT."""
    queue_directory: Path = Path("/var/spool/postfix")
    postfix_instance: str = "postfix"


class Listening(NamedTuple):
    """A socket on which smtpd of one Postfix instance connects."""

    socket: socket.socket
    postfix_instance: str
    path: Path | None
    """To remove at the end; None where systemd keeps the socket, or it has no path."""

    def close(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.socket.close()


def listen(listener: Listener, *, inherited: Sequence[Inherited] = (), owner: str = "postfix") -> Listening:
    """Listen on an address: with the inherited socket of that address, else with one of our own.

    `owner`: Postfix's mail_owner, whom a unix socket made by root is given to. Raises ConfigError when the
    address is none, is in use, or cannot be had.
    """
    place = _place(listener)
    passed = next((each.socket for each in inherited if _place_of(each.socket) == place), None)
    listening = passed or _bound(place, owner=owner)
    listening.setblocking(False)
    listening.listen(BACKLOG)  # also of one that was handed over: its unit may have said less
    ours = place if passed is None and isinstance(place, Path) else None
    return Listening(listening, listener.postfix_instance, ours)


def connections_within_limits(wanted: int) -> int:
    """Cut a number of connections to what RLIMIT_NOFILE leaves: a log must be reopened all the same."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = wanted if soft == resource.RLIM_INFINITY else max(soft - _SPARE_DESCRIPTORS, 64)
    if room < wanted:
        _LOG.warning("policy: at most %d connections, for the limit of open files is %d; wanted %d", room, soft, wanted)
    return min(wanted, room)


_Place = Path | tuple[str, int]


def _place(listener: Listener) -> _Place:
    kind, _, rest = listener.address.partition(":")
    if kind == "unix" and rest:
        path = listener.queue_directory / rest
        if len(os.fsencode(path)) > _PATH_MAX:
            raise ConfigError(f"policy.listen: {path}: longer than the {_PATH_MAX} bytes that a unix socket may have")
        return path.parent.resolve() / path.name
    host, _, port = rest.rpartition(":")
    if kind == "inet" and port.isdecimal() and int(port) < 65536:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            if not address.is_loopback:
                _LOG.warning("policy.listen: %s: whoever reaches this address learns our answers", listener.address)
            return str(address), int(port)
    raise ConfigError(
        f"policy.listen: found {listener.address!r}, wanted unix:PATH or inet:ADDRESS:PORT with a numeric address,"
        " as unix:private/sidecar or inet:127.0.0.1:10040"
    )


def _place_of(listening: socket.socket) -> _Place | None:
    """Say where a socket listens, as `_place` does."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        path = Path(os.fsdecode(name))
        return path.parent.resolve() / path.name
    return (name[0], name[1]) if listening.family in {socket.AF_INET, socket.AF_INET6} else None


def _bound(place: _Place, *, owner: str) -> socket.socket:
    if isinstance(place, Path):
        unlink_stale(place)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        made = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if isinstance(place, Path):
            _bind_for(owner, made, place)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(place)
    except OSError as error:
        made.close()
        said = place if isinstance(place, Path) else f"{place[0]}:{place[1]}"
        raise ConfigError(f"policy.listen: {said}: cannot listen there: {error.strerror or error}") from error
    except ConfigError:
        made.close()
        raise
    return made


def _bind_for(owner: str, made: socket.socket, path: Path) -> None:
    """Bind so that smtpd, which runs as `owner`, can connect, and as few others as can be.

    An answer tells who is throttled or suppressed, so that a socket which root makes is smtpd's alone. Who
    is neither root nor `owner` cannot give it away: then the directory keeps others out, as private/ does.
    """
    try:
        mail_owner = pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise ConfigError(f"policy.listen: {path}: no user {owner!r} (Postfix's mail_owner) on this host") from None
    before = os.umask(0o177)
    try:
        made.bind(os.fspath(path))
    finally:
        os.umask(before)
    if os.geteuid() == 0:
        os.chown(path, mail_owner, -1)
    elif os.geteuid() != mail_owner:
        path.chmod(0o666)

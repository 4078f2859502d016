"""Ports on loopback for servers that are told where to listen.

They lie below those that the kernel gives to connections and for port 0, so nobody is given one before it is bound.
"""

import random
import socket
from collections.abc import Iterator

_OURS = range(20_000, 32_000)
"""Linux gives away those from 32768 on (net.ipv4.ip_local_port_range)."""


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Find so many different ones at which nobody listens. Raises OSError."""
    found = [port for port, _ in zip(_free(), range(count), strict=False)]
    if len(found) < count:
        raise OSError(None, f"no {count} ports free on 127.0.0.1 of {_OURS.start} to {_OURS.stop - 1}")
    return found


def _free() -> Iterator[int]:
    for port in random.SystemRandom().sample(_OURS, len(_OURS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port

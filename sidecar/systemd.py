"""What systemd gives a service and wants to hear from it: sockets it holds for us, readiness, a sign of life.

Outside systemd every function here does nothing or gives nothing.
"""

import os
import socket
from collections.abc import Mapping
from typing import NamedTuple


class Inherited(NamedTuple):
    """A listening socket that systemd made, and keeps while we restart (sd_listen_fds(3))."""

    name: str
    """FileDescriptorName= of its socket unit."""
    socket: socket.socket


def inherited_sockets(environ: Mapping[str, str], *, pid: int) -> list[Inherited]:
    """Take over the sockets that systemd passed to this process (once: they are open files); none where it passed none."""
    if environ.get("LISTEN_PID") != str(pid):
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    passed = []
    for i in range(int(environ.get("LISTEN_FDS", "0"))):
        taken = socket.socket(fileno=3 + i)
        taken.set_inheritable(False)
        passed.append(Inherited(names[i] if i < len(names) else "", taken))
    return passed


def notify(state: str) -> None:
    """Tell systemd "READY=1", "WATCHDOG=1", "STOPPING=1" or "STATUS=..." (sd_notify(3)).

    What cannot be told is dropped: a service must not fail for want of a listener.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract name space
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
        try:
            out.sendto(state.encode(), address)
        except OSError:
            return


def watchdog_interval() -> float | None:
    """Seconds between two signs of life, half of WatchdogSec; None where none are awaited (sd_watchdog_enabled(3))."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or int(microseconds) == 0 or pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000

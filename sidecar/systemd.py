"""What systemd gives a service and wants to hear from it: sockets it holds for us, readiness, a sign of life.

Outside systemd every function here does nothing or gives nothing.
"""

import os
import socket

_FIRST_HANDLE = 3  # SD_LISTEN_FDS_START


def inherited_sockets() -> dict[str, list[socket.socket]]:
    """Listening sockets that systemd holds for this process, by FileDescriptorName (sd_listen_fds(3)).

    Call once: a second call would give the same handles to second owners. asyncio must be given
    `backlog=` for them, or it shortens the one that systemd set.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[socket.socket]] = {}
    for i in range(count):
        handle = _FIRST_HANDLE + i
        os.set_inheritable(handle, False)
        name = names[i] if i < len(names) and names[i] else "unknown"
        found.setdefault(name, []).append(socket.socket(fileno=handle))
    return found


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

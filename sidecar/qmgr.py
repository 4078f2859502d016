"""The queue manager's process: which one it is, and how to have it start anew from the files alone.

A message that was taken from its memory and put back would be unlinked undelivered; a new queue manager
remembers nothing.
"""

import fcntl
import os
import select
import time
from pathlib import Path

from sidecar import postfix
from sidecar.postfix import Instance, PostfixError

_NAMES = frozenset({"qmgr", "oqmgr", "nqmgr"})
"""Programs that serve as the queue manager (master(5))."""

GONE_WITHIN = 30.0
"""Seconds that the old queue manager is given to end after a reload."""


def master(instance: Instance) -> int | None:
    """Process id of the running master, None where Postfix is stopped.

    master(8) keeps its pid file locked while it lives (master_flow.c, master.c), so a stale file says nothing.
    """
    try:
        with (instance.queue_directory / "pid" / "master.pid").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or b"0") or None
            return None
    except (OSError, ValueError):
        return None


def pids(instance: Instance) -> list[int]:
    """Process ids of the queue managers that master runs; more than one only in the moment of a reload."""
    parent = master(instance)
    if parent is None:
        return []
    return [pid for pid in _children(parent) if _name(pid) in _NAMES]


def started(instance: Instance) -> float | None:
    """When the oldest running queue manager started, seconds since the epoch; None where none runs."""
    times = [time.time() - age for pid in pids(instance) if (age := _age(pid)) is not None]
    return min(times, default=None)


def renew(instance: Instance, *, within: float = GONE_WITHIN) -> bool:
    """Reload Postfix and wait until its old queue manager is gone. False where Postfix is stopped: none is to go.

    Raises PostfixError where the reload fails, or the old one is still there after `within` seconds.
    """
    if master(instance) is None:
        return False
    deadline = time.monotonic() + within
    handles = {pid: handle for pid in pids(instance) if (handle := _handle(pid)) is not None}
    try:
        postfix.reload(instance)
        for pid, handle in handles.items():
            if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise PostfixError(
                    f"queue manager {pid} of {instance.config_directory} still runs {within:g} s after a reload; "
                    "what it remembers must not be released; see what it does, or stop and start Postfix"
                )
    finally:
        for handle in handles.values():
            os.close(handle)
    return True


def _handle(pid: int) -> int | None:
    """A handle that becomes readable when the process ends (pidfd_open(2)); None where it has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _children(parent: int) -> list[int]:
    processes = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in processes if _parent(pid) == parent]


def _parent(pid: int) -> int:
    fields = _status(pid)
    return int(fields[1]) if fields else 0


def _age(pid: int) -> float | None:
    """Seconds since a process started: its start is counted from the boot, in clock ticks."""
    fields = _status(pid)
    if not fields:
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _status(pid: int) -> list[bytes]:
    """Fields of /proc/PID/stat from the third on (proc(5)); the second is a name, which may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    return text[text.rindex(b")") + 1 :].split()


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""

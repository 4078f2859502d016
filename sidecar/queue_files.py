"""Files of messages on hold: where they are, whether somebody still delivers them, when they are due.

Goes through directory handles, follows no link, touches only regular files of Postfix's own user, and
does so as that user where it may become it.
"""

import contextlib
import fcntl
import functools
import os
import pwd
import stat
from collections.abc import Iterator
from enum import StrEnum

from sidecar import postfix
from sidecar.postfix import Instance, PostfixError

# mail_queue.h: the digits of a long queue id, in the order of their values.
_BASE_52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class HeldFile(StrEnum):
    """What was found under a queue id in the hold queue."""

    READY = "ready"
    BUSY = "busy"
    """A delivery agent has it open and locked: it was taken in the middle of a delivery."""
    MISSING = "missing"
    """Not on hold."""
    FOREIGN = "foreign"
    """No regular file, a link, or not Postfix's: never touched."""


@contextlib.contextmanager
def as_owner(instance: Instance) -> Iterator[None]:
    """Act on files as the user that owns the queue, where we are root.

    The effective ids are the process's, so nothing else may run meanwhile: one thread, no awaiting inside.
    Raises PostfixError where that user does not exist.
    """
    uid, gid = owner(instance)
    if os.geteuid() != 0:
        yield
        return
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def owner(instance: Instance) -> tuple[int, int]:
    """User and group of `mail_owner`. Raises PostfixError."""
    name = instance.parameters["mail_owner"]
    try:
        return _user(name)
    except KeyError:
        raise PostfixError(f"{instance.config_directory}/main.cf: mail_owner = {name}: no such user") from None


@functools.cache  # asked once a file
def _user(name: str) -> tuple[int, int]:
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


def hashed(instance: Instance, queue_name: str, queue_id: str) -> tuple[str, ...]:
    """The subdirectories below the queue in which an id lies: by `hash_queue_names` and `_depth`.

    A long id is spread by its microseconds in hex, a short one by its own first digits (mail_queue.c).
    """
    if queue_name not in instance.parameters["hash_queue_names"].lower().replace(",", " ").split():
        return ()
    digits = queue_id
    if "z" in queue_id:
        microseconds = 0
        for digit in queue_id[: queue_id.rindex("z")][-4:]:
            microseconds = microseconds * len(_BASE_52) + _BASE_52.index(digit)
        digits = f"{microseconds:05X}"
    return tuple(digits[: int(instance.parameters["hash_queue_depth"])])


def prepare(instance: Instance, queue_id: str, *, due: float) -> HeldFile:
    """Make a held message due at `due` (seconds since the epoch), unless somebody still delivers it.

    The file's modification time is the time of the next attempt (qmgr_active.c). Call as the owner.
    """
    try:
        handle = _open(instance, queue_id)
    except FileNotFoundError:
        return HeldFile.MISSING
    except OSError:  # ELOOP of a link, ENOTDIR, EACCES
        return HeldFile.FOREIGN
    try:
        state = _state(handle, instance)
        if state is HeldFile.READY:
            os.utime(handle, (due, due))
        return state
    finally:
        os.close(handle)


def look(instance: Instance, queue_id: str) -> HeldFile:
    """What lies under `queue_id` in the hold queue; nothing is changed. Call as the owner."""
    try:
        handle = _open(instance, queue_id)
    except FileNotFoundError:
        return HeldFile.MISSING
    except OSError:
        return HeldFile.FOREIGN
    try:
        return _state(handle, instance)
    finally:
        os.close(handle)


def moved_at(instance: Instance, queue_id: str) -> float | None:
    """When a held file was last renamed or written (its ctime), None where it is no file of Postfix's.

    Every hold and release is a rename, and nobody can set this time back. Call as the owner.
    """
    try:
        handle = _open(instance, queue_id)
    except OSError:
        return None
    try:
        return None if _state(handle, instance) is HeldFile.FOREIGN else os.fstat(handle).st_ctime
    finally:
        os.close(handle)


def held(instance: Instance) -> dict[str, float]:
    """Every message on hold, whoever put it there, with its file's modification time. Call as the owner."""
    try:
        top = os.open(instance.queue_directory / "hold", _DIRECTORY)
    except FileNotFoundError:
        return {}  # Postfix has not been started yet
    try:
        return dict(_listing(top))
    finally:
        os.close(top)


def deferred_estimate(instance: Instance) -> int:
    """About how many files wait in the deferred queue.

    Counts one of the hash directories, over which ids are spread evenly, where there are any. Call as the owner.
    """
    try:
        top = os.open(instance.queue_directory / "deferred", _DIRECTORY)
    except OSError:
        return 0
    try:
        names = [entry.name for entry in os.scandir(top)]
        below = sorted(name for name in names if len(name) == 1)
        if not below:
            return len(names)
        first = os.open(below[0], _DIRECTORY, dir_fd=top)
        try:
            return sum(1 for _ in _listing(first)) * len(below)
        finally:
            os.close(first)
    except OSError:
        return 0
    finally:
        os.close(top)


def _open(instance: Instance, queue_id: str) -> int:
    """Open the held file of an id, each directory by its handle; raises OSError."""
    place = os.open(instance.queue_directory / "hold", _DIRECTORY)
    try:
        for name in hashed(instance, "hold", queue_id):
            below = os.open(name, _DIRECTORY, dir_fd=place)
            os.close(place)
            place = below
        return os.open(queue_id, _FILE, dir_fd=place)
    finally:
        os.close(place)


def _state(handle: int, instance: Instance) -> HeldFile:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid != owner(instance)[0]:
        return HeldFile.FOREIGN
    try:
        # Delivery agents lock with flock, shared (deliver_request.c). Ours ends with the handle; it is
        # held for microseconds, and nothing opens a file on hold.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return HeldFile.BUSY
    return HeldFile.READY


def _listing(directory: int) -> Iterator[tuple[str, float]]:
    """Queue files below a directory handle, through the one-letter directories of hashing."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if len(entry.name) == 1 and entry.is_dir(follow_symlinks=False):
                below = os.open(entry.name, _DIRECTORY, dir_fd=directory)
                try:
                    yield from _listing(below)
                finally:
                    os.close(below)
            elif postfix.is_queue_id(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # released while we look
                    yield entry.name, entry.stat(follow_symlinks=False).st_mtime

"""mbox files: read without keeping deliveries out, and emptied, where the site wants it, under the locks of Postfix.

Knows the line that separates mails, and that only the locks of local(8) keep a file from growing meanwhile.
"""

import contextlib
import fcntl
import functools
import os
import socket
import stat
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from parsers.reports.mime import MESSAGE_MAX
from sidecar.report_source import Mail, SourceError

PATIENCE = 10.0
"""Seconds to wait for a lock; a delivery takes milliseconds."""
DOTLOCK_STALE = 300.0
"""Seconds after which a lock file was left by a process that died."""


class Mbox:
    def __init__(self, path: Path, *, emptied: bool = False, patience: float = PATIENCE) -> None:
        """`emptied`: cut to nothing when all that was in it is stored."""
        self._path = path
        self._emptied = emptied
        self._patience = patience
        self._read: tuple[int, int] = (0, 0)
        """Inode and offset up to which everything is stored: a restart begins anew, and digests tell what is known."""

    @property
    def name(self) -> str:
        return f"mbox:{self._path}"

    def mails(self) -> Generator[Mail, None, None]:
        """What was added since the last look. Raises SourceError."""
        try:
            with self._opened() as file:
                if file is None:
                    return
                begin, size = self._begin(file), os.fstat(file.fileno()).st_size
                if begin == size and not self._emptied:
                    return
                with self._locked(file):  # a mail that is just being written would be read by half
                    end = os.fstat(file.fileno()).st_size
                yield from self._between(file, begin, end)
                if self._emptied and end:
                    yield from self._empty(file, end)
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be read: {error.strerror}") from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO | None]:
        mode = os.O_RDWR if self._emptied else os.O_RDONLY
        try:
            handle = os.open(self._path, mode | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:  # nothing was ever delivered
            yield None
            return
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise SourceError(f"{self._path}: no file; wanted an mbox (a directory is a Maildir: report_mail.maildir)")
        with os.fdopen(handle, "r+b" if self._emptied else "rb") as file:
            yield file

    def _begin(self, file: BinaryIO) -> int:
        status = os.fstat(file.fileno())
        inode, offset = self._read
        if inode != status.st_ino or offset > status.st_size:
            return 0
        file.seek(offset)
        return offset if file.read(5) in {b"From ", b""} else 0

    def _between(self, file: BinaryIO, begin: int, end: int) -> Iterator[Mail]:
        """Mails of a part of the file; the next look begins behind the last one that was acknowledged."""
        inode = os.fstat(file.fileno()).st_ino
        for offset, behind, data in _split(file, begin, end):
            yield Mail(f"byte {offset}", data, functools.partial(self._done, inode, behind))

    def _done(self, inode: int, behind: int, _: bool) -> None:  # noqa: FBT001  # as Mail.done
        self._read = (inode, behind)

    def _empty(self, file: BinaryIO, end: int) -> Iterator[Mail]:
        with self._locked(file):
            now = os.fstat(file.fileno()).st_size
            yield from self._between(file, end, now)  # what came meanwhile
            if self._read == (os.fstat(file.fileno()).st_ino, now):
                os.ftruncate(file.fileno(), 0)
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def _locked(self, file: BinaryIO) -> Iterator[None]:
        """All three locks that local(8) may be set to take (mailbox_delivery_lock)."""
        until = time.monotonic() + self._patience
        with contextlib.ExitStack() as locks:
            locks.callback(fcntl.flock, file, fcntl.LOCK_UN)
            while not (_lock_file(file, writable=self._emptied) and self._dotlock(locks)):
                fcntl.flock(file, fcntl.LOCK_UN)
                if time.monotonic() > until:
                    raise SourceError(f"{self._path}: locked by another program for {self._patience:.0f} s")
                time.sleep(0.05)
            yield

    def _dotlock(self, locks: contextlib.ExitStack) -> bool:
        lock = self._path.with_name(f"{self._path.name}.lock")
        try:
            handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - lock.stat().st_mtime > DOTLOCK_STALE or _left_by_us(lock):
                    lock.unlink()
            return False
        except PermissionError:  # where we may make no file there, the other locks must do, as for local(8)
            return True
        locks.callback(lock.unlink, missing_ok=True)
        with os.fdopen(handle, "w") as file_of_ours:
            file_of_ours.write(f"sidecar {socket.gethostname()} {os.getpid()}\n")
        return True


def _left_by_us(lock: Path) -> bool:
    """Whether a process of ours, on this host, made it and is no more: killed, it could not take it away."""
    words = lock.read_bytes()[:300].decode(errors="replace").split()
    if words[:2] != ["sidecar", socket.gethostname()] or not words[-1].isdecimal():
        return False
    try:
        os.kill(int(words[-1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _lock_file(file: BinaryIO, *, writable: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _split(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """(offset, offset behind, mail without its From line) of each mail in a part of the file."""
    offset = begin
    mail = bytearray()
    position, blank = begin, True
    while position < end:
        file.seek(position)
        line = file.readline(min(end - position, MESSAGE_MAX + 1))
        if not line:
            break
        if line.startswith(b"From ") and blank and position > offset:
            yield offset, position, bytes(mail[: MESSAGE_MAX + 1])
            offset, mail = position, bytearray()
        elif position > offset and len(mail) <= MESSAGE_MAX:
            mail += line[1:] if _is_quoted(line) else line
        position += len(line)
        blank = line in {b"\n", b"\r\n"}
    if position > offset:
        yield offset, position, bytes(mail[: MESSAGE_MAX + 1])


def _is_quoted(line: bytes) -> bool:
    """>From, >>From: how a line that begins with From is kept from looking like a separator."""
    return line.startswith(b">") and line.lstrip(b">").startswith(b"From ")

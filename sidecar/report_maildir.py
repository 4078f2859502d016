"""Maildirs: read from new/, moved to cur/ when stored; and written, when a mail is handed over to the outside process.

A mail is in one place or the other at every moment, so that neither a crash nor a full disk loses one.
"""

import contextlib
import errno
import functools
import itertools
import os
import socket
import stat
import time
from collections.abc import Generator
from pathlib import Path

from parsers.reports.mime import MESSAGE_MAX
from sidecar.report_source import Mail, SourceError

_COUNT = itertools.count(1)
KEPT_MAX = 500
"""Mails of the spool that were not understood and are kept to be looked at; the oldest go first."""


class Maildir:
    def __init__(self, path: Path, *, spool: bool = False) -> None:
        """`spool`: our own, made when it is first written to; what was understood is removed from it."""
        self._path = path
        self._spool = spool

    @property
    def name(self) -> str:
        return "pipe" if self._spool else f"maildir:{self._path}"

    def mails(self) -> Generator[Mail, None, None]:
        """What is in new/, oldest first by its name. Raises SourceError."""
        new = self._path / "new"
        try:
            names = sorted(entry.name for entry in os.scandir(new) if not entry.name.startswith("."))
        except FileNotFoundError as error:
            if self._spool:
                return
            raise SourceError(f"{new}: there is none; wanted a Maildir with new/ and cur/ in it") from error
        except OSError as error:
            raise SourceError(f"{new}: cannot be read: {error.strerror}") from error
        for name in names:
            data = _read(new / name)
            if data is not None:
                yield Mail(name, data, functools.partial(self._done, name))

    def _done(self, name: str, understood: bool) -> None:  # noqa: FBT001  # as Mail.done
        """Raises SourceError: the mail stays in new/, is known by its digest when it comes again, and counts once."""
        try:
            if self._spool and understood:
                (self._path / "new" / name).unlink()
                return
            (self._path / "new" / name).rename(self._path / "cur" / f"{name.partition(':')[0]}:2,S")
            if self._spool:
                self._forget_the_oldest()
        except FileNotFoundError:
            return  # another reader was faster
        except OSError as error:
            raise SourceError(f"{self._path / 'cur'}: cannot be written: {error.strerror}") from error

    def _forget_the_oldest(self) -> None:
        names = sorted(entry.name for entry in os.scandir(self._path / "cur"))
        for name in names[:-KEPT_MAX]:
            (self._path / "cur" / name).unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """A regular file's bytes, as far as a mail may go; None where it is gone. Raises SourceError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            return file.read(MESSAGE_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link: no mail, and perhaps a trap
            return None
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error


def _owner(path: Path) -> os.stat_result:
    """Of the directory, or of the nearest above it that is there."""
    return next(each for each in (path, *path.absolute().parents) if each.is_dir()).stat()


def _give(what: Path | int, owner: os.stat_result) -> None:
    """Root may hand over what another user must be able to take."""
    if os.geteuid() == 0:
        os.chown(what, owner.st_uid, owner.st_gid)


def hand_over(path: Path, data: bytes) -> str:
    """Put a mail into the Maildir `path`, made where there is none; its name. On disk when this returns.

    Raises OSError, and then there is no part of the mail in new/.
    """
    owner = _owner(path)
    for each in (path, *(path / name for name in ("tmp", "new", "cur"))):
        if not each.is_dir():
            each.mkdir(mode=0o750, parents=True)
            _give(each, owner)
    # Names of one second sort as they came; the host stands in them for Maildirs that hosts share.
    name = f"{time.time():.6f}.P{os.getpid()}Q{next(_COUNT)}.{socket.gethostname().replace('/', '_').replace(':', '_')}"
    unfinished = path / "tmp" / name
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640), "wb") as file:
            _give(file.fileno(), owner)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path / "new" / name)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    directory = os.open(path / "new", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return name

"""The record of what we put on hold: append-only, one JSON object a line, on disk before Postfix is asked.

It alone tells our holds from an admin's when core, its store and the log are gone; so every line stands
for itself, and a torn or damaged one costs no other.
"""

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

COMPACT_AT = 1 << 20
"""Bytes from which a record is rewritten when most of it is no longer true."""


class Op(StrEnum):
    """What a line says of its ids."""

    HOLD = "hold"
    """About to be put on hold by us."""
    ADOPT = "adopt"
    """On hold, or about to be, by our HOLD answer."""
    RELEASE = "release"
    REQUEUE = "requeue"
    MISSING = "missing"
    """Postfix did not put it on hold after all."""
    GONE = "gone"
    """No longer on hold, by whatever hand."""
    FORGET = "forget"
    """Not ours."""


OURS = frozenset({Op.HOLD, Op.ADOPT})
"""After these an id is ours; after the others it is not."""


class Entry(NamedTuple):
    """One message that is ours."""

    instance: str
    """Syslog name of the Postfix instance."""
    queue_id: str
    key: str
    time: float
    op: Op


class RecordError(Exception):
    """The record cannot be written, or is not a file that we may trust."""


Live = dict[tuple[str, str], Entry]


class Contents(NamedTuple):
    """What a record says."""

    live: Live
    """What is ours, by (instance, queue id)."""
    left: frozenset[tuple[str, str]]
    """What was ours and is not any more, as far as the record still names it."""
    damaged: int
    """Lines that could not be read."""


def read(path: Path) -> Contents:
    """Read a record without touching it. A missing one is an empty one.

    Raises RecordError where it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Contents({}, frozenset(), 0)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    return _replay(data)


class HeldRecord:
    """The record, open for writing. Several processes may: each line is written whole under a lock.

    Raises RecordError, here and in its methods, when the record is not a regular file of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """Lines that could not be read, last time the file was read."""
        self._live: Live = {}
        self._seen = (0, 0)
        self._compact_at = COMPACT_AT
        with self._locked():
            pass

    @property
    def live(self) -> Live:
        """What is ours, by (instance, queue id)."""
        with self._locked():
            return self._live

    def append(self, op: Op, instance: str, ids: Iterable[str], *, key: str, now: float) -> None:
        """Write one line for `ids` and wait until it is on the disk. Nothing is written for no ids.

        Raises RecordError; then the record is as it was before.
        """
        self.append_each(op, instance, dict.fromkeys(ids, key), now=now)

    def append_each(self, op: Op, instance: str, keys: Mapping[str, str], *, now: float) -> None:
        """Write a line a key, for ids with the key of each, and wait once. Raises as `append`."""
        by_key: dict[str, list[str]] = {}
        for queue_id, key in keys.items():
            by_key.setdefault(key, []).append(queue_id)
        if not by_key:
            return
        lines = [_line(op, instance, tuple(ids), key=key, time=now) for key, ids in by_key.items()]
        with self._locked() as handle:
            self._write(handle, b"".join(lines))
            for key, ids in by_key.items():
                _apply(self._live, op, instance, tuple(ids), key=key, time=now)
            if self._seen[1] > self._compact_at:
                self._compact()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, locked, with `_live` true to it; another process may have rewritten it since."""
        handle = self._open()
        try:
            self._refresh(handle)
            yield handle
        except OSError as error:
            raise RecordError(f"{self.path}: {error.strerror}") from error
        finally:
            os.close(handle)

    def _open(self) -> int:
        """Open and lock; again where a rewriting put another file in place meanwhile."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            while True:
                handle = os.open(self.path, flags, 0o640)
                fcntl.flock(handle, fcntl.LOCK_EX)
                status = os.fstat(handle)
                # The directory is the unprivileged user's: what lies there may be a trap for root.
                if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
                    os.close(handle)
                    raise RecordError(
                        f"{self.path}: not a plain file of uid {os.geteuid()}; move it away and look at it"
                    )
                with contextlib.suppress(FileNotFoundError):
                    if self.path.lstat().st_ino == status.st_ino:
                        return handle
                os.close(handle)
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be opened: {error.strerror}") from error

    def _refresh(self, handle: int) -> None:
        status = os.fstat(handle)
        if (status.st_ino, status.st_size) != self._seen:
            self._live, _, self.damaged = _replay(os.pread(handle, status.st_size, 0))
            self._seen = (status.st_ino, status.st_size)

    def _write(self, handle: int, line: bytes) -> None:
        """Append and sync; cut off again what did not get through, as on a full disk."""
        inode, size = self._seen
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line  # the last line was torn: a crash in the middle of its writing
        try:
            written = os.write(handle, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301  # undone below like any other
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
        self._seen = (inode, size + len(line))
        if size == 0:
            _sync_directory(self.path.parent)

    def _compact(self) -> None:
        """Put a file with only the live entries in place of this one; left for later where it fails."""
        fresh = self.path.with_name(self.path.name + ".new")
        data = b"".join(_grouped(self._live.values()))
        try:
            fresh.unlink(missing_ok=True)
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
                inode = os.fstat(handle).st_ino
            fresh.rename(self.path)
            _sync_directory(self.path.parent)
        except OSError:
            self._compact_at = 2 * self._seen[1]
            return
        self._seen = (inode, len(data))
        self._compact_at = max(COMPACT_AT, 4 * len(data))


def _line(op: Op, instance: str, ids: tuple[str, ...], *, key: str, time: float) -> bytes:
    entry = {"time": round(time, 3), "op": op, "instance": instance, "key": key, "ids": ids}
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _grouped(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Lines that say `entries`, those of one act together."""
    groups: dict[tuple[Op, str, str, float], list[str]] = {}
    for entry in entries:
        groups.setdefault((entry.op, entry.instance, entry.key, entry.time), []).append(entry.queue_id)
    for (op, instance, key, time), ids in groups.items():
        yield _line(op, instance, tuple(ids), key=key, time=time)


def _replay(data: bytes) -> Contents:
    live: Live = {}
    named: set[tuple[str, str]] = set()
    damaged = 0
    for line in data.split(b"\n"):
        if not line:
            continue
        try:
            entry = json.loads(line)
            op, instance, ids = Op(entry["op"]), str(entry["instance"]), tuple(map(str, entry["ids"]))
            _apply(live, op, instance, ids, key=str(entry["key"]), time=float(entry["time"]))
            named.update((instance, one) for one in ids)
        except (ValueError, KeyError, TypeError):
            damaged += 1
    return Contents(live, frozenset(named - live.keys()), damaged)


def _apply(live: Live, op: Op, instance: str, ids: tuple[str, ...], *, key: str, time: float) -> None:
    for queue_id in ids:
        if op in OURS:
            live[instance, queue_id] = Entry(instance, queue_id, key, time, op)
        else:
            live.pop((instance, queue_id), None)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

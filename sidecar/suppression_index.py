"""Who is suppressed, in a file that is mapped into memory: seventeen bytes an entry, found in a microsecond.

Knows digests and slots (a list and a reason, by number), nothing of addresses. The store has the truth; the file is
made of it, and what changed since is in `Overlay`.
"""

import contextlib
import mmap
import os
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

WHO_BYTES: Final = 16
"""Of a digest: with ten million entries a look-up is wrong once in 10^31."""
_BUCKETS: Final = 1 << 20
_TAIL: Final = WHO_BYTES - 2
_RECORD: Final = _TAIL + 3
"""The digest less its first two bytes, which the bucket says already; then the slot."""
SLOTS_MAX: Final = 1 << 24
_MAGIC: Final = b"sidecar suppr. 1"
_HEADER: Final = struct.Struct("<16s16sQQ")
_HEADER_SIZE: Final = _HEADER.size
_BOUNDS: Final = struct.Struct("=II").unpack_from
_DIRECTORY: Final = 4 * (_BUCKETS + 1)
_BASE: Final = _HEADER.size + _DIRECTORY
_PIECE: Final = 1 << 20
_SLICE: Final = 4096
"""Bytes copied, and buckets counted, at a time; others get their turn in between."""


class Stamp(NamedTuple):
    """Of what a file was made."""

    store: bytes
    """Which store, sixteen bytes."""
    upto: int
    """All changes up to this one are in it."""


class IndexFile:
    """A file that was read; it stays as it is, whatever happens to its name."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError where it is none of ours, or not whole; OSError."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _BASE:
                raise ValueError(f"{path}: {size} bytes; wanted {_BASE} at least")
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        magic, store, upto, self.entries = _HEADER.unpack_from(self._map)
        if magic != _MAGIC or size != _BASE + self.entries * _RECORD:
            raise ValueError(f"{path}: no index of this version, or not whole")
        self.stamp = Stamp(store, upto)
        # Whatever is looked up first would be read from the disk while Postfix waits.
        self._map.madvise(mmap.MADV_WILLNEED)
        self._view = memoryview(self._map)
        self.starts = self._view[_HEADER.size : _BASE].cast("I")
        """Number of the first record of each bucket, and of the one after the last."""
        if self.starts[_BUCKETS] != self.entries:
            raise ValueError(f"{path}: its directory does not fit its entries")

    def slots(self, who: bytes) -> tuple[int, ...]:
        """All slots under this digest."""
        bucket = who[0] << 12 | who[1] << 4 | who[2] >> 4
        at, end = _BOUNDS(self._map, _HEADER_SIZE + 4 * bucket)
        if at == end:  # nine of ten, on a list of a hundred thousand
            return ()
        records = self._map[_BASE + at * _RECORD : _BASE + end * _RECORD]
        tail = who[2:]
        found = records.find(tail)
        if found < 0:
            return ()
        slots = []
        while found >= 0:
            if found % _RECORD == 0:
                slots.append(int.from_bytes(records[found + _TAIL : found + _RECORD], "big"))
            found = records.find(tail, found + 1)
        return tuple(slots)

    def bucket(self, number: int) -> list[bytes]:
        """The records of a bucket, in order."""
        first, last = self.starts[number], self.starts[number + 1]
        return [self._map[_BASE + each * _RECORD : _BASE + (each + 1) * _RECORD] for each in range(first, last)]

    def copy(self, first: int, last: int, to: BinaryIO) -> None:
        """Write the records of the buckets from `first` to before `last`."""
        at, end = _BASE + self.starts[first] * _RECORD, _BASE + self.starts[last] * _RECORD
        while at < end:
            piece = min(_PIECE, end - at)
            to.write(self._view[at : at + piece])  # the system copies, while others have their turn
            at += piece


Overlay = Mapping[bytes, tuple[int, ...]]
"""Digest -> all its slots now, whatever a file says."""


def fold(old: IndexFile | None, changed: Overlay, path: Path, stamp: Stamp) -> None:
    """Write a file of `old` and what changed since. After a crash there is the old one or the new one.

    Raises OSError.
    """
    touched: dict[int, list[bytes]] = {}
    for who in changed:
        touched.setdefault(int.from_bytes(who[:3], "big") >> 4, []).append(who)
    with _written(path) as file:
        folding = _Folding(old, file)
        for number in sorted(touched):
            tails = {who[2:] for who in touched[number]}
            kept = [each for each in old.bucket(number) if each[:_TAIL] not in tails] if old else []
            added = [who[2:] + slot.to_bytes(3, "big") for who in touched[number] for slot in changed[who]]
            folding.unchanged(until=number)
            folding.bucket(sorted(kept + added))
        folding.unchanged(until=_BUCKETS)
        folding.finish(stamp)


class _Folding:
    """A file that is being written, bucket by bucket."""

    def __init__(self, old: IndexFile | None, file: BinaryIO) -> None:
        self._old = old
        self._file = file
        self._starts = array("I")
        self._written = 0
        file.seek(_BASE)

    def unchanged(self, *, until: int) -> None:
        """Take the buckets up to there as they were."""
        first = len(self._starts)
        if self._old is None:
            self._starts.extend(array("I", [self._written]) * (until - first))
            return
        starts = self._old.starts
        shift = self._written - starts[first]
        for at in range(first, until, _SLICE):
            self._starts.extend([each + shift for each in starts[at : min(at + _SLICE, until)]])
        self._old.copy(first, until, self._file)
        self._written = starts[until] + shift

    def bucket(self, records: list[bytes]) -> None:
        """Write the next bucket."""
        self._starts.append(self._written)
        self._file.write(b"".join(records))
        self._written += len(records)

    def finish(self, stamp: Stamp) -> None:
        self._starts.append(self._written)
        _finish(self._file, stamp, self._starts)


def build(rows: Iterable[tuple[bytes, int]], path: Path, stamp: Stamp) -> None:
    """Write a file of all (digest, slot), which come in order. Raises OSError."""
    with _written(path) as file:
        file.seek(_BASE)
        starts = array("I")
        written = 0
        for who, slot in rows:
            bucket = int.from_bytes(who[:3], "big") >> 4
            if bucket >= len(starts):
                starts.extend(array("I", [written]) * (bucket + 1 - len(starts)))
            file.write(who[2:] + slot.to_bytes(3, "big"))
            written += 1
        starts.extend(array("I", [written]) * (_BUCKETS + 1 - len(starts)))
        _finish(file, stamp, starts)


def _finish(file: BinaryIO, stamp: Stamp, starts: "array[int]") -> None:
    file.seek(0)
    file.write(_HEADER.pack(_MAGIC, stamp.store, stamp.upto, starts[_BUCKETS]))
    file.write(starts.tobytes())


@contextlib.contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name when it is whole and on the disk."""
    unfinished = path.with_name(f"{path.name}.new")
    try:
        with open(unfinished, "wb", buffering=1 << 18, opener=_private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)

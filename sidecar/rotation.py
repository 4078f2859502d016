"""The files that hold one log: the live one and its rotated siblings, plain or compressed, in order of age.

A place in the log is described so that it is found again after its file was renamed, copied or
compressed. Nothing is followed here.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from sidecar.compressed import DECOMPRESSORS, UNREADABLE, Text

HEAD = 512
"""Bytes that tell one file from another: some lines, each with its time."""

CLOCK_STEP_NS = 2_000_000_000
"""Modification times are kept by some file systems and archives in steps of two seconds."""


class Place(NamedTuple):
    """Where reading stands, in words that survive the renaming, copying and compressing of the file."""

    device: int
    inode: int
    head_length: int
    head: str
    """Digest of the file's first `head_length` bytes, decompressed; "" where it had none yet."""
    offset: int
    """Bytes before the place, decompressed; a line begins there."""
    mtime_ns: int
    """Modification time of the file when it was read to here."""

    def token(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def read(cls, token: str) -> Self:
        """Read what `token` wrote.

        Raises ValueError when the text is no such thing.
        """
        fields = json.loads(token)
        if not (isinstance(fields, dict) and fields.keys() == set(cls._fields)):
            raise ValueError(f"{token!r} is no place in a log file")
        return cls(**fields)


class LogFile(NamedTuple):
    path: Path
    device: int
    inode: int
    size: int
    """As stored, compressed or not."""
    mtime_ns: int

    @property
    def compressed(self) -> bool:
        return self.path.suffix in DECOMPRESSORS

    @property
    def identity(self) -> tuple[int, int]:
        return self.device, self.inode


def log_files(path: Path) -> list[LogFile]:
    """Oldest first, the live file last if it is there.

    Siblings are found in the directory of `path` and, where that is a symbolic link, beside its target.
    Raises OSError where the live file is there but out of reach.
    """
    live = _status(path)
    found: dict[Path, LogFile] = {}
    for name in {path, Path(os.path.realpath(path))}:
        pattern = _sibling_names(name.name)
        for sibling in _names(name.parent):
            if pattern.fullmatch(sibling) and (file := _status(name.with_name(sibling))):
                found[file.path] = file
    rotated = [
        file
        for file in found.values()
        # While gzip works, the plain file and what is ready of the compressed one stand beside each other.
        if not (file.compressed and file.path.with_suffix("") in found)
        # The live name may be a link to the newest dated file.
        and not (live and file.identity == live.identity)
    ]
    return sorted(rotated, key=_age) + ([live] if live else [])


def find(place: Place, files: Sequence[LogFile]) -> int | None:
    """Index of the file that holds the place; None where none of them does.

    The head decides: an inode may be another file's by now, and copytruncate leaves the text in a copy.
    """
    same = [index for index, file in enumerate(files) if file.identity == (place.device, place.inode)]
    if not place.head_length:
        return next((index for index in same if not files[index].compressed), None)
    since = place.mtime_ns - CLOCK_STEP_NS
    others = [index for index, file in enumerate(files) if file.mtime_ns >= since and index not in same]
    return next((index for index in (*same, *others) if _head_of(files[index], place.head_length) == place.head), None)


def digest(head: bytes) -> str:
    """What a `Place` says of a head; "" for an empty one."""
    return hashlib.blake2b(head, digest_size=16).hexdigest() if head else ""


def open_file(file: LogFile) -> tuple[io.FileIO, Text]:
    """The file itself, and its text to read from the beginning (the same thing where it is not compressed).

    Close the second, then the first. Raises OSError; FileNotFoundError also when another file bears the name by now.
    """
    stored = open(file.path, "rb", buffering=0)  # noqa: SIM115, PTH123  # the caller closes it; FileIO as `open` types it
    status = os.fstat(stored.fileno())
    if (status.st_dev, status.st_ino) != file.identity:
        stored.close()
        raise FileNotFoundError(f"{file.path} was renamed meanwhile")
    try:
        return stored, DECOMPRESSORS[file.path.suffix](stored) if file.compressed else stored
    except OSError:
        stored.close()
        raise


def _names(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _status(path: Path) -> LogFile | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return LogFile(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _sibling_names(name: str) -> re.Pattern[str]:
    """Names that logrotate (numbers, dateext, extension), newsyslog and `postfix logrotate` give.

    Strict about numbers between stem and extension: mail-2.log may well be the live log of another instance.
    """
    stem, extension = os.path.splitext(name)  # noqa: PTH122  # a bare name
    after = rf"{re.escape(name)}[.-]\d[\dT_:.-]*"
    between = rf"{re.escape(stem)}(?:\.\d{{1,4}}|[.-]\d{{8}}[\dT_-]*){re.escape(extension)}"
    endings = "|".join(re.escape(suffix) for suffix in DECOMPRESSORS)
    return re.compile(f"(?:{after}|{between})(?:{endings})?")


def _age(file: LogFile) -> tuple[int, int, str]:
    """By last writing, which compressors keep; at the same instant by name, where .2 is older than .1."""
    number = re.search(r"\.(\d{1,4})(?=\.|$)", file.path.name)
    return file.mtime_ns, -int(number[1]) if number else 0, file.path.name


def _head_of(file: LogFile, length: int) -> str:
    """Digest of the first bytes; of an unreadable, shorter or damaged file one that matches nothing."""
    try:
        stored, text = open_file(file)
        with stored, text:
            head = text.read(length)
    except UNREADABLE:
        return "unreadable"
    return digest(head) if len(head) == length else "shorter"

"""What a backup holds and how it is made beside running processes: stores, key, helper's record, configuration.

One tar file that begins with a manifest of sizes and checksums. The order of copying is what makes it consistent: the
helper's record comes last, so that it names whatever the copied store says is held.
"""

import contextlib
import hashlib
import json
import os
import pwd
import shutil
import socket
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from sidecar.config import Config
from sidecar.database import LOCK_TIMEOUT

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
CORE: Final = "core.db"
OUTSIDE: Final = "outside.db"
KEY: Final = "suppression.key"
RECORD: Final = "held.record"
CONFIGURATION: Final = "sidecar.toml"
RULES: Final = "rules/"
"""Followed by the name of a file of rules.directory."""


class BackupError(Exception):
    """A backup that cannot be made, read or put in place: says the file, what is wrong and what to do."""


class Member(NamedTuple):
    """One file of a backup."""

    name: str
    size: int
    sha256: str
    owner: str
    """Name of the user that the file belonged to."""
    mode: int


class Manifest(NamedTuple):
    format: int
    made: str
    """ISO 8601."""
    host: str
    members: tuple[Member, ...]


def make(config: Config, configuration: Path | None, target: Path) -> tuple[Path, Manifest]:
    """Write a backup; `target` is a directory, or a file that is not there yet. Gives where it is.

    Raises BackupError, and leaves nothing behind.
    """
    now = datetime.now(UTC)
    host = socket.gethostname()
    if target.is_dir():
        target /= f"sidecar-{host}-{now:%Y%m%dT%H%M%SZ}.tar"
    if target.exists():
        raise BackupError(f"{target}: is there already; name another file, or a directory")
    if not config.core_database.exists():
        raise BackupError(f"{config.core_database}: no store to back up; see store.path")
    with _told(target), tempfile.TemporaryDirectory(prefix=".sidecar-backup-", dir=target.parent) as place:
        members = tuple(_copied(config, configuration, Path(place)))
        manifest = Manifest(FORMAT, now.isoformat(timespec="seconds"), host, members)
        packed = _pack(manifest, Path(place))
        packed.replace(target)
        _sync(target.parent)
    return target, manifest


def _copied(config: Config, configuration: Path | None, place: Path) -> Iterator[Member]:
    """Copy all that there is, in an order that keeps the copies true to each other."""
    for path, name in _sources(config, configuration):
        copy = place / name
        copy.parent.mkdir(mode=0o700, exist_ok=True)
        if name in {CORE, OUTSIDE}:
            copy_database(path, copy)
        else:
            shutil.copyfile(path, copy, follow_symlinks=True)
        status = path.stat()
        with copy.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield Member(name, copy.stat().st_size, digest, _owner(status.st_uid), status.st_mode & 0o777)


def _sources(config: Config, configuration: Path | None) -> Iterator[tuple[Path, str]]:
    """Existing files. The record last: an id held after the store was copied is found by it, one let go is missed on hold."""
    rules = Path(config.rules.directory) if config.rules.directory else None
    given = [
        *([(configuration, CONFIGURATION)] if configuration else []),
        *((path, RULES + path.name) for path in (sorted(rules.iterdir()) if rules else ()) if path.is_file()),
        (config.suppression_key, KEY),
        (config.outside_database, OUTSIDE),
        (config.core_database, CORE),
        (config.held_record, RECORD),
    ]
    return ((path, name) for path, name in given if path.exists())


def copy_database(path: Path, copy: Path) -> None:
    """Copy a store as of one moment, while its process goes on writing; the copy is one file and is checked.

    Raises BackupError.
    """
    # Read only, and whatever its schema: a backup is what one makes before a new version begins.
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        with (
            contextlib.closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT)) as source,
            contextlib.closing(sqlite3.connect(copy)) as made,
        ):
            source.backup(made)  # all in one step: in slices it would begin anew with each write of the other process
            found = made.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                raise BackupError(f"{path}: damaged: {found[0]}; core sets it aside at its next start")
            made.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"{path}: cannot be copied: {error}") from error


def _pack(manifest: Manifest, place: Path) -> Path:
    packed = place / "packed.tar"
    text = json.dumps(
        {**manifest._asdict(), "members": [member._asdict() for member in manifest.members]}, indent=1
    ).encode()
    listed = place / MANIFEST
    listed.write_bytes(text)
    with packed.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)  # addresses, and the key of their digests
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in (MANIFEST, *(member.name for member in manifest.members)):
                tar.add(place / name, arcname=name, recursive=False, filter=_plain)
        file.flush()
        os.fsync(file.fileno())
    return packed


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Who owned it stands in the manifest; unpacked by hand it is for the one who does it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def unpack(file: Path, place: Path) -> Manifest:
    """Unpack a backup into an empty directory, every file as its checksum says. Raises BackupError."""
    with _told(file):
        try:
            with tarfile.open(file, mode="r:") as tar:
                manifest = _manifest(file, tar)
                for member in manifest.members:
                    _unpack_one(file, tar, member, place)
        except tarfile.TarError as error:
            raise BackupError(f"{file}: no backup of ours, or cut off: {error}") from error
    return manifest


def _manifest(file: Path, tar: tarfile.TarFile) -> Manifest:
    first = tar.next()
    content = tar.extractfile(first) if first is not None and first.name == MANIFEST and first.isreg() else None
    if content is None:
        raise BackupError(f"{file}: no backup of ours: it does not begin with {MANIFEST}")
    try:
        read = json.loads(content.read(1 << 22))
        members = tuple(Member(**{name: each[name] for name in Member._fields}) for each in read["members"])
        manifest = Manifest(int(read["format"]), str(read["made"]), str(read["host"]), members)
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{file}: {MANIFEST} cannot be read: {error!r}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{file}: format {manifest.format}, this sidecar knows {FORMAT}; use the one that made it")
    for member in members:
        if not _is_ours(member.name):
            raise BackupError(f"{file}: {member.name!a} belongs in no backup of ours; nothing was put in place")
    return manifest


def _is_ours(name: str) -> bool:
    """Whether a member may be unpacked: its name is a path, and the archive may be anybody's."""
    rule = name.removeprefix(RULES)
    plain = rule != name and "/" not in rule and "\0" not in rule and rule not in {"", ".", ".."}
    return plain or name in {CORE, OUTSIDE, KEY, RECORD, CONFIGURATION}


def _unpack_one(file: Path, tar: tarfile.TarFile, member: Member, place: Path) -> None:
    try:
        content = tar.extractfile(member.name)
    except KeyError:
        content = None
    if content is None:
        raise BackupError(f"{file}: {member.name} is missing, though the manifest names it: not a whole backup")
    copy = place / member.name
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    with content, copy.open("xb") as unpacked:
        os.fchmod(unpacked.fileno(), 0o600)
        shutil.copyfileobj(content, unpacked, 1 << 20)
        unpacked.flush()
        os.fsync(unpacked.fileno())
    with copy.open("rb") as unpacked:
        digest = hashlib.file_digest(unpacked, "sha256").hexdigest()
    if digest != member.sha256:
        raise BackupError(
            f"{file}: {member.name} is not what it was when the backup was made (SHA-256); use another one"
        )


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupError(f"{error.filename or path}: {error.strerror}") from error

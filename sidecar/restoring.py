"""A backup put in place on this host: what is there already is set aside, and nothing is lost by it.

Refuses while core or the outside process run. A helper's record that is there stays: it is true, the backup's is old.
"""

import contextlib
import os
import pwd
import socket
import sqlite3
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from sidecar import outside_store, statements
from sidecar.backup import CONFIGURATION, CORE, KEY, OUTSIDE, RECORD, RULES, BackupError, Manifest, unpack
from sidecar.config import DEFAULT_PATH, Config, ConfigError, load
from sidecar.database import Schema

_SCHEMAS: Final = {CORE: statements.SCHEMA, OUTSIDE: outside_store.SCHEMA}


class Restored(NamedTuple):
    manifest: Manifest
    put: list[Path]
    aside: list[Path]
    kept: list[Path]
    """Files of this host that stay, though the backup has them, too."""


def check(file: Path) -> Manifest:
    """Read a backup through, and put nothing in place. Raises BackupError."""
    with tempfile.TemporaryDirectory(prefix="sidecar-backup-") as place:
        manifest = unpack(file, Path(place))
        _check_stores(file, Path(place))
    return manifest


def restore(file: Path, config: Config, configuration: Path | None, *, force: bool) -> Restored:
    """Put a backup in place; `configuration`: the file that `config` is from, None where this host has none yet.

    The host then gets the configuration of the backup, and by it is known where the rest belongs.
    Raises BackupError, and nothing is changed.
    """
    with tempfile.TemporaryDirectory(prefix="sidecar-restore-", dir=_near(config)) as directory:
        place = Path(directory)
        manifest = unpack(file, place)
        _check_stores(file, place)
        fresh = configuration is None and (place / CONFIGURATION).exists()
        if fresh:
            try:
                config = load(place / CONFIGURATION)
            except ConfigError as error:
                raise BackupError(f"{file}: its configuration is not one for this sidecar: {error}") from error
        _refuse_if_running(config)
        there = [path for path in (config.core_database, config.outside_database) if path.exists()]
        if there and not force:
            raise BackupError(f"{there[0]}: there is a store already; --force sets it aside and uses the backup's")
        return _put(manifest, config, place, fresh=fresh)


def _near(config: Config) -> Path | None:
    """Where there is room for the stores, if there is such a place yet."""
    path = Path(config.store.path)
    return path if path.is_dir() else None


def _check_stores(file: Path, place: Path) -> None:
    if not (place / CORE).exists():
        raise BackupError(f"{file}: it has no {CORE}; wanted a backup of a whole sidecar")
    for name, schema in _SCHEMAS.items():
        if (place / name).exists():
            _check_store(file, place / name, schema)


def _check_store(file: Path, path: Path, schema: Schema) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"{file}: {path.name} is no sound store: {error}") from error
    known = len(schema.migrations())
    if version > known:
        raise BackupError(
            f"{file}: {path.name} is of a newer sidecar (schema {version}, this one knows {known}); install that one"
        )
    if found != "ok":
        raise BackupError(f"{file}: {path.name} is damaged: {found}")


def _refuse_if_running(config: Config) -> None:
    """Not asked of the helper's socket: systemd would start it."""
    for path, process in ((config.control_socket, "core"), (config.outside_socket, "outside")):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection, contextlib.suppress(OSError):
            connection.settimeout(5.0)
            connection.connect(str(path))
            raise BackupError(
                f"{path}: {process} runs; stop it first (systemctl stop sidecar-{process}), start it again afterwards"
            )


def _put(manifest: Manifest, config: Config, place: Path, *, fresh: bool) -> Restored:
    """The record and the key first: a store without them would be misread."""
    done = Restored(manifest, [], [], [])
    _directory(config, manifest)
    keeping = [(RECORD, config.held_record)]
    if fresh:
        keeping.append((CONFIGURATION, DEFAULT_PATH))
    if config.rules.directory:
        names = [member.name for member in manifest.members if member.name.startswith(RULES)]
        keeping += [(name, Path(config.rules.directory) / name.removeprefix(RULES)) for name in names]
    for name, path in keeping:
        if (place / name).exists():
            if path.exists():
                done.kept.append(path)
            else:
                _move(place / name, path, done, mode=_mode(manifest, name))
    for name, path in ((KEY, config.suppression_key), (OUTSIDE, config.outside_database), (CORE, config.core_database)):
        if (place / name).exists():
            _set_aside(path, done)
            _move(place / name, path, done, mode=_mode(manifest, name), owner=Path(config.store.path).stat())
    config.suppression_index.unlink(missing_ok=True)  # made of core.db, and of another one now
    return done


def _directory(config: Config, manifest: Manifest) -> None:
    """Make the directory of the stores where it is missing, for whom the store belonged to."""
    directory = Path(config.store.path)
    if directory.is_dir():
        return
    directory.mkdir(mode=0o750, parents=True)
    owner = next((member.owner for member in manifest.members if member.name == CORE), "")
    with contextlib.suppress(KeyError):
        if os.geteuid() == 0 and owner:
            entry = pwd.getpwnam(owner)
            os.chown(directory, entry.pw_uid, entry.pw_gid)


def _set_aside(path: Path, done: Restored) -> None:
    """Rename a file, and what SQLite keeps beside it, to the first free name NAME.before-restore-N."""
    parts = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "")]
    if not any(part.exists() for part in parts):
        return
    number = 1
    while (aside := path.with_name(f"{path.name}.before-restore-{number}")).exists():
        number += 1
    for part in parts:  # a write-ahead log without its store, too: it would be taken for the new one's
        with contextlib.suppress(FileNotFoundError):
            part.rename(aside.with_name(aside.name + part.name.removeprefix(path.name)))
    done.aside.append(aside)


def _move(source: Path, path: Path, done: Restored, *, mode: int, owner: os.stat_result | None = None) -> None:
    """Put a file in place whole, across file systems, too."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.restoring")
    fresh.unlink(missing_ok=True)
    with source.open("rb") as content, fresh.open("xb") as file:
        os.fchmod(file.fileno(), mode)
        if owner is not None and os.geteuid() == 0:
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        while piece := content.read(1 << 20):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    done.put.append(path)


def _mode(manifest: Manifest, name: str) -> int:
    """As it was, without the right of others to write."""
    return next(member.mode for member in manifest.members if member.name == name) & 0o755

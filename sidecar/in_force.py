"""The part of the configuration that the failsafe needs, as it was when the queue helper began: beside the record.

The failsafe goes by it when the configuration is broken, which must not keep anybody's mail on hold.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from sidecar.config import DEFAULT_PATH, Config
from sidecar.toml_table import ConfigError, read_table

NAME: Final = "in-force.json"
_LONGEST: Final = 1 << 16
_PATH: Final = re.compile(r"""["'](/[^"'\n]{1,1000})["']""")


def write(config: Config) -> None:
    """Keep it in the directories of the store and of the sockets. Raises OSError where that fails in both.

    Only root's file is believed later, for it says which commands root is going to run; so the queue helper calls this.
    """
    text = json.dumps(_needed(config)) + "\n"
    errors = []
    for directory in _places(config):
        try:
            _put(directory / NAME, text)
        except OSError as error:
            errors.append(error)
    if len(errors) == len(_places(config)):
        raise errors[0]


def recover(broken: Path | None, error: ConfigError) -> Config:
    """Give what was in force before a configuration was broken, else the defaults; says on standard error which."""
    click.echo(f"sidecar: {error}", err=True)
    found = sorted(_found(broken or DEFAULT_PATH), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        try:
            config = _read(path)
        except ConfigError as unusable:
            click.echo(f"sidecar: {unusable}", err=True)
            continue
        click.echo(f"sidecar: GOING BY {path}: what was in force when the queue helper began", err=True)
        return config
    config = Config()
    click.echo(
        f"sidecar: GOING BY THE DEFAULTS: record {config.held_record}, Postfix {config.postfix.config_directory}",
        err=True,
    )
    return config


def _needed(config: Config) -> dict[str, object]:
    """In the shape of the configuration file."""
    return {
        "runtime_directory": str(Path(config.runtime_directory).absolute()),
        "log": {"source": config.log.source, "syslog_names": list(config.log.syslog_names)},
        "store": {"path": str(Path(config.store.path).absolute())},
        "postfix": {"config_directory": str(Path(config.postfix.config_directory).absolute())},
        "subqueues": {
            "failsafe_after_minutes": config.subqueues.failsafe_after_minutes,
            "scale": config.subqueues.scale,
        },
    }


def _places(config: Config) -> tuple[Path, Path]:
    return Path(config.store.path), Path(config.runtime_directory)


def _put(path: Path, text: str) -> None:
    """Whole or not at all; the directory may be another user's."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _found(broken: Path) -> Iterator[Path]:
    """Files of that name that may be believed: in the usual directories, and in all that the broken file speaks of."""
    try:
        text = broken.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    directories = {*_places(Config()), *map(Path, _PATH.findall(text))}
    for directory in directories:
        with contextlib.suppress(OSError):
            if _trusted((directory / NAME).lstat()):
                yield directory / NAME


def _trusted(status: os.stat_result) -> bool:
    """Root's or our own, and no other's to write."""
    own = status.st_uid in {0, os.geteuid()}
    return stat.S_ISREG(status.st_mode) and own and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read(path: Path) -> Config:
    """Raises ConfigError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not _trusted(os.fstat(file.fileno())):
                raise ConfigError(f"{path}: not root's any more; wanted the queue helper's own")
            table = json.loads(file.read(_LONGEST))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}; wanted what the queue helper writes") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: found {table!r:.40}, wanted an object")
    return read_table(Config, table, file=path)

"""`sidecar backup` and `sidecar restore`: what they were told to do, and what came of it, for people."""

import json
from pathlib import Path

import click

from sidecar import backup as making
from sidecar import restoring
from sidecar.backup import Manifest
from sidecar.config import DEFAULT_PATH, Config


@click.command(epilog="Example: sidecar backup /var/backups")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def backup(context: click.Context, *, target: Path, as_json: bool) -> None:
    """Write both stores, the key of the suppression list, the helper's record and the configuration into one tar file.

    TARGET is a directory, or a file that is not there yet. Everything may go on running. The file holds addresses and
    the key: it is readable for its owner alone. Secrets of feeds and channels are not in it.
    """
    path, manifest = making.make(context.obj, _configuration(context), target)
    if as_json:
        click.echo(json.dumps({"file": str(path), **_as_object(manifest)}))
    else:
        click.echo(f"{path}: {_said(manifest)}")


@click.command(epilog="Example: sidecar restore /var/backups/sidecar-mx1-20261122T031500Z.tar")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Where there is a store already: set it aside.")
@click.option("--check", "only_check", is_flag=True, help="Read it through, and put nothing in place.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def restore(context: click.Context, *, file: Path, force: bool, only_check: bool, as_json: bool) -> None:
    """Put a backup in place, while the sidecar does not run.

    A host without a configuration gets the backup's. The helper's record of this host, if there is one, stays: it
    knows better what is on hold here. docs/backup.md says what to do about the queue and the log.
    """
    if only_check:
        manifest = restoring.check(file)
        click.echo(json.dumps(_as_object(manifest)) if as_json else f"{file}: sound; {_said(manifest)}")
        return
    config: Config = context.obj
    done = restoring.restore(file, config, _configuration(context), force=force)
    said = {name: [str(path) for path in getattr(done, name)] for name in ("put", "aside", "kept")}
    if as_json:
        click.echo(json.dumps({**_as_object(done.manifest), **said}))
        return
    for verb, name in (("put in place", "put"), ("set aside as", "aside"), ("kept as it is", "kept")):
        for path in said[name]:
            click.echo(f"{verb}: {path}")


def _configuration(context: click.Context) -> Path | None:
    """The file that the configuration is from; None for the defaults."""
    given: Path | None = context.find_root().params["config_path"]
    return given or (DEFAULT_PATH if DEFAULT_PATH.exists() else None)


def _as_object(manifest: Manifest) -> dict[str, object]:
    return {**manifest._asdict(), "members": [member._asdict() for member in manifest.members]}


def _said(manifest: Manifest) -> str:
    names = ", ".join(f"{member.name} ({member.size} bytes)" for member in manifest.members)
    return f"of {manifest.host}, {manifest.made}: {names}"

"""`sidecar rules`: are the rules for replies sound, and what would rules from elsewhere be here.

Reads and writes files; what makes a rule sound, and how one is carried over, is `policies`' business.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from policies.rules import RuleError
from sidecar.config import Config, ConfigError
from sidecar.rules import admin_files, lint_files, packaged, packaged_files


@click.group("rules", epilog="Example: sidecar rules lint")
def rules() -> None:
    """Rules for replies: lint yours, import those of other mail servers."""


@rules.command("lint", epilog="Example: sidecar rules lint /etc/sidecar/rules")
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The faults as one JSON list.")
@click.pass_obj
def lint_command(config: Config, paths: tuple[Path, ...], *, as_json: bool) -> None:
    """Say which rules are dead, shadowed, out of reach, or do not what their examples promise.

    PATHS are files or directories that would be the admin's. Without them, the rules that come with the package are
    looked at, and those of rules.directory before them; the same checks are made when core loads these.

    Exit status 1 where there is any fault.
    """
    texts = {} if paths else dict(packaged_files())
    _, faults = lint_files(texts)
    directories = paths or ((Path(config.rules.directory),) if config.rules.directory else ())
    own = dict(file for path in directories for file in _files(path))
    _, found = lint_files(own, packaged())
    faults += found
    if as_json:
        click.echo(json.dumps([_as_json(fault) for fault in faults]))
    else:
        for fault in faults:
            click.echo(fault)
        click.echo(_summary({**own, **texts}, faults))
    if faults:
        click.get_current_context().exit(1)


def _files(path: Path) -> Iterable[tuple[str, str]]:
    if path.is_dir():
        return admin_files(path)
    try:
        return [(str(path), path.read_text(encoding="utf-8"))]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _as_json(fault: RuleError) -> dict[str, Any]:
    return {
        "file": fault.file,
        "line": fault.line,
        "rule": fault.rule,
        "key": fault.key,
        "kind": fault.kind,
        "problem": fault.problem,
        "remedy": fault.remedy,
    }


def _summary(texts: Mapping[str, str], faults: list[RuleError]) -> str:
    files = f"{len(texts)} file{'s' * (len(texts) != 1)}"
    return f"{files}: {len(faults)} fault{'s' * (len(faults) != 1)}" if faults else f"{files}: no fault"

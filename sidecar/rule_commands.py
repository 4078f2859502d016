"""`sidecar rules`: are the rules for replies sound, and what would rules from elsewhere be here.

Reads and writes files; what makes a rule sound, and how one is carried over, is `policies`' business.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from policies.foreign_rules import FormatError
from policies.rule_import import LONGEST, Imported, Line, Outcome, import_rules
from policies.rules import RuleError
from sidecar.config import Config, ConfigError
from sidecar.rules import admin_files, lint_files, organizational_domain, packaged, packaged_files


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


@rules.command("import", epilog="Example: sidecar rules import shaping.toml --output /etc/sidecar/rules")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Write files here, not to stdout.")
@click.option("--suppress", is_flag=True, help="Let imported rules suppress recipients.")
@click.option("--only-unknown", is_flag=True, help="Leave out what the rules here read already.")
@click.option("--json", "as_json", is_flag=True, help="Report and files as one JSON object on stdout.")
def import_command(
    files: tuple[Path, ...], output: Path | None, *, suppress: bool, only_unknown: bool, as_json: bool
) -> None:
    """Write the rules of another mail server as ours, and say what could not be carried over.

    FILES are KumoMTA's shaping.toml or files of its bounce classes (iana.toml), as TOML or JSON, or a PowerMTA
    configuration with <smtp-pattern-list> or <bounce-category-patterns>. Give those that are laid over each other
    together, in their order. What is written passes `rules lint`.

    The report, on stderr, names each rule that was left out and why, and those that can never match or that an
    earlier one shadows where they come from.
    """
    texts = dict(each for file in files for each in _files(file))
    for name, text in texts.items():
        if len(text) > LONGEST:
            raise ConfigError(f"{name}: {len(text)} characters; wanted at most {LONGEST}")
    try:
        imported = import_rules(texts, packaged(), organizational_domain, suppress=suppress, only_unknown=only_unknown)
    except FormatError as error:
        raise ConfigError(str(error)) from error
    if output is not None:
        _write(output, imported)
    if as_json:
        click.echo(json.dumps(_imported_json(imported)))
        return
    if output is None:
        for name, rules_text in imported.files.items():
            click.echo(f"# --- {name}\n{rules_text}")
    for line in imported.report:
        click.echo("\n".join(_told(line)), err=True)
    counts = {outcome: sum(line.outcome is outcome for line in imported.report) for outcome in Outcome}
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    click.echo(f"{len(imported.report)} patterns: {told or 'none'}", err=True)


def _write(directory: Path, imported: Imported) -> None:
    """Write new files; one that is there is an admin's and stays."""
    if there := [name for name in imported.files if (directory / name).exists()]:
        raise ConfigError(f"{directory / there[0]}: is there already; move it away, or choose another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in imported.files.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written: {error.strerror}") from error


def _imported_json(imported: Imported) -> dict[str, Any]:
    return {
        "rules": [line._asdict() for line in imported.report],
        "files": imported.files,
    }


def _told(line: Line) -> Iterator[str]:
    what = f"{line.source}:{line.line}: {line.outcome}: /{line.pattern}/ {line.action}"
    yield f"{what}: {line.why}" if line.why else f"{what} -> {line.rule}"
    yield from (f"    {remark}" for remark in line.remarks)
    if line.ours:
        yield f"    without it, such replies are {line.ours}"


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

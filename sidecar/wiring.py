"""`sidecar postfix`: the wiring of main.cf and master.cf shown, applied, and taken out again.

Writes through postconf alone, tries every change on a copy first, and keeps what it changed beside the
configuration, where only root may write.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from sidecar import failsafe, postfix, postfix_configuration, qmgr, wiring_plan
from sidecar.config import Config, ConfigError, Mode
from sidecar.postfix import Instance, PostfixError
from sidecar.postfix_configuration import Configuration
from sidecar.transports import LANES
from sidecar.wiring_plan import DIRECTORY, Edit, Place, Plan

UNDO = "undo.json"

SILENT_FOR = 60.0
"""Seconds without a heartbeat after which core is taken for stopped: it gives one every few seconds."""

_FLAGS = {Place.SERVICE: ("-Me", "-MX"), Place.OVERRIDE: ("-Pe", "-PX"), Place.MAIN: ("-e", "-X")}
"""postconf's option to set and to take out, by place. In this order: main.cf last, for whatever reads it
within two seconds of a change waits until they are over (dict_load_file_xt in dict.c)."""

_STAND_IN = "sidecar-stand-in"


class WiringError(Exception):
    """The wiring cannot be changed: says what was tried, what came of it and what is as before."""


class Undo(NamedTuple):
    """What was applied: the edits, each with the value from before the first of them, and our files."""

    edits: tuple[Edit, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def services(self) -> frozenset[str]:
        """Entries of master.cf that we made."""
        return frozenset(edit.name for edit in self.edits if edit.place is Place.SERVICE)


def read_undo(instance: Instance) -> Undo:
    """Read what was applied to an instance; empty where nothing was. Raises WiringError."""
    path = instance.config_directory / DIRECTORY / UNDO
    try:
        table = json.loads(path.read_text())
        edits = tuple(Edit(Place(place), name, before, after) for place, name, before, after in table["edits"])
        return Undo(edits, tuple(table["files"]))
    except FileNotFoundError:
        return Undo()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WiringError(
            f"{path}: not what `postfix apply` wrote ({error}); move it away: remove then takes out what is plainly ours"
        ) from error


def apply(instance: Instance, plan: Plan) -> list[str]:
    """Carry a plan out and note how to undo it; gives what is to be said. Nothing is changed where it fails.

    Raises WiringError and PostfixError.
    """
    if plan.refused:
        raise WiringError("; ".join(plan.refused))
    before = read_undo(instance)
    place = instance.config_directory / DIRECTORY
    files = {name: text for name, text in plan.files.items() if _text(place / name) != text}
    if not plan.edits and not files:
        return ["wired already: nothing to change"]
    rehearse(instance, plan.edits, plan.files)
    place.mkdir(mode=0o755, exist_ok=True)
    for name in ("main.cf", "master.cf"):
        if not before.edits:  # the first backup is the one from before us
            shutil.copy2(instance.config_directory / name, place / f"{name}.before")
    _write_undo(instance, _merged(before, plan))
    with _restored_on_failure(instance):
        for name, text in files.items():
            (place / name).write_text(text)
        write(instance.config_directory, plan.edits)
    return [*(f"{edit.place}: {_said(edit)}" for edit in plan.edits), *_reloaded(instance)]


def remove(instance: Instance, site: Configuration) -> list[str]:
    """Take the wiring out; transports stay while mail is queued that may be routed onto them.

    Raises WiringError and PostfixError.
    """
    undo = read_undo(instance)
    waiting = next(postfix.queued(instance), None) is not None
    edits, notes = wiring_plan.removal(site, undo.edits, transports=not waiting)
    rehearse(instance, edits, {})
    with _restored_on_failure(instance):
        write(instance.config_directory, edits)
    kept = tuple(edit for edit in undo.edits if edit.place is Place.SERVICE) if waiting else ()
    _clean(instance, undo, kept)
    if kept:
        names = ", ".join(edit.name for edit in kept)
        notes.append(
            f"mail is queued, and some may be routed onto {names}: these stay; run this again when it has left"
        )
    if not edits:
        return ["nothing of ours is wired", *notes]
    return [*(f"{edit.place}: {_said(edit)}" for edit in edits), *notes, *_reloaded(instance)]


def rehearse(instance: Instance, edits: Sequence[Edit], files: Mapping[str, str]) -> None:
    """Make the edits in a copy and have Postfix check it. Raises WiringError for a complaint that is new."""
    known = {line.strip() for line in postfix.check(instance.config_directory)}
    with tempfile.TemporaryDirectory(prefix="postfix-") as temporary:
        copy = Path(temporary) / "postfix"
        shutil.copytree(instance.config_directory, copy, ignore_dangling_symlinks=True)
        (copy / DIRECTORY).mkdir(exist_ok=True)
        for name, text in files.items():
            (copy / DIRECTORY / name).write_text(text)
        postfix.edit(copy, "-e", "multi_instance_wrapper=", "multi_instance_directories=")  # this one alone
        _cool(copy)
        write(copy, edits)
        _cool(copy)
        said = [line.strip().replace(str(copy), str(instance.config_directory)) for line in postfix.check(copy)]
    new = [line for line in said if line not in known]
    if new:
        raise WiringError(f"on a copy, Postfix says: {' / '.join(new)}; nothing is changed")


def _cool(config_directory: Path) -> None:
    """Make a copy's main.cf look older, so that Postfix does not wait for it to settle."""
    os.utime(config_directory / "main.cf", (0, 0))


def write(config_directory: Path, edits: Sequence[Edit]) -> None:
    """Make edits through postconf, each kind in one go. Raises PostfixError."""
    for place, (setting, taking_out) in _FLAGS.items():
        chosen = [edit for edit in edits if edit.place is place]
        blank = [edit for edit in chosen if place is Place.OVERRIDE and edit.after and set(edit.after) & set(" \t")]
        values = [f"{edit.name}={edit.after}" for edit in chosen if edit.after is not None and edit not in blank]
        if values:
            postfix.edit(config_directory, setting, *values)
        if names := [edit.name for edit in chosen if edit.after is None]:
            postfix.edit(config_directory, taking_out, *names)
        for edit in blank:
            _write_with_blanks(config_directory, edit)


def _write_with_blanks(config_directory: Path, edit: Edit) -> None:
    """An override that has blanks, which postconf -P does not take: as `-o {name=value}` of the whole entry."""
    service, _, name = edit.name.rpartition("/")
    postfix.edit(config_directory, "-Pe", f"{edit.name}={_STAND_IN}")
    line = next(line for line in postfix.services(config_directory) if f"-o {name}={_STAND_IN}" in line)
    with_value = line.replace(f"-o {name}={_STAND_IN}", f"-o {{{name}={edit.after}}}")
    postfix.edit(config_directory, "-Me", f"{service}={with_value}")


def show(plan: Plan) -> Iterator[str]:
    """A plan as the lines that it would add or change, for people."""
    for why in plan.refused:
        yield f"refused: {why}"
    for note in plan.notes:
        yield f"note: {note}"
    for place in Place:
        edits = [edit for edit in plan.edits if edit.place is place]
        if edits:
            yield f"# {place}"
        for edit in edits:
            if edit.before is not None:
                yield f"#   was: {edit.before if place is Place.SERVICE else f'{edit.name} = {edit.before}'}"
            yield _said(edit)
    for name, text in plan.files.items():
        yield f"# {DIRECTORY}/{name}"
        yield text.rstrip("\n")
    if not plan.edits:
        yield "# main.cf and master.cf are wired already"


def _said(edit: Edit) -> str:
    if edit.after is None:
        return f"{edit.name}: taken out"
    return edit.after if edit.place is Place.SERVICE else f"{edit.name} = {edit.after}"


@contextlib.contextmanager
def _restored_on_failure(instance: Instance) -> Iterator[None]:
    """Put main.cf and master.cf back as they were where an edit fails half-way."""
    names = ("main.cf", "master.cf")
    kept = {name: (instance.config_directory / name).read_bytes() for name in names}
    try:
        yield
    except (PostfixError, OSError) as error:
        for name, data in kept.items():
            (instance.config_directory / name).write_bytes(data)
        raise WiringError(f"{error}; main.cf and master.cf are as before") from error


def _merged(before: Undo, plan: Plan) -> Undo:
    """The undo after another apply: what stood there before the first one stays on record."""
    first = {(edit.place, edit.name): edit.before for edit in before.edits}
    edits = {(edit.place, edit.name): edit for edit in before.edits}
    for edit in plan.edits:
        key = (edit.place, edit.name)
        edits[key] = edit._replace(before=first.get(key, edit.before))
    return Undo(tuple(edits.values()), tuple(sorted({*before.files, *plan.files})))


def _write_undo(instance: Instance, undo: Undo) -> None:
    place = instance.config_directory / DIRECTORY
    fresh = place / f"{UNDO}.new"
    table = {"written": round(time.time()), "edits": [list(edit) for edit in undo.edits], "files": undo.files}
    fresh.write_text(json.dumps(table, indent=1) + "\n")
    fresh.rename(place / UNDO)


def _clean(instance: Instance, undo: Undo, kept: tuple[Edit, ...]) -> None:
    """Delete our files; what is kept in master.cf stays on record."""
    place = instance.config_directory / DIRECTORY
    for name in undo.files:
        (place / name).unlink(missing_ok=True)
    if kept:
        _write_undo(instance, Undo(kept))
        return
    for name in (UNDO, "main.cf.before", "master.cf.before"):
        (place / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # an admin's own files are there, or it never was
        place.rmdir()


def _reloaded(instance: Instance) -> list[str]:
    if qmgr.master(instance) is None:
        return ["Postfix is stopped: this counts from its next start"]
    postfix.reload(instance)
    return ["Postfix reloaded"]


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


class Chosen(NamedTuple):
    """What the options of the group say."""

    config: Config
    directory: Path
    name: str

    def instance(self) -> Instance:
        """The instance meant; the first of the configuration where none is named. Raises PostfixError."""
        known = postfix.instances(self.directory)
        return postfix.find(known, self.name) if self.name else known[0]


@click.group("postfix", epilog="Example: sidecar postfix show")
@click.option(
    "--config-directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Another configuration directory of Postfix than postfix.config_directory.",
)
@click.option("--instance", "name", default="", help="One of several instances, by the name in its log lines.")
@click.pass_context
def postfix_command(context: click.Context, config_directory: Path | None, name: str) -> None:
    """Wire main.cf and master.cf, so that Postfix asks the sidecar; or take that out again.

    Exit status: 0; 1 when Postfix complains; 2 when this site must not be wired, and why.
    """
    assert isinstance(context.obj, Config)
    directory = config_directory or Path(context.obj.postfix.config_directory)
    context.obj = Chosen(context.obj, directory.absolute(), name)


@postfix_command.command("show", epilog="Example: sidecar postfix show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--headers/--no-headers", default=True, help="Log From, DKIM-Signature and campaign headers.")
@click.option("--lanes", type=click.IntRange(0, 99), default=LANES, show_default=True, help="Lane transports.")
@click.pass_obj
def show_command(chosen: Chosen, *, as_json: bool, headers: bool, lanes: int) -> None:
    """Say what `apply` would change; changes nothing."""
    with _told():
        plan = _planned(chosen, chosen.instance(), headers=headers, lanes=lanes)
    if as_json:
        click.echo(json.dumps(_table(plan)))
    else:
        for line in show(plan):
            click.echo(line)
    raise SystemExit(2 if plan.refused else 0)


@postfix_command.command("apply", epilog="Example: sidecar postfix --instance postfix-out apply")
@click.option("--headers/--no-headers", default=True, help="Log From, DKIM-Signature and campaign headers.")
@click.option("--lanes", type=click.IntRange(0, 99), default=LANES, show_default=True, help="Lane transports.")
@click.pass_obj
def apply_command(chosen: Chosen, *, headers: bool, lanes: int) -> None:
    """Change main.cf and master.cf, after a rehearsal on a copy; running it again changes nothing more."""
    with _told():
        instance = chosen.instance()
        plan = _planned(chosen, instance, headers=headers, lanes=lanes)
        if plan.refused:
            raise ConfigError("\n".join(plan.refused))
        for note in (*plan.notes, *_nobody_listens(instance, chosen.config)):
            click.echo(f"note: {note}")
        for line in apply(instance, plan):
            click.echo(line)


@postfix_command.command("remove", epilog="Example: sidecar postfix remove")
@click.pass_obj
def remove_command(chosen: Chosen) -> None:
    """Release all mail of ours, then take the wiring out."""
    with _told():
        instance = chosen.instance()
        _release(chosen.config)
        for line in remove(instance, postfix_configuration.read(instance)):
            click.echo(line)


def _nobody_listens(instance: Instance, config: Config) -> Iterator[str]:
    endpoint = wiring_plan.endpoint_of(config)
    path = instance.queue_directory / endpoint.removeprefix("unix:")
    if endpoint.startswith("unix:") and not path.exists():
        yield f"{path} is not there yet; until it is, each question costs smtpd a second: start sidecar-policy.socket"


def _release(config: Config) -> None:
    """Give all our mail back first, for nobody would afterwards. Raises WiringError where some stays."""
    if config.mode is Mode.ACT and _core_lives(config):
        raise WiringError("core runs and would hold mail again: stop it first (systemctl stop sidecar-core)")
    report = failsafe.run(config, forced=True)
    for line in failsafe.say(report):
        click.echo(line)
    if report.state in {"incomplete", "locked"}:
        raise WiringError("not all mail of ours has left hold: run this again in a minute; nothing is changed")


def _core_lives(config: Config) -> bool:
    try:
        return time.time() - (Path(config.runtime_directory) / "heartbeat").stat().st_mtime < SILENT_FOR
    except OSError:
        return False


def _planned(chosen: Chosen, instance: Instance, *, headers: bool, lanes: int) -> Plan:
    site = postfix_configuration.read(instance)
    mine = read_undo(instance).services
    return wiring_plan.plan(site, chosen.config, mine=mine, headers=headers, lanes=lanes)


def _table(plan: Plan) -> dict[str, Any]:
    return {
        "edits": [edit._asdict() for edit in plan.edits],
        "files": dict(plan.files),
        "notes": plan.notes,
        "refused": plan.refused,
    }


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors as a line and an exit status."""
    try:
        yield
    except ConfigError as error:
        click.echo(f"postfix: {error}", err=True)
        raise SystemExit(2) from error
    except (WiringError, PostfixError, OSError) as error:
        click.echo(f"postfix: {error}", err=True)
        raise SystemExit(1) from error

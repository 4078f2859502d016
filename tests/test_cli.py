"""The program as a whole: its table of commands, its help, its configuration and its exit statuses."""

import ast
import importlib
import shlex
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sidecar import cli, config
from sidecar.config import Config, ConfigError, Mode
from sidecar.control import CoreRefused, CoreUnreachable

ROOT = Path(__file__).parents[1]


def test_every_row_of_the_table_is_a_command() -> None:
    for name, entry in cli.COMMANDS.items():
        command = cli.sidecar.get_command(click.Context(cli.sidecar), name)

        assert command is not None
        assert command.name == name
        assert entry.about.endswith(".")
        assert len(entry.about) <= 60


def test_every_command_is_in_the_table() -> None:
    found = set()
    for path in (ROOT / "sidecar").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                decorators = [ast.unparse(each).partition("(")[0] for each in node.decorator_list]
                if {"click.command", "click.group"} & set(decorators):
                    found.add(f"{module}:{node.name}")

    assert found - {"sidecar.cli:sidecar"} == {entry.where for entry in cli.COMMANDS.values()}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_has_an_example_that_the_command_understands(name: str) -> None:
    command = cli.sidecar.get_command(click.Context(cli.sidecar), name)
    below = command.commands if isinstance(command, click.Group) else {}
    for words in ([name], *([name, sub] for sub in below)):
        result = CliRunner().invoke(cli.sidecar, [*words, "--help"])

        assert result.exit_code == 0
        _, found, example = result.stdout.partition("Example: ")
        assert found, f"{words} --help has no example"
        for line in example.splitlines():
            for said in map(shlex.split, line.split("|")):
                if said[:1] == ["sidecar"]:
                    assert understood(said[1:])[: len(words)] == words


def understood(example: list[str]) -> list[str]:
    """Parse an example as the program would, without running it; gives the words of its command.

    Raises click.UsageError, but not for want of the files that it names.
    """
    command: click.Command = cli.sidecar
    context = command.make_context("sidecar", example)
    words = []
    while isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        assert name is not None
        words.append(name)
        try:
            command, context = found, found.make_context(name, rest, parent=context)
        except click.BadParameter as error:
            if "does not exist" not in error.message:
                raise
            return words
    return words


def test_help_of_the_program_names_every_command_and_imports_none() -> None:
    code = """
import sys
from sidecar.cli import COMMANDS, sidecar
try:
    sidecar(["--help"], prog_name="sidecar")
except SystemExit as ended:
    assert ended.code == 0
imported = {entry.where.partition(":")[0] for entry in COMMANDS.values()} & sys.modules.keys()
assert not imported, imported
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    for name, entry in cli.COMMANDS.items():
        assert f"  {name} " in shown
        assert entry.about in " ".join(shown.split())


def test_the_module_is_the_program() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "sidecar", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("Usage: sidecar [OPTIONS] COMMAND")


def test_every_error_of_the_table_exists() -> None:
    for name in cli.EXIT_STATUSES:
        module, _, error = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), error), Exception)


class Probe:
    """A command in the table's place: keeps the configuration it was given, and raises what it is told."""

    def __init__(self) -> None:
        self.given: list[Config] = []
        self.raises: Exception | None = None

    def __call__(self, given: Config) -> None:
        self.given.append(given)
        if self.raises:
            raise self.raises


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Probe:
    """Commands `configured` and `free`, and no configuration in the default place."""
    found = Probe()
    module = types.ModuleType("probe_commands")
    module.command = click.Command("probe", callback=click.pass_obj(found), help="A probe.")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "probe_commands", module)
    rows = {
        "configured": cli.Entry("probe_commands:command", "Reads it."),
        "free": cli.Entry("probe_commands:command", "Does not.", configured=False),
    }
    monkeypatch.setattr(cli, "COMMANDS", rows)
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "none.toml")
    return found


def test_a_command_is_given_the_configuration(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "sidecar.toml"
    path.write_text('mode = "act"\n')

    for words in (["--config", str(path), "configured"], ["--config", str(path), "free"], ["configured"], ["free"]):
        assert CliRunner().invoke(cli.sidecar, words).exit_code == 0
    assert [given.mode for given in probe.given] == [Mode.ACT, Mode.ACT, Mode.OBSERVE, Mode.OBSERVE]


def test_a_broken_configuration_is_told_in_a_line_and_nothing_runs(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "sidecar.toml"
    path.write_text('mood = "act"\n')
    result = CliRunner().invoke(cli.sidecar, ["--config", str(path), "configured"])

    assert result.exit_code == 2
    assert result.stderr == f"sidecar: {path}: mood: unknown key; did you mean mode?\n"
    assert probe.given == []


def test_a_broken_configuration_hides_no_help(probe: Probe, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.sidecar, ["--config", str(tmp_path / "none.toml"), "configured", "--help"])

    assert result.exit_code == 0
    assert "A probe." in result.stdout
    assert probe.given == []


def test_a_command_that_needs_no_configuration_runs_with_a_broken_one_in_the_default_place(
    probe: Probe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "sidecar.toml"
    path.write_text("mode = 17\n")
    monkeypatch.setattr(config, "DEFAULT_PATH", path)

    assert CliRunner().invoke(cli.sidecar, ["free"]).exit_code == 0
    assert CliRunner().invoke(cli.sidecar, ["configured"]).exit_code == 2
    assert probe.given == [Config()]


class SpecialError(ConfigError):
    """A kind of configuration error of its own."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("web.listen: in use"), 2),
        (SpecialError("of a kind"), 2),
        (CoreRefused("no such sub-queue"), 2),
        (CoreUnreachable("core does not run here"), 3),
    ],
)
def test_an_expected_error_is_one_line_and_an_exit_status(probe: Probe, error: Exception, status: int) -> None:
    probe.raises = error
    result = CliRunner().invoke(cli.sidecar, ["configured"])

    assert result.exit_code == status
    assert result.stderr == f"sidecar: {error}\n"
    assert result.stdout == ""


def test_a_bug_shows_itself(probe: Probe) -> None:
    probe.raises = ZeroDivisionError("held / 0")
    result = CliRunner().invoke(cli.sidecar, ["configured"])

    assert result.exception is probe.raises
    assert result.exit_code == 1


@pytest.mark.parametrize("words", [["nonsense"], [], ["--nonsense"], ["configured", "--nonsense"]])
@pytest.mark.usefixtures("probe")
def test_wrong_usage(words: list[str]) -> None:
    assert CliRunner().invoke(cli.sidecar, words).exit_code == 2

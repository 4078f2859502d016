"""Commands in the documents are commands that exist, and files they point at are there."""

import re
import shlex
from pathlib import Path

import click
import pytest

from sidecar import cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "postfix-conf").glob("*.md")),
    *sorted((ROOT / "monitoring").glob("*.md")),
]
COMMANDS = sorted(
    {
        line.split(" #")[0].split(" | ")[0].strip()
        for document in DOCUMENTS
        for block in re.findall(r"```\w*\n(.*?)```", document.read_text(), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("sidecar ")
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)[1:]
    context = click.Context(cli.sidecar)
    command: click.Command | None = cli.sidecar.get_command(context, words[0])
    assert command is not None, words[0]
    rest = words[1:]
    if isinstance(command, click.Group):
        command = command.get_command(context, rest.pop(0))
        assert command is not None, line
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in rest if word.startswith("--")} <= known


def test_there_are_documented_commands() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
def test_the_makefile_has_what_the_readme_promises(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)

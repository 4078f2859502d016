"""The regular expressions of the log grammar must mean the same on every Python that we say we run on."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("parsers/**/*.py"), *ROOT.glob("policies/**/*.py")])

# Python before 3.11.5, Debian 12's among them, loses its way in a possessive repeat of a group that itself has choices
# (cpython issue 106052). An atomic group around a plain repeat, (?>(?:...)*), says the same and works everywhere.
_POSSESSIVE_GROUP = re.compile(r"(?<!\\)\)(?:[*+?]|\{\d*,?\d*\})\+")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_group_is_repeated_possessively(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in lines if _POSSESSIVE_GROUP.search(line)] == []

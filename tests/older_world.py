"""The program as it was at earlier commits, where the history is at hand."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def at_hand(commits: Iterable[str]) -> list[str]:
    """Those that this clone has; a shallow one has none."""
    return [
        each
        for each in commits
        if subprocess.run(
            ["git", "cat-file", "-e", f"{each}^{{tree}}"], cwd=ROOT, capture_output=True, check=False
        ).returncode
        == 0
    ]


def unpacked(commit: str, folder: Path) -> Path:
    """Put the program of a commit into a folder that is not there yet."""
    archive = subprocess.run(
        ["git", "archive", commit, "sidecar", "policies", "parsers", "tests"], cwd=ROOT, capture_output=True, check=True
    )
    folder.mkdir()
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder

"""What must hold before any test says something about the sources."""

import pytest

from hatch_build import ROOT, SUFFIX, modules


def pytest_configure() -> None:
    """Python takes what was compiled, though the source beside it be newer."""
    sources = [ROOT / module for module in modules()]
    old = [
        path
        for path in sources
        if (made := path.with_suffix(SUFFIX)).exists() and made.stat().st_mtime < path.stat().st_mtime
    ]
    if old:
        pytest.exit(f"{old[0].relative_to(ROOT)} has changed since it was compiled: run make venv", returncode=4)

"""Importing this first has our own modules imported from their sources, whatever was compiled of them (hatch_build.py).

For what has to see their lines run, and to compare both: `python -m pytest -p benchmarks.sources`.
"""

import sys
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path
from typing import Final

_OURS: Final = tuple(str(Path(__file__).parents[1] / name) for name in ("parsers", "policies", "sidecar"))


def _sources_of(directory: str) -> FileFinder:
    if not directory.startswith(_OURS):
        raise ImportError(directory)
    return FileFinder(directory, (SourceFileLoader, [".py"]))


sys.path_hooks.insert(0, _sources_of)
sys.path_importer_cache.clear()

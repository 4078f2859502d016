"""What was compiled says the same as the sources, to the byte; and a working copy without it works."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import hatch_build
from benchmarks.mutation import log_lines
from hatch_build import ROOT, SUFFIX, compiled, modules
from tests.labelled import REPLIES

_RUN = "import sys; {first}from sidecar.cli import main; sys.argv[0] = 'sidecar'; main()"
_SOURCES = "import benchmarks.sources; "


def said(arguments: list[str], *, first: str = "", given: bytes | None = None) -> bytes:
    command = [sys.executable, "-c", _RUN.format(first=first), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, cwd=ROOT, check=False)
    assert done.returncode in {0, 1}, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("command", ["parse", "parse --stats --json", "parse --messages", "explain", "replay --json"])
def test_a_log_means_the_same(command: str, tmp_path: Path) -> None:
    log = tmp_path / "maillog"
    log.write_bytes(b"\n".join(log_lines()) + b"\n")
    arguments = [*command.split(), "--year", "2025", str(log)]
    found = said(arguments)
    assert len(found) > 300
    assert found == said(arguments, first=_SOURCES)


def test_replies_mean_the_same() -> None:
    replies = "".join(f"{row.logged()}\n" for row in REPLIES).encode()
    found = said(["classify"], given=replies)
    assert found.count(b"\n") > 400
    assert found == said(["classify"], first=_SOURCES, given=replies)


def test_what_is_of_a_module_that_has_left_the_list_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    left = tmp_path / "policies" / f"gone{SUFFIX}"
    left.parent.mkdir()
    left.touch()
    hatch_build.remove_all()
    assert not left.exists()


def test_the_version_tells() -> None:
    assert said(["--version"]).endswith(b", compiled\n") is compiled()[0].exists()
    assert said(["--version"], first=_SOURCES).endswith(b", not compiled\n")


def test_all_or_none_is_compiled() -> None:
    """Where there is no compiler there is none, and these tests still say that the sources are whole."""
    there = [path.exists() for path in compiled()]
    assert all(there) or not any(there)
    for module in modules():
        taken = importlib.import_module(module.removesuffix(".py").replace("/", ".")).__file__
        assert taken is not None
        assert taken.endswith(".py") is not there[0], module

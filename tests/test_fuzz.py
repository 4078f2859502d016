"""The short form of benchmarks/fuzz.py and benchmarks/soak_lines.py: a second of each target, some thousand lines."""

import json
import subprocess
import sys

import pytest

from benchmarks.fuzz import TARGETS, Found, Target, fuzz
from benchmarks.mutation import ROOT
from benchmarks.soak_lines import soak


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
def test_target_stands(name: str) -> None:
    command = [sys.executable, "benchmarks/fuzz.py", name, "1", "7"]  # by itself: it wants the sources
    assert json.loads(subprocess.check_output(command, cwd=ROOT))["pairs"] > 50


def test_mutated_lines_are_all_accounted_for() -> None:
    found = soak(30_000, 3)
    assert found["known"] > 5_000
    assert found["samples"] == found["unknown_names"] <= 1_001


def _falls_over_a_bracket(data: bytes) -> None:
    if b"[" in data and b"]" in data[data.index(b"[") :]:
        raise LookupError


def test_what_does_not_stand_is_found() -> None:
    with pytest.raises(Found, match="easy, seed 1: LookupError"):
        fuzz(Target("easy", _falls_over_a_bracket, lambda: [b"abc"]), 5.0, 1)

"""The ramp holds its bars against the hidden limits; the short form of benchmarks/ramp.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ramp import Drain, mean_over_base, missed, row
from benchmarks.ramp_models import CASES, Case

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("backlog", [3_000, 30_000])
def test_no_bar_is_missed(case: Case, backlog: int) -> None:
    limit = case.make(backlog)
    drained = Drain(limit, "ours", backlog=backlog, arrivals=0.0).run()
    assert list(missed(case, drained, limit.optimum(backlog), backlog)) == []


def test_on_the_whole_a_small_backlog_drains_soon() -> None:
    rows = [row(case, "ours", 3_000, arrivals=False) for case in CASES]
    assert mean_over_base(rows, 3_000) <= 1.3


@pytest.mark.parametrize("case", [case for case in CASES if case.limited][:4], ids=lambda case: case.name)
def test_mail_that_keeps_coming_does_not_starve(case: Case) -> None:
    drained = Drain(case.make(3_000), "ours", backlog=3_000, arrivals=case.rate / 2).run()
    assert drained.arrivals_p95 <= drained.backlog_p95
    assert drained.out_of_order == 0


def test_plain_suspension_fares_worse() -> None:
    ours, stop = (row(CASES[0], policy, 1_000, arrivals=False) for policy in ("ours", "stop"))
    assert ours["deferrals"] < stop["deferrals"] / 10


def test_any_other_model_can_be_tried(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text("class Mine:\n    def offer(self, now):\n        return int(now) % 600 < 60\n")
    command = [sys.executable, "benchmarks/ramp.py", "--model", f"{model}:Mine", "--backlog", "500", "--json"]
    done = subprocess.run([*command, "--policy", "ours"], cwd=ROOT, capture_output=True, text=True, check=False)
    (told,) = json.loads(done.stdout)
    assert told["limit"] == "Mine"
    assert told["probes"] <= 1

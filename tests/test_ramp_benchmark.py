"""The ramp holds its bars against the hidden limits; the short form of benchmarks/ramp.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ramp import Drain, World, mean_over_base, missed, row, sweep
from benchmarks.ramp_models import CASES, PUSH, Case
from policies.subqueue import State

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


def test_refusals_at_random_close_it_after_the_first_probe() -> None:
    (chance,) = (case for case in CASES if not case.limited)
    drained = Drain(chance.make(3_000), "ours", backlog=3_000).run()
    assert drained.state is State.CLOSED
    assert drained.seconds < 300 + 2 * 3_000 / PUSH


@pytest.mark.parametrize(
    "world", [World(0.3), World(5.0), World(1.0, jitter=0.6), World(1.0, loss=0.03), World(told=False)]
)
def test_it_copes_with_late_mixed_and_missing_outcomes(world: World) -> None:
    case = CASES[2]
    limit = case.make(3_000)
    drained = Drain(limit, "ours", backlog=3_000, world=world).run()
    assert drained.seconds < 2 * (limit.optimum(3_000) + 300)
    assert drained.deferrals <= 45
    assert drained.probes <= 1


def test_limits_drawn_at_random_are_learned_too() -> None:
    spread = sweep(30, 1_000, World())
    assert spread["over_base_geometric_mean"] <= 1.6


def test_plain_suspension_fares_worse() -> None:
    ours, stop = (row(CASES[0], policy, 1_000, arrivals=False) for policy in ("ours", "stop"))
    assert ours["deferrals"] < stop["deferrals"] / 10


def test_any_other_model_can_be_tried(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text("class Mine:\n    def offer(self, now):\n        return int(now) % 600 < 30\n")
    command = [sys.executable, "benchmarks/ramp.py", "--model", f"{model}:Mine", "--backlog", "3000", "--json"]
    done = subprocess.run([*command, "--policy", "ours"], cwd=ROOT, capture_output=True, text=True, check=False)
    (told,) = json.loads(done.stdout)
    assert told["limit"] == "Mine"
    assert told["optimum_is"] == "the best constant pace"
    assert 600 < told["optimum_s"] < 700
    assert told["probes"] <= 1

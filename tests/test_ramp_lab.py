"""The ramp under a lab's conditions, where an outcome comes back late as the policy's own times go."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.ramp_lab import Lab, Told
from sidecar.lab import scenario as scenarios
from sidecar.lab.scenario import Kind, Scenario

ROOT = Path(__file__).parents[1]
STORY = scenarios.load(scenarios.find("story"))
DRAIN = scenarios.load(scenarios.find("drain"))


def test_postfix_alone_defers_as_often_as_the_lab_measures() -> None:
    assert Lab(STORY, plain=True).run().per_delivered == pytest.approx(2.155, rel=0.05)


def test_the_story_costs_two_percent_of_what_it_costs_without_us() -> None:
    plain = Lab(STORY, plain=True).run()
    told = [Lab(STORY, seed=seed).run() for seed in range(1, 4)]
    assert max(one.per_delivered for one in told) <= 0.02 * plain.per_delivered
    assert max(one.beyond_per_1000 for one in told) <= 15
    assert min(one.delivered for one in told) > 1_200


def test_in_ten_minutes_it_costs_hardly_more_than_what_was_in_flight_at_the_first_refusal() -> None:
    ten_minutes = scenarios.load(scenarios.find("ten-minutes"))
    told, plain = Lab(ten_minutes).run(), Lab(ten_minutes, plain=True).run()
    assert told.delivered == 3_000
    assert told.deferrals <= told.first_episode + 6
    assert told.per_delivered <= 0.0105 * plain.per_delivered  # 0.0095 of it the first episode's
    assert told.beyond_per_1000 <= 15


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_campaign_drains_in_little_more_than_the_optimum_and_the_first_pause(seed: int) -> None:
    drain_ratio = Lab(DRAIN, seed=seed).run().drain_ratio
    assert drain_ratio is not None
    assert drain_ratio <= 1.3


def limited(**changed: object) -> Scenario:
    """The story with another limit."""
    provider = STORY.provider[0]
    limit = replace(provider.limit[0], **changed)  # type: ignore[arg-type]  # names are checked at run time
    return replace(STORY, provider=(replace(provider, limit=(limit,)),))


@pytest.mark.parametrize(
    "scenario",
    [
        limited(n=600, per=1200),
        limited(kind=Kind.BUCKET, rate=10, burst=100),
        limited(kind=Kind.PENALTY, rate=15, burst=200, penalty=300),
        limited(kind=Kind.REPUTATION, rate=15, burst=200),
        limited(kind=Kind.SHARED, rate=15, burst=100, per=300, share=0.2),
    ],
    ids=lambda scenario: scenario.provider[0].limit[0].kind,
)
def test_other_limits_cost_no_more(scenario: Scenario) -> None:
    told = [Lab(scenario, seed=seed).run() for seed in (1, 2)]
    assert max(one.beyond_per_1000 for one in told) <= 15
    assert min(one.delivered for one in told) > 600


def test_the_same_seed_tells_the_same() -> None:
    assert Lab(STORY, seed=5).run() == Lab(STORY, seed=5).run()


def test_it_prints_a_line_a_seed() -> None:
    command = [sys.executable, "benchmarks/ramp_lab.py", "--scenario", "drain", "--seeds", "2", "--seconds", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(line) for line in lines] == [set(Told._fields)] * 2

"""What core tells of a short log, and of thousands of sub-queues."""

import json
from typing import Any

import pytest

from policies.key import Key
from sidecar.core_figures import NAMED, figures
from sidecar.metrics import read_figures
from tests.metrics_world import LINES, NOW, answer, core_parts

Told = dict[str, dict[tuple[str, ...], float]]


def told(answered: dict[str, Any]) -> Told:
    """Name -> values of the labels, by their names -> value."""
    return {
        figure["name"]: {
            tuple(sample["labels"][name] for name in sorted(sample["labels"])): sample["value"]
            for sample in figure["samples"]
        }
        for figure in answered["figures"]
    }


def test_a_short_log() -> None:
    found = told(answer(*LINES))
    assert found["sidecar_delivery_attempts_total"] == {("google", "sent"): 1, ("google", "deferred"): 2}
    assert found["sidecar_transport_attempts_total"] == {
        ("sent", "lane-01"): 1,
        ("deferred", "lane-01"): 1,
        ("deferred", "smtp"): 1,
    }
    assert found["sidecar_expired_recipients_total"] == {("google",): 1}
    assert found["sidecar_refused_attempts_total"]["transient", "throttling", "google"] == 1
    assert found["sidecar_subqueue_steps_total"] == {("google", "opened"): 1}
    assert found["sidecar_subqueue_state"] == {("dkim-domain:s.example@google", "paused"): 1}
    assert found["sidecar_log_diagnostics_total"]["smtpd", "fatal"] == 1
    assert found["sidecar_log_lag_seconds"] == {(): 2.0}
    assert found["sidecar_core_acting"] == {(): 0.0}
    assert found["sidecar_fleet_part_answers"] == {("suppressions",): 1.0}
    assert found["sidecar_core_process_resident_memory_bytes"][()] > 1e6
    assert found["sidecar_core_process_open_fds"][()] > 0


def test_all_of_it_is_read_by_the_other_side() -> None:
    known = answer()
    read = read_figures(json.loads(json.dumps(known)))
    assert read.malformed == 0
    assert len(read.figures) == len(known["figures"])
    assert {histogram.labels for histogram in read.histograms} == {(), (("provider", "google"),)}


def test_of_thousands_of_sub_queues_only_some_are_named_and_nothing_is_left_out() -> None:
    parts, lag = core_parts()
    keys = [Key("dkim-domain", f"d{number}.example", "google") for number in range(NAMED + 700)]
    for number, key in enumerate(keys):
        parts.engine.orders.open(key, rule="by-hand", by_whom="test", now=NOW).held = number % 900
    found = told(figures(parts, lag=lag))
    held = found["sidecar_subqueue_held_messages"]
    assert len(held) == NAMED + 1
    assert sum(held.values()) == sum(number % 900 for number in range(len(keys)))
    assert min(value for (key,), value in held.items() if key != "other") >= 300
    assert sum(found["sidecar_subqueue_state"].values()) == len(keys)
    assert found["sidecar_subqueues"] == {("google", "paused"): len(keys)}
    assert held["other",] == pytest.approx(sum(held.values()) - sum(v for (key,), v in held.items() if key != "other"))

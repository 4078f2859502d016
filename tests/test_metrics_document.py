"""docs/metrics.md against the code: each metric that is shown, its type, labels and help; and Prometheus's own lint."""

import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge

from sidecar import metrics
from sidecar.feed_series import SHOWN
from sidecar.metrics import Busiest, Figures, OutsideFigures
from tests.metrics_world import answer
from tests.promtool import promtool

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"
Row = tuple[str, str, str]
"""Type, labels, help."""


def _core() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    known = answer()
    for figure in known["figures"]:
        assert figure["samples"], f"{figure['name']}: the short log of metrics_world.py does not bring it about"
        labels = {name for sample in figure["samples"] for name in sample["labels"]}
        rows[figure["name"]] = figure["type"], ", ".join(sorted(labels)), figure["help"]
    for histogram in known["histograms"]:
        rows[histogram["name"]] = "histogram", ", ".join(sorted(histogram["labels"])), histogram["help"]
    return rows


def _outside() -> dict[str, Row]:
    own = OutsideFigures()
    rows: dict[str, Row] = {}
    for family in own.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows[name] = family.type, "", family.documentation
    rows["sidecar_feed_series_left_out"] = "gauge", "metric", rows["sidecar_feed_series_left_out"][2]
    rows["sidecar_feed_data_timestamp_seconds"] = "gauge", "feed", rows["sidecar_feed_data_timestamp_seconds"][2]
    for each in vars(own).values():
        if isinstance(each, Counter | Gauge):
            family = next(iter(each.collect()))
            name = f"{family.name}_total" if family.type == "counter" else family.name
            rows[name] = family.type, ", ".join(sorted(each._labelnames)), family.documentation
    for shown in SHOWN:
        labels = {shown.object, *re.compile(shown.measure).groupindex, *(["result"] if shown.states else [])}
        rows[shown.name] = "gauge", ", ".join(sorted(labels)), shown.help
    return rows


SHOWN_AT_METRICS = {**_core(), **_outside()}


def _documented() -> dict[str, Row]:
    found: dict[str, Row] = {}
    for name, *rest in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE):
        assert name not in found, name
        found[name] = rest[0], rest[1], rest[2]
    return found


def test_the_document_and_the_code_agree() -> None:
    assert _documented() == SHOWN_AT_METRICS


def test_prometheus_has_nothing_to_say_against_them() -> None:
    own = OutsideFigures()
    for each in vars(own).values():
        if isinstance(each, Counter | Gauge) and each._labelnames:
            each.labels(*("x" for _ in each._labelnames))
    text = metrics.exposition(own, metrics.read_figures(answer()), Busiest()).decode()

    assert promtool("check", "metrics", said=text) == ""


def test_what_it_says_against_others() -> None:
    with pytest.raises(AssertionError, match="counter metrics should have"):
        promtool(
            "check", "metrics", said="# HELP sidecar_polls Polls.\n# TYPE sidecar_polls counter\nsidecar_polls 1\n"
        )


def test_without_core_there_are_none_of_its_series() -> None:
    text = metrics.exposition(OutsideFigures(), Figures(), Busiest()).decode()
    assert not [name for name in _core() if re.search(rf"^{name}\b", text, re.MULTILINE)]

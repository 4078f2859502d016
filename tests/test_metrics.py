"""What Prometheus is shown: the exposition of core's figures, and the bound on its labels."""

import re
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sidecar import metrics
from sidecar.metrics import Busiest, Figure, Figures, FigureType, Histogram, OutsideFigures, Sample

ANSWER: dict[str, Any] = {
    "ok": True,
    "figures": [
        {
            "name": "sidecar_log_lines_total",
            "help": "Lines read",
            "type": "counter",
            "samples": [{"labels": {}, "value": 17}],
        },
        {
            "name": "sidecar_subqueue_held",
            "help": "Messages held",
            "type": "gauge",
            "samples": [
                {"labels": {"key": "dkim-domain:a.example@google", "instance": "postfix"}, "value": 3},
                {"labels": {"key": 'crafted"\n\udc80:x@y', "instance": "postfix"}, "value": 1.5},
                {"labels": {"key": "never:shown@google", "instance": "postfix"}, "value": None},
            ],
        },
    ],
    "histograms": [
        {
            "name": "sidecar_policy_seconds",
            "help": "Time to an answer",
            "buckets": [[0.001, 5], [0.01, 7], [None, 8]],
            "sum": 0.5,
            "count": 8,
        }
    ],
}


def shown(figures: Figures, busiest: Busiest | None = None) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The exposition, read by Prometheus's own parser: sample name -> labels -> value."""
    text = metrics.exposition(OutsideFigures(), figures, busiest or Busiest()).decode()
    read: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            read.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return read


def test_core_figures_are_shown() -> None:
    read = shown(metrics.read_figures(ANSWER))

    assert read["sidecar_log_lines_total"] == {(): 17}
    assert read["sidecar_subqueue_held"] == {
        (("instance", "postfix"), ("key", "dkim-domain:a.example@google")): 3,
        (("instance", "postfix"), ("key", 'crafted"\n\\udc80:x@y')): 1.5,
    }
    assert read["sidecar_policy_seconds_bucket"] == {(("le", "0.001"),): 5, (("le", "0.01"),): 7, (("le", "+Inf"),): 8}
    assert read["sidecar_policy_seconds_count"] == {(): 8}
    assert read["sidecar_policy_seconds_sum"] == {(): 0.5}
    assert read["sidecar_outside_malformed_figures"] == {(): 0}


def test_without_core_only_our_own() -> None:
    read = shown(Figures())

    assert read["sidecar_core_up"] == {(): 0}
    own = ("sidecar_outside_", "sidecar_history_", "sidecar_core_up", "sidecar_build_info")
    assert all(name.startswith(own) for name in read)


def test_a_histogram_with_labels_is_one_family() -> None:
    apart = [{**ANSWER["histograms"][0], "labels": {"provider": provider}} for provider in ("google", "yahoo")]
    text = metrics.exposition(
        OutsideFigures(), metrics.read_figures({"histograms": [*apart, ANSWER["histograms"][0]]}), Busiest()
    ).decode()

    assert text.count("# TYPE sidecar_policy_seconds histogram") == 1
    assert 'sidecar_policy_seconds_bucket{le="0.01",provider="yahoo"} 7.0' in text
    assert 'sidecar_policy_seconds_count{provider=""} 8.0' in text


def test_which_version_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (labels,) = shown(Figures())["sidecar_build_info"]
    assert dict(labels)["version"] == version("postfix-sidecar")
    monkeypatch.setattr(metrics, "PACKAGE", "not-installed")
    (labels,) = shown(Figures())["sidecar_build_info"]
    assert dict(labels)["version"] == "unknown"


def test_no_series_of_when_a_counter_was_made() -> None:
    own = OutsideFigures()
    own.polls.labels("snds").inc()
    assert "_created" not in metrics.exposition(own, Figures(), Busiest()).decode()


def test_without_a_fleet_nothing_is_shown_of_one() -> None:
    alone, fleet = (
        metrics.exposition(OutsideFigures(fleet=fleet), Figures(), Busiest()).decode() for fleet in (False, True)
    )
    assert "sidecar_fleet" not in alone
    assert "sidecar_fleet_pages_alone 0.0\n" in fleet


def test_every_name_and_label_is_clean_and_every_metric_has_its_help() -> None:
    text = metrics.exposition(OutsideFigures(), metrics.read_figures(ANSWER), Busiest()).decode()

    families = list(text_string_to_metric_families(text))
    assert len(families) > 5
    for family in families:
        assert re.fullmatch(r"sidecar_[a-z][a-z0-9_]*", family.name)
        assert len(family.documentation) > 5


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"name": "log_lines", "help": "", "type": "counter", "samples": []},
        {"name": "sidecar_Lines", "help": "", "type": "counter", "samples": []},
        {"name": "sidecar_lines\n", "help": "", "type": "counter", "samples": []},
        {"name": "sidecar_lines", "help": "", "type": "summary", "samples": []},
        {"name": "sidecar_lines", "help": "", "type": "gauge", "samples": [{"labels": {}, "value": "many"}]},
        {"name": "sidecar_lines", "help": "", "type": "gauge", "samples": [{"labels": {"le": "1"}, "value": 1}]},
        {"name": "sidecar_lines", "help": "", "type": "gauge", "samples": [{"labels": {"A b": "1"}, "value": 1}]},
        {"name": "sidecar_lines", "help": "", "type": "gauge", "samples": [{"labels": None, "value": 1}]},
        {"name": None, "help": "", "type": "gauge", "samples": []},
        None,
        "sidecar_lines",
    ],
)
def test_a_malformed_figure_is_left_out_and_counted(entry: Any) -> None:
    figures = metrics.read_figures({**ANSWER, "figures": [entry, *ANSWER["figures"]]})

    assert figures.malformed == 1
    assert len(figures.figures) == 2
    assert shown(figures)["sidecar_outside_malformed_figures"] == {(): 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"buckets": [[0.001, 5], [0.01, 2]]},
        {"buckets": [[0.01, 5], [0.001, 7]]},
        {"buckets": [[0.001, 9]]},
        {"buckets": [[0.001]]},
        {"sum": None},
        {"name": "seconds"},
    ],
)
def test_a_malformed_histogram_is_left_out_and_counted(wrong: dict[str, Any]) -> None:
    figures = metrics.read_figures({**ANSWER, "histograms": [{**ANSWER["histograms"][0], **wrong}]})

    assert figures.histograms == ()
    assert figures.malformed == 1


def keyed(values: dict[str, float], kind: FigureType = FigureType.GAUGE, state: str = "paused") -> Figure:
    samples = tuple(Sample((("key", key), ("state", state)), value) for key, value in values.items())
    return Figure("sidecar_held", "Messages held", kind, samples)


def by_key(figure: Figure) -> dict[str, float]:
    return {dict(sample.labels)["key"]: sample.value for sample in figure.samples}


def test_the_busiest_are_shown_and_the_rest_is_summed() -> None:
    bounded = Busiest(limit=2).bound(keyed({"a": 1, "b": 20, "c": 30, "d": 4}))

    assert by_key(bounded) == {"b": 20, "c": 30, "other": 5}
    assert bounded.samples[-1].labels == (("key", "other"), ("state", "paused"))


def test_the_rest_is_summed_apart_by_its_other_labels() -> None:
    figure = keyed({"a": 9, "b": 1, "c": 2})
    figure = figure._replace(samples=figure.samples + keyed({"b": 5}, state="ramping").samples)

    other = [sample for sample in Busiest(limit=1).bound(figure).samples if ("key", "other") in sample.labels]
    assert {dict(sample.labels)["state"]: sample.value for sample in other} == {"paused": 3, "ramping": 5}


def test_what_core_summed_up_is_of_the_rest() -> None:
    busiest = Busiest(limit=2)
    assert by_key(busiest.bound(keyed({"a": 1, "other": 900}))) == {"a": 1, "other": 900}
    assert by_key(busiest.bound(keyed({"a": 1, "b": 2, "c": 3, "other": 900}))) == {"a": 1, "c": 3, "other": 902}


def test_samples_without_a_key_are_never_summed() -> None:
    keyless = Sample((("state", "paused"),), 0.5)
    figure = keyed({"a": 9, "b": 1})
    figure = figure._replace(samples=(keyless, *figure.samples))

    assert keyless in Busiest(limit=1).bound(figure).samples
    only = figure._replace(samples=(keyless,))
    assert Busiest(limit=0).bound(only) == only


def test_a_key_keeps_its_place_until_core_drops_it() -> None:
    busiest = Busiest(limit=1)

    assert by_key(busiest.bound(keyed({"a": 5, "b": 1}))) == {"a": 5, "other": 1}
    assert by_key(busiest.bound(keyed({"a": 5, "b": 50}))) == {"a": 5, "other": 50}
    assert by_key(busiest.bound(keyed({"b": 51, "c": 3}))) == {"b": 51, "other": 3}


def test_other_of_a_counter_never_falls() -> None:
    busiest, counter = Busiest(limit=1), FigureType.COUNTER
    steps = [
        ({"a": 5.0, "b": 1.0, "c": 2.0}, 3.0),
        ({"a": 6.0, "b": 3.0, "c": 2.0}, 5.0),
        ({"b": 4.0, "c": 2.5}, 5.5),  # b moves up: what it gave to the rest stays there
        ({"b": 5.0}, 5.5),
        ({"b": 1.0, "c": 1.0}, 6.5),  # core began anew
    ]
    for values, other in steps:
        assert by_key(busiest.bound(keyed(values, counter)))["other"] == pytest.approx(other)


scrapes = st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1e6), min_size=1), min_size=1, max_size=12)


@given(scrapes)
def test_never_more_keys_than_the_limit_and_gauges_lose_nothing(given_scrapes: list[dict[str, float]]) -> None:
    gauges, counters = Busiest(limit=3), Busiest(limit=3)
    before = 0.0
    for values in given_scrapes:
        shown_gauges = by_key(gauges.bound(keyed(values)))
        shown_counters = by_key(counters.bound(keyed(values, FigureType.COUNTER)))

        assert len(shown_gauges) <= 4
        assert len(shown_counters) <= 4
        assert sum(shown_gauges.values()) == pytest.approx(sum(values.values()))
        assert shown_counters.get("other", before) >= before
        before = shown_counters.get("other", before)


def test_two_hundred_keys_of_many() -> None:
    figure = keyed({f"dkim-domain:d{number}.example@google": number for number in range(1000)})
    read = shown(Figures(figures=(figure,)))["sidecar_held"]

    assert len(read) == metrics.KEYS_MAX + 1
    assert read[(("key", "other"), ("state", "paused"))] == sum(range(800))


def test_a_histogram_without_buckets_still_counts() -> None:
    read = shown(Figures(histograms=(Histogram("sidecar_wait_seconds", "Waiting", (), 3.0, 2.0),)))

    assert read["sidecar_wait_seconds_count"] == {(): 2}

"""Alert rules by Prometheus's own tool, dashboards by Grafana's own model; and both name only what is there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.promtool import promtool
from tests.test_metrics_document import SHOWN_AT_METRICS

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "monitoring"
GROUPS: Final = ("infrastructure", "pipeline", "deliverability", "security")
RULES: dict[str, list[dict[str, Any]]] = {
    group["name"]: group["rules"] for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
}
ALERTS = [rule for rules in RULES.values() for rule in rules]
TESTS: dict[str, Any] = yaml.safe_load((MONITORING / "alerts.test.yml").read_text())
DASHBOARDS: dict[str, dict[str, Any]] = {
    name: json.loads((MONITORING / "grafana" / f"{name}.json").read_text()) for name in GROUPS
}
NODE_EXPORTER: Final = {
    "node_cpu_seconds_total": {"cpu", "mode"},
    "node_disk_io_time_seconds_total": {"device"},
    "node_filesystem_avail_bytes": {"device", "fstype", "mountpoint"},
    "node_filesystem_files": {"device", "fstype", "mountpoint"},
    "node_filesystem_files_free": {"device", "fstype", "mountpoint"},
    "node_filesystem_size_bytes": {"device", "fstype", "mountpoint"},
    "node_memory_MemAvailable_bytes": set[str](),
    "node_network_receive_bytes_total": {"device"},
    "node_network_receive_errs_total": {"device"},
    "node_network_transmit_bytes_total": {"device"},
    "node_network_transmit_errs_total": {"device"},
    "up": set[str](),
}
"""Metric -> labels, as node_exporter 1.5 (Debian 12) shows them; `up` is Prometheus's own."""
LABELS: Final = NODE_EXPORTER | {
    name: set(filter(None, labels.split(", "))) for name, (_, labels, _) in SHOWN_AT_METRICS.items()
}
PROMETHEUS_ADDS: Final = {"instance", "job"}


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


EXPRESSIONS = [rule["expr"] for rule in ALERTS] + [query for each in DASHBOARDS.values() for query in queries(each)]


def bare(expression: str) -> str:
    """The expression as Prometheus gets it when everything is chosen."""
    return re.sub(r"\$(instance|provider)\b", ".*", expression).replace("$__rate_interval", "5m")


def selected(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric that is asked for, with the labels that it is chosen by."""
    for name, matchers in re.findall(r"\b((?:sidecar|node)_\w+|up\b)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", matchers))


def test_the_groups_are_those_in_which_one_thinks() -> None:
    assert tuple(RULES) == GROUPS
    assert {path.stem for path in (MONITORING / "grafana").glob("*.json")} == set(GROUPS)


@pytest.mark.timeout(300)  # promtool plays hours, minute by minute
def test_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(MONITORING / "alerts.test.yml"))
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", str(MONITORING / "alerts.yml"))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_was_seen_silent_and_firing(rule: dict[str, Any]) -> None:
    tried = [
        bool(case["exp_alerts"])
        for test in TESTS["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]
    assert sorted(tried) == [False, True]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "error", "warning", "info"}
    assert rule["annotations"]["summary"]
    assert (ROOT / rule["annotations"]["runbook"]).is_file()


def test_no_two_alerts_have_one_name() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)


@pytest.mark.parametrize("expression", sorted(set(EXPRESSIONS)))
def test_only_what_is_there_is_asked_for(expression: str) -> None:
    asked = list(selected(expression))
    assert asked
    for name, labels in asked:
        histogram = re.sub(r"_(bucket|sum|count)$", "", name)
        known = LABELS[name] if name in LABELS else LABELS[histogram]
        assert name in LABELS or SHOWN_AT_METRICS[histogram][0] == "histogram"
        assert labels <= known | PROMETHEUS_ADDS, name


@pytest.mark.parametrize("name", GROUPS)
def test_prometheus_understands_each_query(name: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"check:{number}", "expr": bare(query)} for number, query in enumerate(queries(DASHBOARDS[name]))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


@pytest.mark.parametrize("name", GROUPS)
def test_grafana_knows_all_that_a_dashboard_says(name: str) -> None:
    """Its model leaves out what it does not know: what was read and written again must still have everything."""
    register_default_plugins()
    read = Dashboard.from_json(DASHBOARDS[name])
    written = json.loads(JSONEncoder().encode(read))
    assert list(lost(DASHBOARDS[name], written, name)) == []


def lost(said: Any, kept: Any, where: str) -> Iterator[str]:
    """Tell what of `said` is not in `kept`."""
    if isinstance(said, dict) and isinstance(kept, dict):
        for key, value in said.items():
            if value is not None:
                yield from lost(value, kept.get(key), f"{where}.{key}")
    elif isinstance(said, list) and isinstance(kept, list) and len(said) == len(kept):
        for number, (one, other) in enumerate(zip(said, kept, strict=True)):
            yield from lost(one, other, f"{where}[{number}]")
    elif said != kept:
        yield f"{where}: {said!r} became {kept!r}"


def test_an_unknown_word_in_a_dashboard_is_seen() -> None:
    register_default_plugins()
    odd = {**DASHBOARDS["security"], "colour": "red"}
    assert list(lost(odd, json.loads(JSONEncoder().encode(Dashboard.from_json(odd))), "")) == [
        ".colour: 'red' became None"
    ]


@pytest.mark.parametrize("name", GROUPS)
def test_panels_lie_side_by_side(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    panels = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]


@pytest.mark.parametrize("name", GROUPS)
def test_a_dashboard_asks_the_data_source_that_is_chosen(name: str) -> None:
    dashboard = DASHBOARDS[name]
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert dashboard["uid"] == f"sidecar-{name}"
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    used = {word for query in queries(dashboard) for word in re.findall(r"\$(\w+)", query)} - {"__rate_interval"}
    assert used <= variables
    assert variables - used == {"datasource"}

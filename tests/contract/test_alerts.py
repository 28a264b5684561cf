"""configs/prometheus/alerts.yaml: about metrics that exist, each with a section of the runbook."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus import (
    NEEDS_PROMTOOL,
    labels_in,
    metrics_in,
    promtool,
    series_of_gateway,
    series_of_nodes,
    series_of_vllm,
)

ROOT = Path(__file__).parents[2]
FILE = ROOT / "configs" / "prometheus" / "alerts.yaml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]
]
SERIES = series_of_gateway() | series_of_vllm() | series_of_nodes()
RUNBOOK = (ROOT / "docs" / "alerts.md").read_text()
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


@each_rule
def test_a_rule_asks_for_existing_metrics_and_labels(rule: dict[str, Any]) -> None:
    """Every metric exists, with all labels that the rule and its summary name."""
    asked = metrics_in(rule["expr"])
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert asked
    assert asked <= SERIES.keys()
    of_metrics = frozenset.union(*(SERIES[name] for name in asked))
    assert labels_in(rule["expr"]) | shown <= of_metrics


@each_rule
def test_a_summary_shows_labels_that_the_alert_has(rule: dict[str, Any]) -> None:
    """What the query groups by is what an alert knows."""
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", rule["expr"]))))
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert shown <= grouped


@each_rule
def test_a_rule_says_how_bad_it_is(rule: dict[str, Any]) -> None:
    """One of three severities, and a sentence."""
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["summary"].endswith(".")


@each_rule
def test_the_first_of_rare_events_is_counted(rule: dict[str, Any]) -> None:
    """A counter starts with its first event, which `increase` does not see."""
    assert rule["expr"].count("unless") == rule["expr"].count("increase(")


def test_the_runbook_has_a_section_for_each_alert() -> None:
    """Every alert has one, in this order, that its annotation leads to; and there is no other."""
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert re.findall(r"(?m)^### (\w+)$", RUNBOOK) != []
    assert sorted(re.findall(r"(?m)^### (\w+)$", RUNBOOK)) == sorted(names)
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"


@NEEDS_PROMTOOL
def test_prometheus_accepts_the_rules() -> None:
    """Prometheus's own parser accepts them all."""
    checked = promtool("check", "rules", FILE)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(RULES)} rules found" in checked.stdout


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """An input series of promtool's."""
    text = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{text}}}", "values": values}


def requests(outcome: str, values: str) -> dict[str, str]:
    """A counter of requests to the model `m`."""
    return series("ray_gateway_requests_total", values, model="m", outcome=outcome, WorkerId="1")


def replicas(state: str, values: str) -> dict[str, str]:
    """A gauge of the replicas of the model `m`."""
    return series("ray_gateway_replicas", values, model="m", state=state, WorkerId="1")


def cut(state: str, values: str) -> dict[str, str]:
    """A counter of the answers that HAProxy saw cut."""
    return series("ray_gateway_haproxy_cut_total", values, node="n", state=state, WorkerId="1")


ROUTER = {"WorkerId": "1"}
FIRES: list[tuple[str, str, list[dict[str, str]], dict[str, str] | None]] = [
    ("GatewayDown", "3m", [], {}),
    ("GatewayDown", "3m", [series("ray_gateway_body_limit_bytes", "1x30", **ROUTER)], None),
    (
        "GatewayRequestsFail",
        "15m",
        [requests("answered", "0+90x90"), requests("failed", "0+10x90")],
        {"model": "m"},
    ),
    (
        "GatewayRequestsFail",
        "15m",
        [requests("answered", "0+99x90"), requests("failed", "0+1x90")],
        None,
    ),
    (
        "GatewayModelUnusable",
        "3m",
        [replicas("ready", "0x30"), replicas("not_responding", "1x30")],
        {"model": "m"},
    ),
    # At zero replicas, as a model that is scaled to zero.
    ("GatewayModelUnusable", "3m", [replicas("ready", "0x30")], None),
    ("GatewayAnswersCut", "5m", [cut("SD", "_x12 1x30")], {"node": "n", "state": "SD"}),
    ("GatewayAnswersCut", "5m", [cut("CD", "_x12 1x30")], None),
    ("GatewayAnswersCut", "20m", [cut("SD", "_x12 1x130")], None),
    (
        "GatewayRequestsShed",
        "20m",
        [requests("answered", "0+9x120"), requests("shed", "0+1x120")],
        {"model": "m"},
    ),
    ("GatewaySingleRouter", "6m", [series("ray_gateway_body_limit_bytes", "1x40", **ROUTER)], {}),
    (
        "GatewayUsageLost",
        "5m",
        [series("ray_gateway_settlements_dropped_total", "_x12 3x30", **ROUTER)],
        {},
    ),
    (
        "GatewayLimitNearlyReached",
        "20m",
        [
            series(name, f"{value}x130", project="p", limit="tokens", model="-", key="-")
            for name, value in (("ray_gateway_limit", 100), ("ray_gateway_limit_used", 95))
        ],
        {"project": "p", "limit": "tokens", "model": "-", "key": "-"},
    ),
]
"""Alert, time, the series until then, and the labels of the alert, if it fires."""


@NEEDS_PROMTOOL
@pytest.mark.parametrize(("alert", "time", "given", "labels"), FIRES)
def test_an_alert_fires_when_it_should(
    alert: str,
    time: str,
    given: list[dict[str, str]],
    labels: dict[str, str] | None,
    tmp_path: Path,
) -> None:
    """Prometheus raises it for what it is about, and not for what looks like it."""
    (rule,) = [rule for rule in RULES if rule["alert"] == alert]
    bare = {"rules": [{key: rule[key] for key in rule if key != "annotations"}], "name": "one"}
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [bare]}))
    expected = [] if labels is None else [{"exp_labels": rule["labels"] | labels}]
    test = {
        "interval": "10s",
        "input_series": given,
        "alert_rule_test": [{"eval_time": time, "alertname": alert, "exp_alerts": expected}],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "tests": [test]}))
    tested = promtool("test", "rules", file)
    assert tested.returncode == 0, tested.stderr + tested.stdout

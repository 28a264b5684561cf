"""configs/grafana/gateway.json: its panels show every metric, and only metrics that exist."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import METRICS
from tests.prometheus import (
    DASHBOARD,
    NEEDS_PROMTOOL,
    labels_in,
    metrics_in,
    promtool,
    series_of_gateway,
    series_of_vllm,
)

PAGE: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS = [panel for panel in PAGE["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
SERIES = series_of_gateway() | series_of_vllm()
COLUMNS = 24
"""Of Grafana's grid."""


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=lambda each: str(each)[:40])
def test_a_query_names_existing_metrics_and_labels(title: str, target: dict[str, Any]) -> None:
    """Every metric exists, with all labels of the query and its legend."""
    query = target["expr"]
    named = labels_in(query) | set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert metrics_in(query)
    for metric in metrics_in(query):
        assert metric in SERIES, title
        assert named <= SERIES[metric], title


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=lambda each: str(each)[:40])
def test_a_legend_tells_its_lines_apart(title: str, target: dict[str, Any]) -> None:
    """It has every label by which the query groups."""
    groups = re.findall(r"\bby \(([^)]*)\)", target["expr"])
    grouped = set(re.findall(r"\w+", groups[0])) - {"le"} if groups else set()
    legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    is_one_number = target["expr"].startswith("sum(")  # what is inside is summed up
    assert legend == (set() if is_one_number else grouped), title


def test_every_metric_is_shown() -> None:
    """Each metric of the gateway is in a query."""
    shown = set().union(*(metrics_in(target["expr"]) for _, target in TARGETS))
    missing = {
        metric.exported_name
        for metric in METRICS
        if not shown & {metric.exported_name, f"{metric.exported_name}_bucket"}
    }
    assert missing == set()


def test_queries_keep_to_the_chosen_models_and_data_source() -> None:
    """The two variables at the top of the page apply to all panels."""
    for title, target in TARGETS:
        # HAProxy's are those of a node, bodies of a router, limits of projects, rows of Accounts,
        # refused keys, batches.
        others = "haproxy_|body_|limit|spend_|accounts_|settlements_|auth_|batch"
        selectors = re.findall(rf"ray_(?!gateway_(?:{others}))\w+(\{{[^}}]*\}})?", target["expr"])
        assert all('=~"$model"' in resolver for resolver in selectors), title
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    source, model = PAGE["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert (model["name"], model["multi"], model["includeAll"]) == ("model", True, True)
    assert metrics_in(re.sub('"', "", model["query"]["query"])) <= SERIES.keys()


def test_every_panel_says_what_it_shows() -> None:
    """It has its own title, a description and a unit."""
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_panels_fill_the_grid_and_do_not_overlap() -> None:
    """Every line of panels has the full width; rows have titles."""
    ids = [panel["id"] for panel in PAGE["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in PAGE["panels"]]
    for _, line in itertools.groupby(places, key=lambda place: place["y"]):
        beside = list(line)
        ends = list(itertools.accumulate(place["w"] for place in beside))
        assert [place["x"] for place in beside] == [0, *ends[:-1]]
        assert ends[-1] == COLUMNS
        assert len({place["h"] for place in beside}) == 1
    lines = sorted({(place["y"], place["h"]) for place in places})
    assert all(y + h == below for (y, h), (below, _) in itertools.pairwise(lines))
    rows = [panel["title"] for panel in PAGE["panels"] if panel["type"] == "row"]
    assert {"Traffic", "Latency", "Cache", "Engines", "Faults"} <= set(rows)


RARE = (
    *("gateway_faults", "num_preemptions", "shadow_copies", "spend_alerts"),
    *("outcome=~", "by (outcome)"),
)
"""What tells the queries apart that ask for what is rare."""


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=lambda each: str(each)[:40])
def test_the_first_of_rare_events_is_counted(title: str, target: dict[str, Any]) -> None:
    """Its counter starts with the first event, which neither `rate` nor `increase` sees."""
    if any(words in target["expr"] for words in RARE):
        assert "rate(" not in target["expr"], title
        assert target["expr"].count("unless") == target["expr"].count("increase("), title


@NEEDS_PROMTOOL
def test_prometheus_accepts_every_query(tmp_path: Path) -> None:
    """Prometheus's own parser accepts them all."""
    rules = [
        {"record": f"panel:query_{number}", "expr": within_a_minute(target["expr"])}
        for number, (_, target) in enumerate(TARGETS)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = promtool("check", "rules", file)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


@NEEDS_PROMTOOL
def test_prometheus_counts_the_first_fault(tmp_path: Path) -> None:
    """Once for a new counter, beside the increase of an older one."""
    (query,) = [target["expr"] for title, target in TARGETS if title.startswith("Faults by reason")]
    born = 'ray_gateway_faults_total{model="m", reason="lost", action="failed", WorkerId="1"}'
    older = born.replace("failed", "retried")
    test = {
        "interval": "10s",
        "input_series": [
            {"series": born, "values": "_x12 1x20"},  # from 2 minutes on
            {"series": older, "values": "40+1x40"},
        ],
        "promql_expr_test": [
            {
                "expr": within_a_minute(query),
                "eval_time": time,
                "exp_samples": [
                    {"labels": '{action="failed", reason="lost"}', "value": count}
                    for count in failed
                ]
                + [{"labels": '{action="retried", reason="lost"}', "value": 6}],
            }
            for time, failed in (("110s", []), ("150s", [1]), ("240s", [0]))
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    tested = promtool("test", "rules", file)
    assert tested.returncode == 0, tested.stderr + tested.stdout


def within_a_minute(query: str) -> str:
    """A query with Grafana's variables filled in."""
    for name, value in (
        ("$__rate_interval_ms", "60000"),
        ("$__rate_interval", "1m"),
        ("$__range", "1m"),
        ("$model", ".*"),
    ):
        query = query.replace(name, value)
    return query

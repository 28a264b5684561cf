"""What Prometheus would find of us and of vLLM, and what queries ask it for."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.local.processes import Session
from deployments.local.scrape_targets import agents_of, lists_of
from gateway.metrics import METRICS, Histogram

DASHBOARD = Path(__file__).parents[1] / "configs" / "grafana" / "gateway.json"
RAY_LABELS = frozenset({"WorkerId", "NodeAddress", "SessionName", "Component", "Version"})
"""What all metrics have that come from Ray's agents."""
VLLM_LABELS = frozenset({"model_name", "engine", "ReplicaId"})
METRIC = re.compile(r"\bray_\w+")
NEEDS_PROMTOOL = pytest.mark.skipif(
    not shutil.which("promtool"), reason="needs promtool, of Prometheus"
)
QUANTITY = {"_counter_cls": "counter", "_gauge_cls": "gauge", "_histogram_cls": "histogram"}

Series = dict[str, frozenset[str]]
"""The labels of every series, by its name."""


def series_of_gateway() -> Series:
    """All series of our own metrics."""
    found: Series = {}
    for metric in METRICS:
        labels = RAY_LABELS | set(metric.labels)
        if isinstance(metric, Histogram):
            found |= _histogram(metric.exported_name, labels)
        else:
            found[metric.exported_name] = labels
    return found


def series_of_vllm() -> Series:
    """All series of vLLM's stat logger, as the source of the installed vLLM declares them."""
    spec = importlib.util.find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0]) / "v1" / "metrics" / "loggers.py"
    found: Series = {}
    for call in ast.walk(ast.parse(source.read_text())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            found |= _declared(call, QUANTITY.get(call.func.attr))
    return found


def series_of_nodes() -> Series:
    """All series that the installed Ray's agents declare about their own node."""
    spec = importlib.util.find_spec("ray")
    assert spec
    assert spec.submodule_search_locations
    module = Path(spec.submodule_search_locations[0]) / "dashboard/modules/reporter"
    source = (module / "reporter_agent.py").read_text()
    names = re.findall(r'Gauge\(\s*"(node_\w+)"', source)
    return {f"ray_{name}": RAY_LABELS | {"ip"} for name in names}


def _declared(call: ast.Call, kind: str | None) -> Series:
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    name = options.get("name")
    if kind is None or not isinstance(name, ast.Constant):
        return {}
    more = {
        each.value for each in ast.walk(options["labelnames"]) if isinstance(each, ast.Constant)
    }
    labels = RAY_LABELS | VLLM_LABELS | {str(each) for each in more}
    exported = "ray_" + str(name.value).replace(":", "_")
    if kind == "histogram":
        return _histogram(exported, labels)
    return {exported + ("_total" if kind == "counter" else ""): labels}


def _histogram(name: str, labels: frozenset[str]) -> Series:
    return {
        f"{name}_bucket": labels | {"le"},
        f"{name}_count": labels,
        f"{name}_sum": labels,
    }


def queries_of_dashboard() -> list[str]:
    """All queries of the dashboard's panels."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def on_dashboard(series: Series) -> Series:
    """Those that the dashboard asks for."""
    asked = {name for query in queries_of_dashboard() for name in metrics_in(query)}
    return {name: labels for name, labels in series.items() if name in asked}


OPTIONAL = re.compile(r"ray_gateway_(accounts|auth|batch|limit|project|settlements|spend)")


def of_every_gateway(series: Series) -> Series:
    """Those that a gateway without authentication and without state has, too."""
    return {name: labels for name, labels in series.items() if not OPTIONAL.match(name)}


def scrape(session: Session) -> Series:
    """All series that the agents of a session's cluster export now."""
    found: Series = {}
    for agent in agents_of(lists_of([session])):
        with urllib.request.urlopen(f"http://{agent}/metrics", timeout=10) as response:
            for name, labels in re.findall(r"(?m)^(\w+)\{(.*)\} ", response.read().decode()):
                found[name] = frozenset(re.findall(r'(\w+)="', labels))
    return found


def samples(session: Session, metric: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each sample of a metric that the agents export now."""
    found = []
    for agent in agents_of(lists_of([session])):
        with urllib.request.urlopen(f"http://{agent}/metrics", timeout=10) as response:
            page = response.read().decode()
        for labels, value in re.findall(rf"(?m)^{metric}\{{(.*)\}} (\S+)", page):
            found.append((dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)))
    return found


def lacking(found: Series, wanted: Series) -> set[str]:
    """What is not found, or not with all its labels."""
    return {name for name, labels in wanted.items() if not labels <= found.get(name, frozenset())}


def metrics_in(query: str) -> set[str]:
    """The series that a query asks for."""
    return set(METRIC.findall(re.sub(r'"[^"]*"', '""', query)))


def labels_in(query: str) -> set[str]:
    """The labels that a query selects or groups by."""
    return set(_selected(query)) | set(_grouped(query))


def _selected(query: str) -> Iterator[str]:
    for resolver in re.findall(r"\{([^}]*)\}", query):
        yield from re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", resolver)


def _grouped(query: str) -> Iterator[str]:
    for group in re.findall(r"\b(?:by|on|ignoring|group_left|without)\s*\(([^)]*)\)", query):
        yield from re.findall(r"\w+", group)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Output of Prometheus's own tool."""
    return subprocess.run(
        ["promtool", *arguments],  # noqa: S607 - wherever it is installed
        capture_output=True,
        text=True,
        check=False,
    )

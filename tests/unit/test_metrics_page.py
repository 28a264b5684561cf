"""Tests of gateway.metrics_page: the page is complete, right, and the one in docs/."""

import re
from pathlib import Path

from typer.testing import CliRunner

from gateway.cli import app
from gateway.metrics import METRICS, Histogram
from gateway.metrics_page import FIRST_OF_ENGINES, QUERIES, metrics_page
from gateway.serving.timing import HEADER
from tests.prometheus import labels_in, metrics_in, series_of_gateway, series_of_vllm

KEPT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_kept_page_is_up_to_date() -> None:
    """docs/metrics.md is what `gateway docs metrics` prints now."""
    printed = CliRunner().invoke(app, ["docs", "metrics"]).stdout
    assert KEPT.read_text() == printed, "run: gateway docs metrics > docs/metrics.md"


def test_every_metric_has_its_row() -> None:
    """Name, kind, labels and meaning of all metrics; of histograms also the buckets."""
    page = metrics_page()
    for metric in METRICS:
        kind = type(metric).__name__.lower()
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{metric.exported_name}` | {kind} | {labels} | {metric.meaning} |" in page
        assert (f"- `{metric.exported_name}`: " in page) == isinstance(metric, Histogram)


def test_vllm_has_the_metrics_that_the_page_recommends() -> None:
    """The installed vLLM declares each, of that kind."""
    series = series_of_vllm()
    for name, kind, _ in FIRST_OF_ENGINES:
        suffix = "_bucket" if kind == "histogram" else ""
        assert f"ray_vllm_{name}{suffix}" in series


def test_queries_ask_for_what_there_is() -> None:
    """Every metric exists, and has the labels it is selected or grouped by."""
    series = series_of_gateway() | series_of_vllm()
    queries = re.findall(r"\n\n((?:    .*\n)+)", QUERIES)
    assert len(queries) >= 10
    for query in queries:
        assert metrics_in(query)
        for metric in metrics_in(query):
            assert metric in series
        for line in query.splitlines():
            assert all(labels_in(line) <= series[metric] for metric in metrics_in(line))


def test_every_step_of_server_timing_is_explained() -> None:
    """The table has the steps of the header."""
    steps = re.findall(r"(\w+);dur", HEADER.decode())
    page = metrics_page()
    assert steps
    assert all(f"\n| `{step}` | " in page for step in steps)

"""The tables of metrics are complete, and what docs/metrics.md says of metrics is right."""

import re
from pathlib import Path

from gateway.metrics import METRICS, Histogram
from gateway.reference.metrics_tables import VLLM_FIRST, metrics_tables
from gateway.serving.timing import HEADER
from tests.prometheus import labels_in, metrics_in, series_of_gateway, series_of_vllm

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
QUERIES = PAGE.partition("## Queries")[2].partition("## Server-Timing")[0]


def test_every_metric_has_its_row() -> None:
    """Name, kind, labels and meaning of all metrics; of histograms also the buckets."""
    tables = metrics_tables()
    for metric in METRICS:
        kind = type(metric).__name__.lower()
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        row = f"| `{metric.exported_name}` | {kind} | {labels} | {metric.meaning} |"
        assert row in tables["gateway"]
        has_buckets = f"| `{metric.exported_name}` | " in tables["buckets"]
        assert has_buckets == isinstance(metric, Histogram)


def test_vllm_has_the_metrics_that_the_page_recommends() -> None:
    """The installed vLLM declares each, of that kind."""
    series = series_of_vllm()
    for name, kind, _ in VLLM_FIRST:
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
    assert steps
    assert all(f"\n| `{step}` | " in PAGE for step in steps)

"""The tables of metrics are complete, and docs/metrics.md describes metrics correctly."""

import re
from pathlib import Path

from gateway.metrics import METRICS, Histogram
from gateway.reference.metrics_tables import metrics_tables
from gateway.serving.timing import HEADER

PAGE = (Path(__file__).parents[4] / "docs" / "metrics.md").read_text()


def test_every_metric_has_its_row() -> None:
    """Name, kind, labels and meaning of every metric; for histograms also the buckets."""
    tables = metrics_tables()
    for metric in METRICS:
        kind = type(metric).__name__.lower()
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        row = f"| `{metric.exported_name}` | {kind} | {labels} | {metric.meaning} |"
        assert row in tables["gateway"]
        has_buckets = f"| `{metric.exported_name}` | " in tables["buckets"]
        assert has_buckets == isinstance(metric, Histogram)


def test_every_step_of_server_timing_is_explained() -> None:
    """The table has the steps of the header."""
    steps = re.findall(r"(\w+);dur", HEADER.decode())
    assert steps
    assert all(f"\n| `{step}` | " in PAGE for step in steps)

"""Tests of gateway.metrics_page: the page is complete, right, and the one in docs/."""

import re
from pathlib import Path

from typer.testing import CliRunner

from gateway.cli import app
from gateway.metrics import METRICS, Histogram
from gateway.metrics_page import metrics_page
from gateway.relay.timing import HEADER

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


def test_every_step_of_server_timing_is_explained() -> None:
    """The table has the steps of the header."""
    steps = re.findall(r"(\w+);dur", HEADER.decode())
    page = metrics_page()
    assert steps
    assert all(f"\n| `{step}` | " in page for step in steps)

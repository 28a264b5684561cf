"""Draws what contenders cost on the data path; needs matplotlib."""

import math
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from loadtests.comparison.judging import DIRECT, OURS
from loadtests.comparison.path_report import Report
from loadtests.measurement import Sample, Spread

COLOURS = {OURS: "#2e7d4f", "router": "#8cbf9f", DIRECT: "#9a9a9a"}
THEIRS = "#4878a8"


def draw(path: Path, report: Report) -> None:
    """Write a picture of a run; its format is that of the path's suffix.

    Raises:
        OSError: it cannot be written there.
    """
    names = list(report.samples)
    figure = Figure(figsize=(14, 1.6 + 0.42 * len(names)), layout="constrained")
    throughput, cpu, ttft = figure.subplots(1, 3, sharey=True)
    load = report.load
    title = f"requests/s, {load.clients} clients, {load.chunks} tokens each\n(more is better)"
    _bars(throughput, title, report, lambda s: s.requests_per_s)
    title = "CPU seconds per 1,000 requests, engine excepted\n(less is better)"
    _bars(cpu, title, report, lambda s: s.cpu_s_per_1000)
    title = "time to first token, ms, one client\n(less is better)"
    _bars(ttft, title, report, lambda s: s.ttft_p50_ms)
    throughput.set_yticks(range(len(names)), names)
    throughput.invert_yaxis()
    rounds = len(report.samples[DIRECT])
    note = f"medians of {rounds} rounds, lines from least to most; scales are logarithmic"
    figure.supxlabel(f"{note}; {report.machine}", fontsize=8)
    figure.savefig(path, dpi=120)


def _bars(axes: Axes, title: str, report: Report, value: Callable[[Sample], float]) -> None:
    """A bar for each contender, with its spread."""
    spreads = [Spread.over(map(value, samples)) for samples in report.samples.values()]
    shown = {row: each for row, each in enumerate(spreads) if each.median > 0}
    least = min(each.least for each in shown.values() if each.least > 0)
    most = max(each.most for each in shown.values())
    axes.set_xscale("log")
    axes.set_xlim(10 ** math.floor(math.log10(least)), most * 4)  # room for the labels
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    names = list(report.samples)
    axes.barh(
        list(shown),
        [each.median for each in shown.values()],
        color=[COLOURS.get(names[row], THEIRS) for row in shown],
    )
    for row, each in shown.items():
        axes.plot([each.least, each.most], [row, row], color="black", linewidth=1.2)
        axes.annotate(
            f"{each.median:,.3g}" if each.median < 1000 else f"{each.median:,.0f}",
            (max(each.most, each.median), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)

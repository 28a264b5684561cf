"""Draws what contenders cost on the data path; needs matplotlib."""

import math
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from loadtests.comparison.path.judging import DIRECT, OURS
from loadtests.comparison.path.report import Report
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
    _points(throughput, title, report, lambda s: s.requests_per_s)
    title = "CPU seconds per 1,000 requests, engine excepted\n(less is better)"
    _points(cpu, title, report, lambda s: s.cpu_s_per_1000)
    title = "time to first token, ms, one client\n(less is better)"
    _points(ttft, title, report, lambda s: s.ttft_p50_ms)
    throughput.set_yticks(range(len(names)), names)
    throughput.set_ylim(len(names) - 0.5, -0.5)
    rounds = len(report.samples[DIRECT])
    note = (
        f"points: medians of {rounds} round{'s'[: rounds > 1]}; lines: least to most; "
        "scales are logarithmic: each step is ten times the last"
    )
    figure.supxlabel(f"{note}; {report.machine}", fontsize=8)
    figure.savefig(path, dpi=120)


def _points(axes: Axes, title: str, report: Report, value: Callable[[Sample], float]) -> None:
    """A point for each contender, with its spread: a bar has no beginning on such a scale."""
    spreads = [Spread.over(map(value, samples)) for samples in report.samples.values()]
    least = min((each.least for each in spreads if each.least > 0), default=1.0)
    most = max((each.most for each in spreads if each.most > 0), default=1.0)
    begin = 10 ** math.floor(math.log10(least))
    axes.set_xscale("log")
    axes.set_xlim(begin, most * 4)  # room for the labels
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.hlines(range(len(spreads)), begin, most * 4, color="#e4e4e4", linewidth=0.8, zorder=0)
    for row, (name, each) in enumerate(zip(report.samples, spreads, strict=True)):
        if each.median <= 0:
            _label(axes, "none", begin, row)
            continue
        colour, ends = COLOURS.get(name, THEIRS), [max(each.least, begin), each.most]
        axes.plot(ends, [row, row], color=colour, linewidth=3, alpha=0.5)
        axes.plot(each.median, row, "o", color=colour, markersize=8, clip_on=False)
        figure = f"{each.median:,.3g}" if each.median < 1000 else f"{each.median:,.0f}"
        _label(axes, figure, each.most, row)
    axes.set_title(title, fontsize=10)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _label(axes: Axes, text: str, end: float, row: int) -> None:
    """What a point stands for, to the right of it."""
    axes.annotate(
        text, (end, row), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9
    )

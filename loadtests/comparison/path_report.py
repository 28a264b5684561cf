"""Report of the data path comparison: samples, goals, tables and the picture."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.comparison.shared import Machine, figures_table, spread_cell
from loadtests.loadgen.summary import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS = "gateway"
DIRECT = "direct"
VLLM_ROUTER = "vllm-router"
RAY_DEFAULTS = ("ray-serve-llm", "ray-serve-llm tokenwise")
"""Ray Serve LLM with Serve's defaults, with and without batched tokens."""

MAX_ADDED_TTFT_MS = 1.0
MIN_THROUGHPUT_RATIO = 1.1
MAX_CPU_RATIO = 1.0
MIN_RATIO_TO_RAY = 30.0

COLOURS = {OURS: "#2e7d4f", "router": "#8cbf9f", DIRECT: "#9a9a9a"}
PEER_COLOUR = "#4878a8"


class PathLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Load that each target gets."""

    clients: int = 16
    chunks: int = 64
    seconds: float = 2.0
    token_ms: float = 0.0
    """Time of an engine for a token of each answer; 0: it answers at once."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one target in one round."""

    requests_per_s: float
    chunks_per_s: float
    """Server-sent events: those with a token, and the few around them."""
    cpu_s_per_1000: float
    """CPU seconds of the processes that carry requests, per 1,000 requests."""
    engine_cpu_s_per_1000: float
    """CPU seconds of the engine, which do not count as the target's."""
    client_cpu_s_per_1000: float
    """CPU seconds of the load generator, which shares the machine."""
    beside_cpus: float
    """CPUs kept busy by the target's other processes meanwhile."""
    ttft_p50_ms: float
    """Measured with one client and answers of one token, like p99."""
    ttft_p99_ms: float

    def __str__(self) -> str:
        """The most important figures."""
        return f"{self.requests_per_s:,.0f} requests/s, {self.cpu_s_per_1000:.2f} CPU s per 1,000"


Samples = dict[str, list[Sample]]
"""Samples by target, one per round."""


class Goal(msgspec.Struct, frozen=True):
    """A goal of this gateway; the median of all rounds decides whether it is met."""

    name: str
    reached: Spread
    limit: float
    is_met: bool


def compared(
    samples: Sequence[Sample], others: Sequence[Sample], figure: Callable[[Sample, Sample], float]
) -> Spread:
    """A figure of two targets, round by round: a disturbed round disturbs both sides of it."""
    return Spread.over(figure(a, b) for a, b in zip(samples, others, strict=True))


def throughput_ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> Spread:
    """Our requests/s over theirs."""
    return compared(ours, theirs, lambda a, b: a.requests_per_s / b.requests_per_s)


def goals(samples: Samples) -> list[Goal]:
    """The deployed gateway's goals for which there is a contender to compare it with."""
    ours = samples.get(OURS)
    if ours is None:
        return []
    added = compared(ours, samples[DIRECT], lambda a, b: a.ttft_p50_ms - b.ttft_p50_ms)
    found = [_at_most("added TTFT p50, ms", added, MAX_ADDED_TTFT_MS)]
    for name, theirs in samples.items():
        if name.startswith(VLLM_ROUTER):
            found.append(_throughput(ours, name, theirs, MIN_THROUGHPUT_RATIO))
            cpu = compared(ours, theirs, lambda a, b: a.cpu_s_per_1000 / b.cpu_s_per_1000)
            found.append(_at_most(f"CPU per request over {name}'s", cpu, MAX_CPU_RATIO))
        elif name in RAY_DEFAULTS:
            found.append(_throughput(ours, name, theirs, MIN_RATIO_TO_RAY))
    return found


def _throughput(ours: Sequence[Sample], name: str, theirs: Sequence[Sample], limit: float) -> Goal:
    reached = throughput_ratio(ours, theirs)
    return Goal(f"requests/s over {name}'s: at least", reached, limit, reached.median >= limit)


def _at_most(name: str, reached: Spread, limit: float) -> Goal:
    return Goal(f"{name}: at most", reached, limit, reached.median <= limit)


COLUMNS: Sequence[tuple[str, Callable[[Sample, Sample], float], int]] = [
    ("requests/s", lambda a, _: a.requests_per_s, 0),
    ("chunks/s", lambda a, _: a.chunks_per_s, 0),
    ("TTFT\np50 ms", lambda a, _: a.ttft_p50_ms, 2),
    ("added\nms", lambda a, b: a.ttft_p50_ms - b.ttft_p50_ms, 2),
    ("TTFT\np99 ms", lambda a, _: a.ttft_p99_ms, 2),
    ("CPU s per\n1,000 requests", lambda a, _: a.cpu_s_per_1000, 2),
    ("the engine's", lambda a, _: a.engine_cpu_s_per_1000, 2),
    ("the client's", lambda a, _: a.client_cpu_s_per_1000, 2),
    ("CPUs\nbeside", lambda a, _: a.beside_cpus, 2),
]
"""Heading, figure (of a sample and its round's `direct`) and digits."""


class PathReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one run found."""

    machine: Machine
    load: PathLoad
    versions: dict[str, str]
    samples: Samples
    missing: dict[str, str]
    bars: list[Goal]

    def print(self, console: Console) -> None:
        """Print all figures, the goals, and the missing contenders."""
        console.print(self._figures())
        if self.bars:
            console.print(self._goals())
        for name, why in self.missing.items():
            console.print(f"{name} skipped: {why}", highlight=False, markup=False)

    def _figures(self) -> Table:
        load = self.load
        pace = f"one in {load.token_ms:g} ms" if load.token_ms else "all at once"
        streams = f"{load.clients} clients, streams of {load.chunks} tokens, {pace}"
        table = figures_table(
            f"{streams}; TTFT with one client",
            [*(heading for heading, _, _ in COLUMNS), f"{OURS} serves\ntimes as many"],
            caption=f"median of {len(self.samples[DIRECT])} rounds, least-most; {self.machine}",
            show_lines=True,
        )
        direct, ours = self.samples[DIRECT], self.samples.get(OURS)
        for name, samples in self.samples.items():
            cells = [
                spread_cell(compared(samples, direct, figure), digits)
                for _, figure, digits in COLUMNS
            ]
            has_ratio = ours and name != OURS
            ratio = spread_cell(throughput_ratio(ours or [], samples), 2) if has_ratio else ""
            table.add_row(name, *cells, ratio)
        return table

    def _goals(self) -> Table:
        table = Table(
            title="Goals of the deployed gateway",
            caption="differences and ratios within a round; the median of all rounds decides",
        )
        for heading in ("", "median", "least-most", "goal", ""):
            table.add_column(heading, no_wrap=True)
        for goal in self.bars:
            verdict = "met" if goal.is_met else "[red]missed[/red]"
            cells = spread_cell(goal.reached, 2).split("\n")
            table.add_row(goal.name, *cells, f"{goal.limit:g}", verdict)
        return table


def draw(path: Path, report: PathReport) -> None:
    """Write a picture of a run; its format is that of the path's suffix.

    Raises:
        OSError: it cannot be written there.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    names = list(report.samples)
    figure = Figure(figsize=(14, 1.6 + 0.42 * len(names)), layout="constrained")
    throughput, cpu, ttft = figure.subplots(1, 3, sharey=True)
    load = report.load
    title = f"requests/s, {load.clients} clients, {load.chunks} tokens each\n(more is better)"
    _draw_points(throughput, title, report, lambda s: s.requests_per_s)
    title = "CPU seconds per 1,000 requests, engine excepted\n(less is better)"
    _draw_points(cpu, title, report, lambda s: s.cpu_s_per_1000)
    title = "time to first token, ms, one client\n(less is better)"
    _draw_points(ttft, title, report, lambda s: s.ttft_p50_ms)
    throughput.set_yticks(range(len(names)), names)
    throughput.set_ylim(len(names) - 0.5, -0.5)
    rounds = len(report.samples[DIRECT])
    note = (
        f"points: medians of {rounds} round{'s'[: rounds > 1]}; lines: least to most; "
        "scales are logarithmic: each step is ten times the last"
    )
    figure.supxlabel(f"{note}; {report.machine}", fontsize=8)
    figure.savefig(path, dpi=120)


def _draw_points(
    axes: "Axes", title: str, report: PathReport, figure: Callable[[Sample], float]
) -> None:
    """A point for each contender, with its spread: bars have no start on a logarithmic scale."""
    spreads = [Spread.over(map(figure, samples)) for samples in report.samples.values()]
    least = min((each.least for each in spreads if each.least > 0), default=1.0)
    most = max((each.most for each in spreads if each.most > 0), default=1.0)
    start = 10 ** math.floor(math.log10(least))
    axes.set_xscale("log")
    axes.set_xlim(start, most * 4)  # room for the labels
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.hlines(range(len(spreads)), start, most * 4, color="#e4e4e4", linewidth=0.8, zorder=0)
    for row, (name, each) in enumerate(zip(report.samples, spreads, strict=True)):
        label, end = "none", start
        if each.median > 0:
            colour, end = COLOURS.get(name, PEER_COLOUR), each.most
            axes.plot([max(each.least, start), end], [row, row], color=colour, lw=3, alpha=0.5)
            axes.plot(each.median, row, "o", color=colour, markersize=8, clip_on=False)
            label = f"{each.median:,.3g}" if each.median < 1000 else f"{each.median:,.0f}"
        axes.annotate(
            label, (end, row), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_title(title, fontsize=10)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)

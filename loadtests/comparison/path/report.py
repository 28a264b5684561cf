"""What a run of the comparison of the data path found: as JSON, and as tables."""

from collections.abc import Callable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.comparison.columns import shown
from loadtests.comparison.machine import Machine
from loadtests.comparison.path.judging import DIRECT, OURS, Bar, Samples, throughput_ratio
from loadtests.measurement import Load, Sample, spread

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
"""Heading, figure (of a sample and its round's `direct`) and digits shown."""


class Report(msgspec.Struct, frozen=True):
    """Everything one run found."""

    machine: Machine
    load: Load
    versions: dict[str, str]
    samples: Samples
    missing: dict[str, str]
    bars: list[Bar]

    def print(self, console: Console) -> None:
        """All figures, what was reached, and who is missing."""
        console.print(_figures(self))
        if self.bars:
            console.print(_bars(self.bars))
        for name, why in self.missing.items():
            console.print(f"{name} skipped: {why}", highlight=False, markup=False)


def _figures(report: Report) -> Table:
    load = report.load
    streams = f"streams of {load.chunks} tokens"
    pace = f"one in {load.token_ms:g} ms" if load.token_ms else "all at once"
    table = Table(
        title=f"{load.clients} clients, {streams}, {pace}; TTFT with one client",
        caption=f"median of {len(report.samples[DIRECT])} rounds, least-most; {report.machine}",
        show_lines=True,
    )
    table.add_column("", no_wrap=True)
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(f"{OURS} serves\ntimes as many", justify="right", no_wrap=True)
    direct, ours = report.samples[DIRECT], report.samples.get(OURS)
    for name, samples in report.samples.items():
        figures = [shown(spread(samples, direct, figure), digits) for _, figure, digits in COLUMNS]
        ratio = shown(throughput_ratio(ours, samples), 2) if ours and name != OURS else ""
        table.add_row(name, *figures, ratio)
    return table


def _bars(bars: Sequence[Bar]) -> Table:
    table = Table(
        title="What the deployed gateway should reach",
        caption="differences and ratios within a round; the median of all rounds decides",
    )
    for heading in ("", "median", "least-most", "bar", ""):
        table.add_column(heading, no_wrap=True)
    for bar in bars:
        verdict = "met" if bar.is_met else "[red]missed[/red]"
        table.add_row(bar.name, *shown(bar.reached, 2).split("\n"), f"{bar.limit:g}", verdict)
    return table

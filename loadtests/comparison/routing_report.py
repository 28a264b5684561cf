"""Report of the routing comparison: as JSON, as tables and as a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.comparison.routing_run import RoutingRun
from loadtests.comparison.routing_scores import (
    OURS,
    TPOT_SLO_S,
    TTFT_SLO_S,
    Score,
    against_best,
    ratios,
)
from loadtests.comparison.shared import Machine, figures_table
from loadtests.comparison.trace_slices import TIME_SCALE
from loadtests.loadgen.summary import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES: Sequence[tuple[str, Callable[[Score], float], str]] = [
    ("e2e mean, s", lambda s: s.e2e_mean_s, ".2f"),
    ("p50", lambda s: s.e2e_p50_s, ".2f"),
    ("p99", lambda s: s.e2e_p99_s, ".1f"),
    ("TTFT mean, s", lambda s: s.ttft_mean_s, ".2f"),
    ("p50", lambda s: s.ttft_p50_s, ".2f"),
    ("p99", lambda s: s.ttft_p99_s, ".1f"),
    ("hit rate", lambda s: s.hit_rate, ".3f"),
    ("goodput", lambda s: s.goodput, ".3f"),
]
SHOWN_SPREADS = ("e2e mean, s", "goodput")

COLOURS = {OURS: "#2e7d4f"}
PEER_COLOUR = "#9db4cc"
CLIP = 3.0
"""Limit of an axis on which less is better, over the least median."""

Panel = tuple[str, Callable[[Score], float], str, bool]
PANELS: Sequence[Panel] = [
    ("end to end, mean s\n(less is better)", lambda s: s.e2e_mean_s, "{:.2f}", False),
    ("first token, mean s\n(less is better)", lambda s: s.ttft_mean_s, "{:.2f}", False),
    ("goodput\n(more is better)", lambda s: s.goodput, "{:.0%}", True),
    ("prefix hit rate\n(more is better)", lambda s: s.hit_rate, "{:.2f}", True),
]
"""Title, figure, format, and whether more of it is better."""

Runs = dict[str, list[RoutingRun]]
"""Runs on one workload by contender, one per round."""


class RoutingReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one run of the command found."""

    machine: Machine
    seconds: float
    """Seconds of the clock that are scored in each run."""
    versions: dict[str, str]
    missing: dict[str, str]
    turns: dict[str, Runs]
    """Runs by workload."""

    @property
    def doubts(self) -> dict[str, str]:
        """Runs that are not to be trusted, and why."""
        return {
            f"{workload}, round {number + 1}, {name}": run.doubt
            for workload, runs in self.turns.items()
            for name, rounds in runs.items()
            for number, run in enumerate(rounds)
            if run.doubt
        }

    def print(self, console: Console) -> None:
        """Print a table for each workload, and this gateway against the best of the others."""
        console.print(str(self.machine), markup=False)
        for workload, runs in self.turns.items():
            console.print(_table(workload, runs))
        console.print(
            f"medians of the rounds, and [their spread]; seconds of the workload: the client's, "
            f"multiplied by {TIME_SCALE}; goodput: share of all requests whose first token came "
            f"within {TTFT_SLO_S:g} s and whose others took {1000 * TPOT_SLO_S:g} ms each at most",
            markup=False,
        )
        for name, reason in self.missing.items():
            console.print(f"not compared: {name}: {reason}", markup=False)
        for title, doubt in self.doubts.items():
            console.print(f"not to be trusted: {title}: {doubt}", markup=False, style="red")
        console.print(_best_table(self.turns))


def scores(runs: Runs) -> dict[str, list[Score]]:
    """Scores by contender, one per round."""
    return {name: [run.score for run in rounds] for name, rounds in runs.items()}


def _table(workload: str, runs: Runs) -> Table:
    sent = sorted(run.score.sent for rounds in runs.values() for run in rounds)
    count = f"{sent[0]:,}" if sent[0] == sent[-1] else f"{sent[0]:,} to {sent[-1]:,}"
    headings = [heading for heading, *_ in FIGURES]
    headings += ["e2e, times ours", "rejected", "failed", "busy", "late, ms"]
    table = figures_table(f"{workload}: {count} requests a run", headings)
    by_name = scores(runs)
    for name, rounds in by_name.items():
        cells = []
        for heading, figure, digits in FIGURES:
            spread = Spread.over(map(figure, rounds))
            is_shown = heading in SHOWN_SPREADS
            cells.append(_cell(spread, digits) if is_shown else f"{spread.median:{digits}}")
        table.add_row(
            name,
            *cells,
            _cell(ratios(rounds, by_name.get(OURS, rounds), lambda s: s.e2e_mean_s), ".2f"),
            str(sum(s.rejected for s in rounds)),
            str(sum(s.failed for s in rounds)),
            _worst_cell(Spread.over(run.busy_share for run in runs[name]), ".0%"),
            _worst_cell(Spread.over(1000 * run.late_s for run in runs[name]), ".0f"),
            style="bold" if name == OURS else None,
        )
    return table


def _cell(spread: Spread, digits: str) -> str:
    """The median, and the spread where there is one."""
    if spread.least == spread.most:
        return f"{spread.median:{digits}}"
    return f"{spread.median:{digits}} \\[{spread.least:{digits}}-{spread.most:{digits}}]"


def _worst_cell(spread: Spread, digits: str) -> str:
    """The median, and the most where it differs: one bad run spoils a comparison."""
    if spread.least == spread.most:
        return f"{spread.median:{digits}}"
    return f"{spread.median:{digits}} \\[to {spread.most:{digits}}]"


def _best_table(turns: dict[str, Runs]) -> Table:
    title = f"`{OURS}` over the best of the others, round by round"
    table = Table("workload", "figure", "the best other", "ratio", title=title)
    for workload, runs in turns.items():
        for figure, name, ratio in against_best(scores(runs)):
            table.add_row(workload, figure, name, _cell(ratio, ".3f"))
    return table


def draw(path: Path, report: RoutingReport) -> None:
    """Write a picture of a run, a row for each workload; its format is that of the suffix.

    Raises:
        OSError: it cannot be written there.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    names = list(dict.fromkeys(name for runs in report.turns.values() for name in runs))
    rows = len(report.turns)
    size = (15, 1.2 + rows * (0.7 + 0.26 * len(names)))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, len(PANELS), squeeze=False, sharey=True)
    for row, (workload, runs) in zip(grid, report.turns.items(), strict=True):
        rounds = scores(runs)
        for axes, panel in zip(row, PANELS, strict=True):
            _draw_bars(axes, panel, [rounds.get(name, []) for name in names], names)
        row[0].set_ylabel(workload, fontsize=11, fontweight="bold")
        row[0].set_yticks(range(len(names)), names, fontsize=9)
    for axes, (title, *_) in zip(grid[0], PANELS, strict=True):
        axes.set_title(title, fontsize=10)
    grid[0][0].invert_yaxis()
    count = max(len(rounds) for runs in report.turns.values() for rounds in runs.values())
    figure.supxlabel(
        f"medians of {count} round{'s'[: count > 1]}, lines from the least to the most; an arrow: "
        "it goes on; seconds of the workload",
        fontsize=9,
    )
    figure.savefig(path, dpi=130)


def _draw_bars(
    axes: "Axes", panel: Panel, rounds: Sequence[Sequence[Score]], names: Sequence[str]
) -> None:
    """A bar for each contender, with its spread; none for one that left the workload."""
    _, figure, label_format, is_gain = panel
    spreads = {row: Spread.over(map(figure, each)) for row, each in enumerate(rounds) if each}
    limit = _axis_limit(list(spreads.values()), is_gain=is_gain)
    for row, name in enumerate(names):
        if row not in spreads:
            axes.text(0.02 * limit, row, "left out", va="center", fontsize=9, color="#777777")
            continue
        spread = spreads[row]
        width, colour = min(spread.median, limit), COLOURS.get(name, PEER_COLOUR)
        axes.barh(row, width, color=colour, height=0.7)
        if spread.least < limit and spread.most > spread.least:
            axes.plot([spread.least, min(spread.most, limit)], [row, row], "k-", lw=1)
        end = min(max(spread.most, spread.median), limit)
        label = label_format.format(spread.median) + (" →" if spread.median > limit else "")
        axes.text(end + 0.02 * limit, row, label, va="center", fontsize=9)
    axes.set_xlim(0, 1.25 * limit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _axis_limit(spreads: Sequence[Spread], *, is_gain: bool) -> float:
    most = max(spread.most for spread in spreads)
    least = min(spread.median for spread in spreads)
    return (most if is_gain else min(CLIP * least, most)) or 1.0

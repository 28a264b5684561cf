"""Draws what the routing comparison found; the only module of it that needs matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.comparison.routing.report import Report, scores
from loadtests.comparison.routing.scores import OURS, Score
from loadtests.measurement import Spread

COLOUR = "#9db4cc"
OWN = "#2e7d4f"
CLIP = 3.0
"""How many times the least (where less is better) an axis shows."""

Panel = tuple[str, Callable[[Score], float], str, bool]
PANELS: Sequence[Panel] = [
    ("end to end, mean s\n(less is better)", lambda s: s.e2e_mean_s, "{:.2f}", False),
    ("first token, mean s\n(less is better)", lambda s: s.ttft_mean_s, "{:.2f}", False),
    ("goodput\n(more is better)", lambda s: s.goodput, "{:.0%}", True),
    ("prefix hit rate\n(more is better)", lambda s: s.hit_rate, "{:.2f}", True),
]
"""Title, figure, how it is written, and whether more of it is better."""


def draw(path: Path, report: Report) -> None:
    """Write a picture of a run, a row for each workload; its format is that of the suffix.

    Raises:
        OSError: it cannot be written there.
    """
    names = list(dict.fromkeys(name for turns in report.turns.values() for name in turns))
    rows = len(report.turns)
    size = (15, 1.2 + rows * (0.7 + 0.26 * len(names)))
    figure = Figure(figsize=size, layout="constrained")
    every = figure.subplots(rows, len(PANELS), squeeze=False, sharey=True)
    for row, (workload, turns) in zip(every, report.turns.items(), strict=True):
        rounds = scores(turns)
        for axes, panel in zip(row, PANELS, strict=True):
            _bars(axes, panel, [rounds.get(name, []) for name in names], names)
        row[0].set_ylabel(workload, fontsize=11, fontweight="bold")
        row[0].set_yticks(range(len(names)), names, fontsize=9)
    for axes, (title, *_) in zip(every[0], PANELS, strict=True):
        axes.set_title(title, fontsize=10)
    every[0][0].invert_yaxis()
    count = max(len(rounds) for turns in report.turns.values() for rounds in turns.values())
    figure.supxlabel(
        f"medians of {count} round{'s'[: count > 1]}, lines from the least to the most; an arrow: "
        "it goes on; seconds of the workload",
        fontsize=9,
    )
    figure.savefig(path, dpi=130)


def _bars(
    axes: Axes, panel: Panel, rounds: Sequence[Sequence[Score]], names: Sequence[str]
) -> None:
    """A bar for each contender, with its spread; none for one that left the workload."""
    _, value, words, is_gain = panel
    spreads = {place: Spread.over(map(value, every)) for place, every in enumerate(rounds) if every}
    limit = _limit(list(spreads.values()), is_gain=is_gain)
    for place, name in enumerate(names):
        if place not in spreads:
            axes.text(0.02 * limit, place, "left out", va="center", fontsize=9, color="#777777")
            continue
        spread = spreads[place]
        width = min(spread.median, limit)
        axes.barh(place, width, color=OWN if name == OURS else COLOUR, height=0.7)
        if spread.least < limit and spread.most > spread.least:
            axes.plot([spread.least, min(spread.most, limit)], [place, place], "k-", lw=1)
        end = min(max(spread.most, spread.median), limit)
        label = words.format(spread.median) + (" →" if spread.median > limit else "")
        axes.text(end + 0.02 * limit, place, label, va="center", fontsize=9)
    axes.set_xlim(0, 1.25 * limit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _limit(spreads: Sequence[Spread], *, is_gain: bool) -> float:
    most = max(spread.most for spread in spreads)
    least = min(spread.median for spread in spreads)
    return (most if is_gain else min(CLIP * least, most)) or 1.0

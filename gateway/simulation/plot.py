"""Plots a comparison of policies; the only module that needs matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gateway.simulation.comparison import Comparison
from gateway.simulation.scores import PolicyResult

COLOUR = "#4878a8"
BEST = "#2e7d4f"


def draw(path: Path, comparison: Comparison) -> None:
    """Write a plot of a comparison, in the format of the path's suffix.

    Raises:
        OSError: the file cannot be written.
    """
    results, infinite = comparison.results, comparison.infinite_cache_hit_rate
    figure = Figure(figsize=(13, 2.2 + 0.45 * len(results)), layout="constrained")
    figure.suptitle(comparison.headline)
    hits, ttft, tpot, e2e = figure.subplots(1, 4, sharey=True)
    _bars(hits, "prefix hit rate\n(more is better)", results, lambda result: result.hit_rate, max)
    hits.axvline(infinite, color="black", linestyle=":")
    hits.set_xlim(0, max(1.3 * infinite, 0.1))
    hits.set_xlabel(f"dotted: one infinite cache, {infinite:.3f}", fontsize=9)
    _bars(
        ttft,
        "time to first token, s\n(less is better)",
        results,
        lambda result: result.ttft_mean_s,
        min,
    )
    ttft.set_xlabel("mean", fontsize=9)
    _bars(tpot, "time per output token, ms\n(less is better)", results, _tpot_ms, min)
    tpot.set_xlabel("90th percentile", fontsize=9)
    _bars(e2e, "end to end, s\n(less is better)", results, lambda result: result.e2e_mean_s, min)
    e2e.set_xlabel("mean", fontsize=9)
    hits.set_yticks(range(len(results)), [result.policy for result in results])
    hits.invert_yaxis()
    figure.supxlabel("green: the best, or within 1 % of it", fontsize=9)
    figure.savefig(path, dpi=120)


def _bars(
    axes: Axes,
    title: str,
    results: Sequence[PolicyResult],
    value: Callable[[PolicyResult], float],
    best: Callable[[Sequence[float]], float],
) -> None:
    """Draw a bar for each policy, in green if it is within 1 % of the best."""
    values = [value(result) for result in results]
    top = best(values)
    colours = [BEST if abs(each - top) <= 0.01 * top else COLOUR for each in values]
    bars = axes.barh(range(len(values)), values, color=colours)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.bar_label(bars, fmt="{:.3g}", padding=4, fontsize=9, bbox=paper)
    axes.set_title(title, fontsize=10)
    axes.set_xlim(0, 1.3 * max(*values, 1e-9))
    axes.spines[["top", "right"]].set_visible(False)


def _tpot_ms(result: PolicyResult) -> float:
    return 1000 * result.tpot_p90_s

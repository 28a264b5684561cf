"""Draws how policies compare on a workload; the only module that needs matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gateway.simulation.comparison import Comparison
from gateway.simulation.scores import Score

COLOUR = "#4878a8"
BEST = "#2e7d4f"


def draw(path: Path, comparison: Comparison) -> None:
    """Write a picture of a comparison; its format is that of the path's suffix.

    Raises:
        OSError: it cannot be written there.
    """
    scores, infinite = comparison.scores, comparison.infinite_cache_hit_rate
    figure = Figure(figsize=(13, 2.2 + 0.45 * len(scores)), layout="constrained")
    figure.suptitle(comparison.headline)
    hits, ttft, tpot, e2e = figure.subplots(1, 4, sharey=True)
    _bars(hits, "prefix hit rate\n(more is better)", scores, lambda s: s.hit_rate, max)
    hits.axvline(infinite, color="black", linestyle=":")
    hits.set_xlim(0, max(1.3 * infinite, 0.1))
    hits.set_xlabel(f"dotted: one infinite cache, {infinite:.3f}", fontsize=9)
    _bars(ttft, "time to first token, s\n(less is better)", scores, lambda s: s.ttft_mean_s, min)
    ttft.set_xlabel("mean", fontsize=9)
    _bars(tpot, "time per output token, ms\n(less is better)", scores, _tpot_ms, min)
    tpot.set_xlabel("90th percentile", fontsize=9)
    _bars(e2e, "end to end, s\n(less is better)", scores, lambda s: s.e2e_mean_s, min)
    e2e.set_xlabel("mean", fontsize=9)
    hits.set_yticks(range(len(scores)), [score.policy for score in scores])
    hits.invert_yaxis()
    figure.supxlabel("green: the best, or within 1 % of it", fontsize=9)
    figure.savefig(path, dpi=120)


def _bars(
    axes: Axes,
    title: str,
    scores: Sequence[Score],
    value: Callable[[Score], float],
    best: Callable[[Sequence[float]], float],
) -> None:
    """A bar for each policy, those that come within 1 % of the best in green."""
    values = [value(score) for score in scores]
    top = best(values)
    colours = [BEST if abs(each - top) <= 0.01 * top else COLOUR for each in values]
    bars = axes.barh(range(len(values)), values, color=colours)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.bar_label(bars, fmt="{:.3g}", padding=4, fontsize=9, bbox=paper)
    axes.set_title(title, fontsize=10)
    axes.set_xlim(0, 1.3 * max(*values, 1e-9))
    axes.spines[["top", "right"]].set_visible(False)


def _tpot_ms(score: Score) -> float:
    return 1000 * score.tpot_p90_s

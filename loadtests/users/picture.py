"""A test over time in one picture: users, first tokens, who got none, tokens a second, replicas."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.users.figures import Spread
from loadtests.users.outcome import Fate, Outcome
from loadtests.users.pieces import Pieces
from loadtests.users.results import Results
from loadtests.workloads.catalogue import TRACE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

COLOURS = ("#4878a8", "#c77c2e", "#2e7d4f", "#8a5aa8", "#3f9c9c", "#a3486f")
GREY = "#808080"
UNANSWERED = {Fate.REJECTED: "#d9a441", Fate.FAILED: "#b03a2e", Fate.CUT: GREY}
OTHERS = "all others"


def draw(path: Path, results: Results, outcomes: Sequence[Outcome]) -> None:
    """Write a picture; its format is that of the path's suffix."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    scene = Scene(results, outcomes)
    panels = scene.panels()
    heights = [height for height, _ in panels]
    figure = Figure(figsize=(11, sum(heights) * 2.4 + 0.6), layout="constrained")
    figure.suptitle(_title(results))
    grid = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights)
    for axes, (_, fill) in zip(grid, panels, strict=True):
        fill(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis="y", alpha=0.3)
        axes.set_ylim(bottom=0)
    grid[-1].set_xlabel("seconds")
    grid[-1].set_xlim(0, scene.seconds)
    figure.align_ylabels()
    figure.savefig(path, dpi=120)


def _title(results: Results) -> str:
    total = results.total
    counts = (
        f"{total.answered:,} answered, {total.rejected:,} rejected, {total.failed:,} failed, "
        f"{total.cut:,} cut"
    )
    hits = "" if total.hit_rate is None else f", {total.hit_rate:.0%} of prompt tokens cached"
    return f"{results.setting.title}: {counts}{hits}"


class Scene:
    """What there is to draw, in seconds since the beginning."""

    def __init__(self, results: Results, outcomes: Sequence[Outcome]) -> None:
        self.seconds = results.seconds
        self._begun_s = results.setting.begun_s
        self._is_trace = results.setting.workload == TRACE
        self._looks = results.looks
        self._peak = results.peak
        self._outcomes = outcomes
        self._good = [o for o in outcomes if o.fate is Fate.ANSWERED]
        self._pieces = Pieces(self.seconds)
        made = Counter(
            {name: figures.completion_tokens for name, figures in results.models.items()}
        )
        self._models = [name for name, _ in made.most_common(len(COLOURS))]
        self._colours = dict(zip(self._models, COLOURS, strict=False)) | {OTHERS: GREY}

    def panels(self) -> Sequence[tuple[float, Callable[["Axes"], None]]]:
        """What draws each panel for which there is something, and its height."""
        demand = self.draw_sent if self._is_trace else self.draw_users
        found = [(0.5, demand), (1.2, self.draw_waits)]
        if len(self._good) < len(self._outcomes):
            found.append((0.6, self.draw_unanswered))
        found.append((1.0, self.draw_tokens))
        if any(look.replicas for look in self._looks):
            found.append((0.6, self.draw_replicas))
        return found

    def draw_users(self, axes: "Axes") -> None:
        """How many there are."""
        seen = [(look.at_s - self._begun_s, look.users) for look in self._looks]
        axes.step(*_columns(self._lasting(seen)), where="post", color=GREY)
        axes.set_ylabel("users")
        axes.yaxis.set_major_locator(_whole_numbers())

    def draw_sent(self, axes: "Axes") -> None:
        """How many requests of a trace were due in a second."""
        pieces = self._pieces
        counts = pieces.counts(map(self._at_s, self._outcomes))
        rates = [count / pieces.length_s for count in counts]
        axes.bar(pieces.starts_s, rates, pieces.length_s, align="edge", color=GREY)
        axes.set_ylabel("requests/s")

    def draw_waits(self, axes: "Axes") -> None:
        """Each first token, the median and the 90th percentile."""
        timed = [(self._at_s(o), o.ttft_s) for o in self._good if o.ttft_s is not None]
        times, waits = _columns(timed)
        axes.plot(times, waits, ".", ms=4, alpha=0.35, color=COLOURS[0], label="each request")
        middle = [(at_s, spread.p50) for at_s, spread in self._spreads(timed)]
        axes.plot(*_columns(middle), color=COLOURS[0], label="median")
        upper = [(at_s, spread.p90) for at_s, spread in self._spreads(timed)]
        axes.plot(*_columns(upper), color=COLOURS[0], ls=":", label="90th percentile")
        axes.set_ylabel("time to first\ntoken, s")
        _explain(axes)

    def draw_unanswered(self, axes: "Axes") -> None:
        """How many requests of each piece came to nothing, one kind on top of the other."""
        pieces = self._pieces
        below = [0] * pieces.count
        for fate, colour in UNANSWERED.items():
            times = [self._at_s(o) for o in self._outcomes if o.fate is fate]
            if not times:
                continue
            counts = pieces.counts(times)
            axes.bar(
                pieces.starts_s,
                counts,
                pieces.length_s,
                below,
                align="edge",
                color=colour,
                label=str(fate),
            )
            below = [lower + count for lower, count in zip(below, counts, strict=True)]
        axes.set_ylabel(f"requests in\n{pieces.length_s:.1f} s")
        axes.yaxis.set_major_locator(_whole_numbers())
        _explain(axes)

    def draw_tokens(self, axes: "Axes") -> None:
        """Of all requests of a model together, and which part of the time is the peak."""
        if self._peak:
            axes.axvspan(
                self._peak.begin_s, self._peak.end_s, color=GREY, alpha=0.12, lw=0, label="peak"
            )
        for model, rates in self._rates().items():
            axes.plot(self._pieces.middles_s, rates, color=self._colours[model], label=model)
        axes.set_ylabel("tokens/s")
        _explain(axes)

    def draw_replicas(self, axes: "Axes") -> None:
        """Of the models that were asked."""
        for model in self._models:
            seen = [
                (look.at_s - self._begun_s, look.replicas[model])
                for look in self._looks
                if model in look.replicas
            ]
            times, counts = _columns(self._lasting(seen))
            axes.step(times, counts, where="post", color=self._colours[model], label=model)
        axes.set_ylabel("replicas")
        axes.yaxis.set_major_locator(_whole_numbers())
        _, most = axes.get_ylim()
        axes.set_ylim(top=most + 1)
        _explain(axes)

    def _lasting(self, seen: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
        """What was seen last, up to the end."""
        return [*seen, (self.seconds, seen[-1][1])] if seen else seen

    def _at_s(self, outcome: Outcome) -> float:
        return outcome.due_s - self._begun_s

    def _spreads(self, timed: Sequence[tuple[float, float]]) -> Iterator[tuple[float, Spread]]:
        pieces: dict[int, list[float]] = {}
        for at_s, value in timed:
            pieces.setdefault(self._pieces.at(at_s), []).append(value)
        for piece, values in sorted(pieces.items()):
            if spread := Spread.of(values):
                yield self._pieces.middles_s[piece], spread

    def _rates(self) -> Mapping[str, list[float]]:
        """Tokens a second of each model, piece by piece, answers spread evenly over their time."""
        rates: dict[str, list[float]] = {}
        for outcome in self._good:
            model = outcome.model if outcome.model in self._models else OTHERS
            found = rates.setdefault(model, [0.0] * self._pieces.count)
            begin_s = self._at_s(outcome) + (outcome.ttft_s or 0.0)
            end_s = self._at_s(outcome) + outcome.e2e_s
            for piece, share in self._pieces.shares(begin_s, end_s):
                found[piece] += outcome.completion_tokens * share / self._pieces.length_s
        return rates


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _whole_numbers() -> "Locator":
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

    return MaxNLocator(nbins=4, integer=True)


def _explain(axes: "Axes") -> None:
    """Beside the lines, where none is covered."""
    if axes.get_legend_handles_labels()[0]:  # of nothing, matplotlib warns
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")

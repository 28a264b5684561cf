"""Plot of a locust test over time: users, TTFT, unanswered requests, tokens/s, replicas."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.loadgen.outcome import RequestOutcome, Status, answered
from loadtests.loadgen.summary import Distribution, TimeSpan
from loadtests.locust_users.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#4878a8", "#c77c2e", "#2e7d4f", "#8a5aa8", "#3f9c9c", "#a3486f")
GREY = "#808080"
UNANSWERED = {Status.REJECTED: "#d9a441", Status.FAILED: "#b03a2e", Status.CUT: GREY}
MAX_BINS = 40
MIN_BIN_S = 2.0


def draw(path: Path, results: Results, outcomes: Sequence[RequestOutcome]) -> None:
    """Write a picture; its format is that of the path's suffix."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    plot = Plot(results, outcomes)
    panels = [(0.5, plot.draw_load), (1.2, plot.draw_ttft), (1.0, plot.draw_tokens)]
    if len(answered(outcomes)) < len(outcomes):
        panels.insert(2, (0.6, plot.draw_unanswered))
    if any(observation.replicas for observation in results.looks):
        panels.append((0.6, plot.draw_replicas))
    heights = [height for height, _ in panels]
    figure = Figure(figsize=(11, sum(heights) * 2.4 + 0.6), layout="constrained")
    total = results.total
    hits = "" if total.hit_rate is None else f", {total.hit_rate:.0%} of prompt tokens cached"
    figure.suptitle(
        f"{results.setting.title}: {total.answered:,} answered, {total.rejected:,} rejected, "
        f"{total.failed:,} failed, {total.cut:,} cut{hits}"
    )
    grid = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights)
    for axes, (_, fill) in zip(grid, panels, strict=True):
        fill(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis="y", alpha=0.3)
        axes.set_ylim(bottom=0)
        if axes.get_legend_handles_labels()[0]:  # of nothing, matplotlib warns
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
    grid[-1].set_xlabel("seconds")
    grid[-1].set_xlim(0, results.seconds)
    figure.align_ylabels()
    figure.savefig(path, dpi=120)


class Plot:
    """Panels of the picture; the time is cut into bins of equal length."""

    def __init__(self, results: Results, outcomes: Sequence[RequestOutcome]) -> None:
        self._results = results
        self._start_s = results.setting.begun_s
        self._outcomes = outcomes
        self._good = answered(outcomes)
        count = max(1, min(MAX_BINS, int(results.seconds / MIN_BIN_S)))
        self._width_s = results.seconds / count
        self._bins = [
            TimeSpan(begin_s=number * self._width_s, end_s=(number + 1) * self._width_s)
            for number in range(count)
        ]
        self._edges_s = [*(each.begin_s for each in self._bins), results.seconds]
        self._middles_s = [each.begin_s + self._width_s / 2 for each in self._bins]
        models = sorted(results.models, key=lambda name: -results.models[name].completion_tokens)
        self._colours = dict(zip(models, COLOURS, strict=False))

    def draw_load(self, axes: "Axes") -> None:
        """Users; of a trace, requests that were due in a second."""
        if self._results.setting.is_trace:
            times = [self._at_s(outcome) for outcome in self._outcomes]
            axes.hist(times, self._edges_s, weights=[1 / self._width_s] * len(times), color=GREY)
            axes.set_ylabel("requests/s")
            return
        self._step(axes, {o.at_s: o.users for o in self._results.looks}, GREY, "")
        axes.set_ylabel("users")

    def draw_ttft(self, axes: "Axes") -> None:
        """TTFT of each request, with the median and the 90th percentile of each bin."""
        timed = [(self._at_s(o), o.ttft_s) for o in self._good if o.ttft_s is not None]
        times, ttfts = [at_s for at_s, _ in timed], [ttft_s for _, ttft_s in timed]
        axes.plot(times, ttfts, ".", ms=4, alpha=0.35, color=COLOURS[0], label="each request")
        binned: dict[int, list[float]] = defaultdict(list)
        for at_s, ttft_s in timed:
            binned[min(int(at_s / self._width_s), len(self._bins) - 1)].append(ttft_s)
        found = [(n, d) for n in sorted(binned) if (d := Distribution.of(binned[n]))]
        middles = [self._middles_s[number] for number, _ in found]
        axes.plot(middles, [d.p50 for _, d in found], color=COLOURS[0], label="median")
        p90 = [d.p90 for _, d in found]
        axes.plot(middles, p90, color=COLOURS[0], ls=":", label="90th percentile")
        axes.set_ylabel("time to first\ntoken, s")

    def draw_unanswered(self, axes: "Axes") -> None:
        """Unanswered requests of each bin, stacked by status."""
        times = {
            status: [self._at_s(o) for o in self._outcomes if o.status is status]
            for status in UNANSWERED
        }
        kinds = [status for status in UNANSWERED if times[status]]
        axes.hist(
            [times[status] for status in kinds],
            self._edges_s,
            stacked=True,
            color=[UNANSWERED[status] for status in kinds],
            label=[str(status) for status in kinds],
        )
        axes.set_ylabel(f"requests in\n{self._width_s:.1f} s")

    def draw_tokens(self, axes: "Axes") -> None:
        """Output tokens a second of the busiest models, with the peak in grey."""
        if peak := self._results.peak:
            axes.axvspan(peak.begin_s, peak.end_s, color=GREY, alpha=0.12, lw=0, label="peak")
        for model, colour in self._colours.items():
            axes.plot(self._middles_s, self._token_rates(model), color=colour, label=model)
        axes.set_ylabel("tokens/s")

    def draw_replicas(self, axes: "Axes") -> None:
        """Replicas by model."""
        for model, colour in self._colours.items():
            seen = {o.at_s: o.replicas[model] for o in self._results.looks if model in o.replicas}
            self._step(axes, seen, colour, model)
        axes.set_ylabel("replicas")
        axes.set_ylim(top=axes.get_ylim()[1] + 1)

    def _step(self, axes: "Axes", seen: Mapping[float, int], colour: str, label: str) -> None:
        """Draw whole numbers over time, the last one up to the end."""
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

        times = [*(at_s - self._start_s for at_s in seen), self._results.seconds]
        counts = [*seen.values(), *[*seen.values()][-1:]]
        axes.step(times[: len(counts)], counts, where="post", color=colour, label=label)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))

    def _at_s(self, outcome: RequestOutcome) -> float:
        return outcome.due_s - self._start_s

    def _token_rates(self, model: str) -> list[float]:
        rates = [0.0] * len(self._bins)
        for outcome in self._good:
            if outcome.model != model:
                continue
            begin_s = self._at_s(outcome) + (outcome.ttft_s or 0.0)
            end_s = self._at_s(outcome) + outcome.e2e_s
            for number, each in enumerate(self._bins):
                tokens = outcome.completion_tokens * each.share(begin_s, end_s)
                rates[number] += tokens / self._width_s
        return rates

"""A test over time in one picture: users, first tokens, tokens a second, replicas."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.users.outcome import Fate, Outcome
from loadtests.users.results import Results, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

PIECES = 40
LEAST_PIECE_S = 2.0
"""The time is cut into so many pieces, none shorter than that."""
COLOURS = ("#4878a8", "#c77c2e", "#2e7d4f", "#8a5aa8", "#3f9c9c", "#a3486f")
GREY = "#808080"
RED = "#b03a2e"
OTHERS = "all others"


def draw(path: Path, results: Results, outcomes: Sequence[Outcome]) -> None:
    """Write a picture; its format is that of the path's suffix."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    has_replicas = any(look.replicas for look in results.looks)
    heights = (0.5, 1.2, 1.0, 0.6)[: 4 if has_replicas else 3]
    figure = Figure(figsize=(11, sum(heights) * 2.4 + 0.6), layout="constrained")
    users, waits, tokens, *replicas = figure.subplots(
        len(heights), 1, sharex=True, height_ratios=heights
    )
    figure.suptitle(_title(results))
    scene = _Scene(results, outcomes)
    scene.draw_users(users)
    scene.draw_waits(waits)
    scene.draw_tokens(tokens)
    for axes in replicas:
        scene.draw_replicas(axes)
    for axes in (last := (users, waits, tokens, *replicas)):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis="y", alpha=0.3)
        axes.set_ylim(bottom=0)
    last[-1].set_xlabel("seconds")
    last[-1].set_xlim(0, scene.seconds)
    figure.align_ylabels()
    figure.savefig(path, dpi=120)


def _title(results: Results) -> str:
    total = results.total
    counts = f"{total.answered:,} answered, {total.rejected:,} rejected, {total.failed:,} failed"
    hits = "" if total.hit_rate is None else f", {total.hit_rate:.0%} of prompt tokens cached"
    return f"{results.setting.title}: {counts}{hits}"


class _Scene:
    """What there is to draw, in seconds since the beginning."""

    def __init__(self, results: Results, outcomes: Sequence[Outcome]) -> None:
        self.seconds = results.seconds
        self._begun_s = results.setting.begun_s
        self._looks = results.looks
        self._outcomes = outcomes
        self._good = [o for o in outcomes if o.fate is Fate.ANSWERED]
        self._piece_s = max(LEAST_PIECE_S, self.seconds / PIECES)
        made = Counter(
            {name: figures.completion_tokens for name, figures in results.models.items()}
        )
        self._models = [name for name, _ in made.most_common(len(COLOURS))]
        self._colours = dict(zip(self._models, COLOURS, strict=False)) | {OTHERS: GREY}

    def draw_users(self, axes: "Axes") -> None:
        """How many there are."""
        seen = [(look.at_s - self._begun_s, look.users) for look in self._looks]
        axes.step(*_columns(self._lasting(seen)), where="post", color=GREY)
        axes.set_ylabel("users")
        axes.yaxis.set_major_locator(_whole_numbers())

    def draw_waits(self, axes: "Axes") -> None:
        """Each first token, the median and the 90th percentile; what got none, at the bottom."""
        timed = [(self._at_s(o), o.ttft_s) for o in self._good if o.ttft_s is not None]
        times, waits = _columns(timed)
        axes.plot(times, waits, ".", ms=4, alpha=0.35, color=COLOURS[0], label="each request")
        middle = [(at_s, spread.p50) for at_s, spread in self._spreads(timed)]
        axes.plot(*_columns(middle), color=COLOURS[0], label="median")
        upper = [(at_s, spread.p90) for at_s, spread in self._spreads(timed)]
        axes.plot(*_columns(upper), color=COLOURS[0], ls=":", label="90th percentile")
        for fate, marker in ((Fate.REJECTED, "x"), (Fate.FAILED, "v")):
            times = [self._at_s(o) for o in self._outcomes if o.fate is fate]
            if times:
                zeros = [0.0] * len(times)
                axes.plot(times, zeros, marker, ms=5, color=RED, clip_on=False, label=str(fate))
        axes.set_ylabel("time to first\ntoken, s")
        _explain(axes)

    def draw_tokens(self, axes: "Axes") -> None:
        """Of all requests of a model together."""
        for model, rates in self._rates().items():
            times = [(piece + 0.5) * self._piece_s for piece in range(len(rates))]
            axes.plot(times, rates, color=self._colours[model], label=model)
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
        return outcome.sent_s - self._begun_s

    def _spreads(self, timed: Sequence[tuple[float, float]]) -> Iterator[tuple[float, Spread]]:
        pieces: dict[int, list[float]] = {}
        for at_s, value in timed:
            pieces.setdefault(int(at_s / self._piece_s), []).append(value)
        for piece, values in sorted(pieces.items()):
            if spread := Spread.of(values):
                yield (piece + 0.5) * self._piece_s, spread

    def _rates(self) -> Mapping[str, list[float]]:
        """Tokens a second of each model, piece by piece, answers spread evenly over their time."""
        count = int(self.seconds / self._piece_s) + 1
        rates: dict[str, list[float]] = {}
        for outcome in self._good:
            model = outcome.model if outcome.model in self._models else OTHERS
            found = rates.setdefault(model, [0.0] * count)
            end = self._at_s(outcome) + outcome.e2e_s
            begin = self._at_s(outcome) + (outcome.ttft_s or 0.0)
            for piece, share in _shares(begin / self._piece_s, end / self._piece_s):
                found[min(piece, count - 1)] += outcome.completion_tokens * share / self._piece_s
        return rates


def _shares(begin: float, end: float) -> Iterator[tuple[int, float]]:
    """The pieces, each one long, that a time touches, and how much of it is in each."""
    for piece in range(int(begin), int(end) + 1):
        inside = min(end, piece + 1) - max(begin, piece)
        yield piece, inside / (end - begin) if end > begin else 1.0


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _whole_numbers() -> "Locator":
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

    return MaxNLocator(nbins=4, integer=True)


def _explain(axes: "Axes") -> None:
    """Beside the lines, where none is covered."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")

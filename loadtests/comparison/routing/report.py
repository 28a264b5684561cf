"""What a run of the routing comparison found: as JSON, and as tables."""

from collections.abc import Callable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.comparison.machine import Machine
from loadtests.comparison.routing.scores import (
    OURS,
    TPOT_SLO_S,
    TTFT_SLO_S,
    Score,
    Verdict,
    judge,
    ratios,
)
from loadtests.comparison.routing.stretches import SPEED, TRACE
from loadtests.comparison.routing.turn import Turn
from loadtests.measurement import Spread

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
SPREAD = ("e2e mean, s", "goodput")
"""The figures whose spread is shown too."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one run found."""

    machine: Machine
    seconds: float
    """Of each turn, by the clock, those that only lead up to it excepted."""
    versions: dict[str, str]
    missing: dict[str, str]
    turns: dict[str, dict[str, list[Turn]]]
    """By workload and contender, one a round."""

    @property
    def verdicts(self) -> list[Verdict]:
        """What this gateway reached."""
        return [
            verdict
            for workload, turns in self.turns.items()
            for verdict in judge(workload, scores(turns), is_strict=workload.startswith(TRACE))
        ]

    @property
    def doubts(self) -> dict[str, str]:
        """Turns that are not to be trusted, and why."""
        return {
            f"{workload}, round {number + 1}, {name}": turn.doubt
            for workload, turns in self.turns.items()
            for name, rounds in turns.items()
            for number, turn in enumerate(rounds)
            if turn.doubt
        }

    def print(self, console: Console) -> None:
        """A table for each workload, and the verdicts."""
        console.print(str(self.machine), markup=False)
        for workload, turns in self.turns.items():
            console.print(_table(workload, turns))
        console.print(
            f"medians of the rounds, and [their spread]; seconds as the client measured them, times"
            f" {SPEED}, as fast as time ran; goodput: share of all requests whose first token came "
            f"within {TTFT_SLO_S:g} s and whose others took {1000 * TPOT_SLO_S:g} ms each at most",
            markup=False,
        )
        for name, reason in self.missing.items():
            console.print(f"not compared: {name}: {reason}", markup=False)
        doubts = self.doubts
        for title, doubt in doubts.items():
            console.print(f"not to be trusted: {title}: {doubt}", markup=False, style="red")
        if verdicts := self.verdicts:
            console.print(_verdicts(verdicts, len(doubts)))


def scores(turns: dict[str, list[Turn]]) -> dict[str, list[Score]]:
    """Only the scores."""
    return {name: [turn.score for turn in rounds] for name, rounds in turns.items()}


def _table(workload: str, turns: dict[str, list[Turn]]) -> Table:
    table = Table(title=f"{workload}: {_sent(turns)} requests a turn")
    table.add_column("")
    for heading, *_ in FIGURES:
        table.add_column(heading, justify="right")
    for heading in ("e2e, times ours", "rejected", "failed", "busy", "late, ms"):
        table.add_column(heading, justify="right")
    rounds = scores(turns)
    for name, every in rounds.items():
        against = ratios(every, rounds.get(OURS, every), lambda s: s.e2e_mean_s)
        table.add_row(
            name,
            *(_cell(heading, every, figure, digits) for heading, figure, digits in FIGURES),
            _spread(against, ".2f"),
            str(sum(s.rejected for s in every)),
            str(sum(s.failed for s in every)),
            _worst(Spread.over(turn.busy_share for turn in turns[name]), ".0%"),
            _worst(Spread.over(1000 * turn.late_s for turn in turns[name]), ".0f"),
            style="bold" if name == OURS else None,
        )
    return table


def _cell(
    heading: str, every: Sequence[Score], figure: Callable[[Score], float], digits: str
) -> str:
    spread = Spread.over(map(figure, every))
    return _spread(spread, digits) if heading in SPREAD else f"{spread.median:{digits}}"


def _spread(spread: Spread, digits: str) -> str:
    if spread.least == spread.most:
        return f"{spread.median:{digits}}"
    return f"{spread.median:{digits}} \\[{spread.least:{digits}}-{spread.most:{digits}}]"


def _worst(spread: Spread, digits: str) -> str:
    """The median and, where there are several, the most: one bad turn spoils a comparison."""
    if spread.least == spread.most:
        return f"{spread.median:{digits}}"
    return f"{spread.median:{digits}} \\[to {spread.most:{digits}}]"


def _sent(turns: dict[str, list[Turn]]) -> str:
    sent = [turn.score.sent for rounds in turns.values() for turn in rounds]
    return f"{min(sent):,}" if min(sent) == max(sent) else f"{min(sent):,} to {max(sent):,}"


def _verdicts(verdicts: Sequence[Verdict], doubts: int) -> Table:
    table = Table(
        title=f"`{OURS}` over the best of the others, round by round",
        caption=f"the median decides; {doubts} turns are not to be trusted, see above"
        if doubts
        else "the median decides",
    )
    for heading in ("workload", "figure", "the best other", "ratio", "wanted", ""):
        table.add_column(heading)
    for v in verdicts:
        wanted = f"{'less' if v.figure != 'goodput' else 'more'} than {v.limit:g}"
        if v.limit != 1:
            wanted = f"at {'most' if v.limit > 1 else 'least'} {v.limit:g}"
        met = "met" if v.is_met else "not met"
        table.add_row(
            v.workload,
            v.figure,
            v.best_other,
            _spread(v.ratio, ".3f"),
            wanted,
            met,
            style=None if v.is_met else "red",
        )
    return table

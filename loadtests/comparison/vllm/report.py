"""What a run with real vLLM found: as JSON, and as a table for each pair."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from gateway.simulation.scores import percentile
from loadtests.comparison.columns import WIDTH, shown
from loadtests.comparison.machine import Machine
from loadtests.comparison.vllm.client import Talk
from loadtests.measurement import Spread

OURS = "gateway"
SHOWN_REASONS = 3


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn of a contender came to; all times are of what was answered in full."""

    requests_per_s: float
    ttft_p50_ms: float
    ttft_p90_ms: float
    e2e_mean_ms: float
    hit_rate: float
    """Share of all prompt tokens that came from a KV cache."""
    asked: int
    failures: int

    @classmethod
    def of(cls, talk: Talk) -> "Figures":
        """The figures of a turn; all zero where nothing was answered."""
        good = [asked for asked in talk.asked if not asked.failure]
        ttft_ms = sorted(1000 * asked.ttft_s for asked in good) or [0.0]
        prompt_tokens = sum(asked.prompt_tokens for asked in good)
        return cls(
            requests_per_s=len(good) / talk.elapsed_s,
            ttft_p50_ms=percentile(ttft_ms, 0.5),
            ttft_p90_ms=percentile(ttft_ms, 0.9),
            e2e_mean_ms=statistics.mean([1000 * asked.e2e_s for asked in good] or [0.0]),
            hit_rate=sum(asked.cached_tokens for asked in good) / max(1, prompt_tokens),
            asked=len(talk.asked),
            failures=len(talk.asked) - len(good),
        )


COLUMNS: Sequence[tuple[str, Callable[[Figures], float], int]] = [
    ("requests/s", lambda f: f.requests_per_s, 1),
    ("TTFT\np50 ms", lambda f: f.ttft_p50_ms, 0),
    ("TTFT\np90 ms", lambda f: f.ttft_p90_ms, 0),
    ("end to end\nmean ms", lambda f: f.e2e_mean_ms, 0),
    ("prefix\nhit rate", lambda f: f.hit_rate, 3),
]

Block = Mapping[str, Sequence[Talk]]
"""The turns of two contenders that took turns, by name."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one run found."""

    machine: Machine
    workload: str
    versions: dict[str, str]
    missing: dict[str, str]
    blocks: list[dict[str, list[Talk]]]

    def print(self, console: Console) -> None:
        """A table for each block, and who is missing."""
        for block in self.blocks:
            console.print(_table(self, block))
            for line in failures(block):
                console.print(line, highlight=False, markup=False, style="red")
        for name, why in self.missing.items():
            console.print(f"{name} skipped: {why}", highlight=False, markup=False)


def _table(report: Report, block: Block) -> Table:
    table = Table(
        title=report.workload,
        caption=f"median, least-most; {report.machine}",
        show_lines=True,
        width=min(WIDTH, 130),
    )
    table.add_column("", no_wrap=True)
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("failed", justify="right", no_wrap=True)
    table.add_column(f"{OURS} is faster\nto the end, times", justify="right")
    figures = {name: [Figures.of(talk) for talk in talks] for name, talks in block.items()}
    for name, turns in figures.items():
        table.add_row(
            name,
            *(shown(Spread.over(map(value, turns)), digits) for _, value, digits in COLUMNS),
            _failed(turns),
            shown(faster(figures[OURS], turns), 2) if name != OURS else "",
        )
    return table


def failures(block: Block) -> list[str]:
    """Who failed, how often and how; the most frequent reasons first."""
    told = []
    for name, talks in block.items():
        reasons = Counter(a.failure for talk in talks for a in talk.asked if a.failure)
        if reasons:
            failed = _failed([Figures.of(talk) for talk in talks])
            told.append(f"{name} failed {failed} requests; its figures are those of the others:")
            told += [f"  {count} times: {why}" for why, count in reasons.most_common(SHOWN_REASONS)]
    return told


def _failed(turns: Sequence[Figures]) -> str:
    """How many requests of all."""
    return f"{sum(turn.failures for turn in turns)} of {sum(turn.asked for turn in turns)}"


def faster(ours: Sequence[Figures], theirs: Sequence[Figures]) -> Spread:
    """How many times as long a request of theirs takes, round by round."""
    return Spread.over(
        b.e2e_mean_ms / a.e2e_mean_ms if a.e2e_mean_ms else 0.0
        for a, b in zip(ours, theirs, strict=True)
    )

"""Report of the vLLM comparison: as JSON, and as a table for each pair."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.comparison.shared import Machine, figures_table, spread_cell
from loadtests.comparison.vllm_conversations import RoundResult
from loadtests.loadgen.summary import Distribution, Spread

OURS = "gateway"
SHOWN_REASONS = 3


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one contender in one round; times are those of answered requests."""

    requests_per_s: float
    ttft_p50_ms: float
    ttft_p90_ms: float
    e2e_mean_ms: float
    hit_rate: float
    """Share of all prompt tokens that came from a KV cache."""
    asked: int
    failures: int

    @classmethod
    def of(cls, result: RoundResult) -> "Figures":
        """The figures of a round; all zero if nothing was answered."""
        good = [request for request in result.asked if not request.failure]
        ttft_s = Distribution.of(request.ttft_s for request in good)
        prompt_tokens = sum(request.prompt_tokens for request in good)
        return cls(
            requests_per_s=len(good) / result.elapsed_s,
            ttft_p50_ms=1000 * ttft_s.p50 if ttft_s else 0.0,
            ttft_p90_ms=1000 * ttft_s.p90 if ttft_s else 0.0,
            e2e_mean_ms=1000 * statistics.fmean([request.e2e_s for request in good] or [0.0]),
            hit_rate=sum(request.cached_tokens for request in good) / max(1, prompt_tokens),
            asked=len(result.asked),
            failures=len(result.asked) - len(good),
        )


COLUMNS: Sequence[tuple[str, Callable[[Figures], float], int]] = [
    ("requests/s", lambda f: f.requests_per_s, 1),
    ("TTFT\np50 ms", lambda f: f.ttft_p50_ms, 0),
    ("TTFT\np90 ms", lambda f: f.ttft_p90_ms, 0),
    ("end to end\nmean ms", lambda f: f.e2e_mean_ms, 0),
    ("prefix\nhit rate", lambda f: f.hit_rate, 3),
]

Block = Mapping[str, Sequence[RoundResult]]
"""Rounds of two contenders, by name."""


class VllmReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one run found."""

    machine: Machine
    workload: str
    versions: dict[str, str]
    missing: dict[str, str]
    blocks: list[dict[str, list[RoundResult]]]

    def print(self, console: Console) -> None:
        """Print a table for each block, and the missing contenders."""
        for block in self.blocks:
            console.print(self._table(block))
            for line in failures(block):
                console.print(line, highlight=False, markup=False, style="red")
        for name, why in self.missing.items():
            console.print(f"{name} skipped: {why}", highlight=False, markup=False)

    def _table(self, block: Block) -> Table:
        caption = f"median, least-most; {self.machine}"
        headings = [heading for heading, _, _ in COLUMNS]
        headings += ["failed", f"{OURS} is faster\nto the end, times"]
        table = figures_table(self.workload, headings, caption=caption, show_lines=True)
        figures = {name: [Figures.of(each) for each in rounds] for name, rounds in block.items()}
        for name, rounds in figures.items():
            table.add_row(
                name,
                *(spread_cell(Spread.over(map(f, rounds)), digits) for _, f, digits in COLUMNS),
                _failed(rounds),
                spread_cell(faster(figures[OURS], rounds), 2) if name != OURS else "",
            )
        return table


def failures(block: Block) -> list[str]:
    """Failed requests of each contender, with the most frequent reasons."""
    lines = []
    for name, rounds in block.items():
        reasons = Counter(a.failure for result in rounds for a in result.asked if a.failure)
        if reasons:
            failed = _failed([Figures.of(result) for result in rounds])
            lines.append(f"{name} failed {failed} requests; its figures are those of the others:")
            lines += [
                f"  {count} times: {why}" for why, count in reasons.most_common(SHOWN_REASONS)
            ]
    return lines


def _failed(rounds: Sequence[Figures]) -> str:
    return f"{sum(each.failures for each in rounds)} of {sum(each.asked for each in rounds)}"


def faster(ours: Sequence[Figures], theirs: Sequence[Figures]) -> Spread:
    """Mean end-to-end time of theirs over ours, round by round."""
    return Spread.over(
        b.e2e_mean_ms / a.e2e_mean_ms if a.e2e_mean_ms else 0.0
        for a, b in zip(ours, theirs, strict=True)
    )

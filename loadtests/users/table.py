"""The figures of a test as a short table."""

import itertools
from collections.abc import Iterator, Mapping

from rich.table import Table

from loadtests.users.figures import Figures, Spread
from loadtests.users.results import Results

HEADINGS = (
    "sent",
    "answered",
    "rejected",
    "failed",
    "cut",
    "TTFT p50/p99, s",
    "ITL p50, ms",
    "E2E p50/p99, s",
    "tokens/s",
    "at peak",
    "hit rate",
)
TOLD_REASONS = 10
"""Some servers put something new into each message."""


def table(results: Results) -> Table:
    """A row for each model, and one for all where there are several."""
    found = Table(title=f"{results.setting.title}, {results.seconds:.0f} s")
    found.add_column("model")
    for heading in HEADINGS:
        found.add_column(heading, justify="right")
    for model, figures in results.models.items():
        found.add_row(model, *_cells(figures))
    if len(results.models) != 1:
        found.add_row("all", *_cells(results.total))
    return found


def remarks(results: Results) -> Iterator[str]:
    """What else there is to know, above all what went wrong, in a line each."""
    total = results.total
    if not total.answered:
        yield "no request was answered"
    yield from _counted("rejected", total.rejections)
    yield from _counted("failed", total.failures)
    if total.cut:
        yield f"cut {total.cut:,} times: still on its way at the end"
    if results.unsent:
        yield f"the time was over before the trace: {results.unsent:,} requests were not sent"
    if late := results.late_s:
        yield (
            f"sent late by {late.p50 * 1000:.1f} ms (p99: {late.p99 * 1000:.1f} ms), which counts:"
            " all times are from when a request was due"
        )


def _counted(fate: str, reasons: Mapping[str, int]) -> Iterator[str]:
    for reason, count in itertools.islice(reasons.items(), TOLD_REASONS):
        yield f"{fate} {count:,} times: {reason}"
    if rest := [*reasons.values()][TOLD_REASONS:]:
        yield f"{fate} {sum(rest):,} times for {len(rest):,} other reasons"


def _cells(figures: Figures) -> Iterator[str]:
    counts = (figures.requests, figures.answered, figures.rejected, figures.failed, figures.cut)
    yield from map(str, counts)
    yield _pair(figures.ttft_s)
    yield f"{figures.itl_s.p50 * 1000:.1f}" if figures.itl_s else ""
    yield _pair(figures.e2e_s)
    yield f"{figures.over_all.output_tokens_per_s:,.0f}"
    yield f"{figures.at_peak.output_tokens_per_s:,.0f}" if figures.at_peak else ""
    yield "" if figures.hit_rate is None else f"{figures.hit_rate:.0%}"


def _pair(spread: Spread | None) -> str:
    return f"{spread.p50:.2f} / {spread.p99:.2f}" if spread else ""

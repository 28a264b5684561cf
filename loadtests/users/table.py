"""The figures of a test as a short table."""

from collections.abc import Iterator

from rich.table import Table

from loadtests.users.results import Figures, Results, Spread

HEADINGS = (
    "requests",
    "answered",
    "rejected",
    "failed",
    "TTFT p50 / p99, s",
    "ITL p50, ms",
    "E2E p50 / p99, s",
    "tokens/s",
    "hit rate",
)


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


def reasons(results: Results) -> Iterator[str]:
    """What went wrong, a line for each reason."""
    for reason, count in results.total.rejections.items():
        yield f"rejected {count} times: {reason}"
    for reason, count in results.total.failures.items():
        yield f"failed {count} times: {reason}"


def _cells(figures: Figures) -> Iterator[str]:
    yield from map(str, (figures.requests, figures.answered, figures.rejected, figures.failed))
    yield _pair(figures.ttft_s)
    yield f"{figures.itl_s.p50 * 1000:.1f}" if figures.itl_s else ""
    yield _pair(figures.e2e_s)
    yield f"{figures.output_tokens_per_s:,.0f}"
    yield "" if figures.hit_rate is None else f"{figures.hit_rate:.0%}"


def _pair(spread: Spread | None) -> str:
    return f"{spread.p50:.2f} / {spread.p99:.2f}" if spread else ""

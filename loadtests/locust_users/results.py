"""Results of a locust test: summaries in all and by model, as JSON and as a table."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import msgspec
from rich.table import Table

from loadtests.loadgen.outcome import RequestOutcome
from loadtests.loadgen.summary import Distribution, Summary, TimeSpan
from loadtests.locust_users.options import Setting, users_at

HEADINGS = (
    *("sent", "answered", "rejected", "failed", "cut"),
    *("TTFT p50/p99, s", "ITL p50, ms", "E2E p50/p99, s", "tokens/s", "at peak", "hit rate"),
)
SHOWN_REASONS = 10
"""Limit for servers whose every error message is different."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Users and replicas at a time, in seconds since the epoch."""

    at_s: float
    users: int
    replicas: Mapping[str, int]
    """Replicas by model, if the server reports them."""


def peak_of(
    setting: Setting, observations: Sequence[Observation], stopped_sending_s: float
) -> TimeSpan | None:
    """Time span in which all users were sending; of a trace, in which it was sent."""

    def is_peak(observation: Observation) -> bool:
        at_s = min(observation.at_s - setting.begun_s, math.nextafter(setting.run_time_s, 0))
        wanted = users_at(setting.shape, at_s, setting.run_time_s, setting.users) or 0
        is_sending = observation.at_s <= stopped_sending_s
        return min(observation.users, wanted) >= setting.users and is_sending

    if setting.is_trace:
        times_s = [setting.begun_s, stopped_sending_s]
    else:
        times_s = [observation.at_s for observation in observations if is_peak(observation)]
    if not times_s or times_s[-1] <= times_s[0]:
        return None
    return TimeSpan(begin_s=times_s[0] - setting.begun_s, end_s=times_s[-1] - setting.begun_s)


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is reported about a test."""

    setting: Setting
    seconds: float
    """From the start to the end of the last answer."""
    peak: TimeSpan | None
    """Time span in which all users were there; of a trace, in which it was sent."""
    unsent: int
    """Requests of a trace that were not due before the end."""
    late_s: Distribution | None
    """Delay with which the requests of a trace were sent."""
    total: Summary
    models: Mapping[str, Summary]
    looks: Sequence[Observation]

    @classmethod
    def of(
        cls,
        setting: Setting,
        outcomes: Sequence[RequestOutcome],
        observations: Sequence[Observation],
        *,
        stopped_sending_s: float,
        unsent: int = 0,
    ) -> Self:
        """Results of outcomes whose times are seconds since the epoch."""
        start_s = setting.begun_s
        end_s = max((o.due_s + o.e2e_s for o in outcomes), default=start_s)
        whole = TimeSpan(begin_s=0.0, end_s=max(end_s - start_s, 1e-3))
        peak = peak_of(setting, observations, stopped_sending_s)

        def summary(model: str | None) -> Summary:
            chosen = [o for o in outcomes if model in {None, o.model}]
            return Summary.with_rates(chosen, start_s, whole, peak)

        names = sorted({outcome.model for outcome in outcomes})
        return cls(
            setting=setting,
            seconds=whole.seconds,
            peak=peak,
            unsent=unsent,
            late_s=Distribution.of(o.late_s for o in outcomes if setting.is_trace),
            total=summary(None),
            models={name: summary(name) for name in names},
            looks=observations,
        )


def table(results: Results) -> Table:
    """A row for each model, and one for all if there are several."""
    found = Table(title=f"{results.setting.title}, {results.seconds:.0f} s")
    found.add_column("model")
    for heading in HEADINGS:
        found.add_column(heading, justify="right")
    for model, summary in results.models.items():
        found.add_row(model, *_cells(summary))
    if len(results.models) != 1:
        found.add_row("all", *_cells(results.total))
    return found


def _cells(summary: Summary) -> Iterator[str]:
    counts = (summary.requests, summary.answered, summary.rejected, summary.failed, summary.cut)
    yield from map(str, counts)
    yield _percentiles(summary.ttft_s)
    yield f"{summary.itl_s.p50 * 1000:.1f}" if summary.itl_s else ""
    yield _percentiles(summary.e2e_s)
    for rates in (summary.over_all, summary.at_peak):
        yield f"{rates.output_tokens_per_s:,.0f}" if rates else ""
    yield "" if summary.hit_rate is None else f"{summary.hit_rate:.0%}"


def _percentiles(values: Distribution | None) -> str:
    return f"{values.p50:.2f} / {values.p99:.2f}" if values else ""


def remarks(results: Results) -> Iterator[str]:
    """Remarks below the table, above all failures, one line each."""
    total = results.total
    if not total.answered:
        yield "no request was answered"
    yield from _counted("rejected", total.rejections)
    yield from _counted("failed", total.failures)
    if total.cut:
        yield f"cut {total.cut:,} times: still in flight at the end"
    if results.unsent:
        yield f"the time was over before the trace: {results.unsent:,} requests were not sent"
    if late := results.late_s:
        yield (
            f"sent late by {late.p50 * 1000:.1f} ms (p99: {late.p99 * 1000:.1f} ms), which counts:"
            " all durations are from when a request was due"
        )


def _counted(status: str, reasons: Mapping[str, int]) -> Iterator[str]:
    for reason, count in itertools.islice(reasons.items(), SHOWN_REASONS):
        yield f"{status} {count:,} times: {reason}"
    if rest := [*reasons.values()][SHOWN_REASONS:]:
        yield f"{status} {sum(rest):,} times for {len(rest):,} other reasons"

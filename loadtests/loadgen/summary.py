"""Summaries of outcomes: counts, distributions and rates; figures over repeated rounds."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import msgspec

from gateway.simulation.results import percentile
from loadtests.loadgen.outcome import RequestOutcome, Status, answered, with_status


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Mean, percentiles and maximum of some values."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """The distribution of finite values; None without values."""
        found = sorted(values)
        if not found:
            return None
        p50, p90, p95, p99 = (percentile(found, share) for share in (0.5, 0.9, 0.95, 0.99))
        mean = statistics.fmean(found)
        return cls(mean=mean, p50=p50, p90=p90, p95=p95, p99=p99, most=found[-1])


NO_VALUES = Distribution(
    **dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "most"), float("nan"))
)
"""Distribution without values, for tables and JSON files that need numbers."""


class Spread(msgspec.Struct, frozen=True):
    """Median, minimum and maximum of a figure over repeated rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Self:
        """The spread of at least one value."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))


class TimeSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a test, in seconds from its start."""

    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.begin_s

    def share(self, begin_s: float, end_s: float) -> float:
        """The fraction of an interval that lies inside."""
        if end_s <= begin_s:
            return float(self.begin_s <= end_s <= self.end_s)
        inside = min(end_s, self.end_s) - max(begin_s, self.begin_s)
        return max(0.0, inside) / (end_s - begin_s)


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Throughput of all requests together."""

    requests_per_s: float
    """Requests whose answers ended in the time span."""
    output_tokens_per_s: float
    """A request's tokens count as if spread evenly from the first to the end."""

    @classmethod
    def of(cls, good: Sequence[RequestOutcome], start_s: float, span: TimeSpan) -> Self:
        """Rates over a span of a test that started at `start_s`."""
        ended, tokens = 0, 0.0
        for outcome in good:
            due_s = outcome.due_s - start_s
            end_s = due_s + outcome.e2e_s
            ended += span.begin_s <= end_s <= span.end_s
            share = span.share(due_s + (outcome.ttft_s or 0.0), end_s)
            tokens += outcome.completion_tokens * share
        return cls(requests_per_s=ended / span.seconds, output_tokens_per_s=tokens / span.seconds)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of some requests; times and tokens are those of the answered ones."""

    requests: int
    answered: int
    rejected: int
    failed: int
    cut: int
    rejections: Mapping[str, int]
    failures: Mapping[str, int]
    """Counts by reason, the most frequent first."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    hit_rate: float | None
    """Share of the prompt tokens that were cached."""
    ttft_s: Distribution | None
    itl_s: Distribution | None
    e2e_s: Distribution | None
    tokens_per_s: Distribution | None
    """Output speed of each request."""
    over_all: Rates | None = None
    """From the start to the end of the last answer."""
    at_peak: Rates | None = None
    """Over the test's `peak`."""

    @classmethod
    def of(cls, outcomes: Sequence[RequestOutcome]) -> Self:
        """The summary without rates."""
        good = answered(outcomes)
        prompt_tokens = sum(o.prompt_tokens for o in good)
        cached_tokens = sum(o.cached_tokens for o in good)
        rejections, failures = (
            Counter(o.reason for o in with_status(outcomes, status))
            for status in (Status.REJECTED, Status.FAILED)
        )
        return cls(
            requests=len(outcomes),
            answered=len(good),
            rejected=rejections.total(),
            failed=failures.total(),
            cut=len(with_status(outcomes, Status.CUT)),
            rejections=dict(rejections.most_common()),
            failures=dict(failures.most_common()),
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            completion_tokens=sum(o.completion_tokens for o in good),
            hit_rate=cached_tokens / prompt_tokens if prompt_tokens else None,
            ttft_s=Distribution.of(o.ttft_s for o in good if o.ttft_s is not None),
            itl_s=Distribution.of(o.itl_s for o in good if o.itl_s is not None),
            e2e_s=Distribution.of(o.e2e_s for o in good),
            tokens_per_s=Distribution.of(o.tokens_per_s for o in good),
        )

    @classmethod
    def with_rates(
        cls,
        outcomes: Sequence[RequestOutcome],
        start_s: float,
        whole: TimeSpan,
        peak: TimeSpan | None,
    ) -> Self:
        """The summary with rates of a test that started at `start_s`."""
        good = answered(outcomes)
        return msgspec.structs.replace(
            cls.of(outcomes),
            over_all=Rates.of(good, start_s, whole),
            at_peak=Rates.of(good, start_s, peak) if peak else None,
        )

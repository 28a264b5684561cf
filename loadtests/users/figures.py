"""The figures of some requests: distributions, counts and rates.

A test begins with users who come one after the other and ends with the last answers, so that its
rates are lower than what the server did meanwhile: those of its peak are given beside.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import msgspec

from gateway.simulation.scores import percentile
from loadtests.users.outcome import Fate, Outcome


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How values are spread."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """None of no values."""
        found = sorted(values)
        if not found:
            return None
        p50, p90, p95, p99 = (percentile(found, share) for share in (0.5, 0.9, 0.95, 0.99))
        mean = statistics.fmean(found)
        return cls(mean=mean, p50=p50, p90=p90, p95=p95, p99=p99, most=found[-1])


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a test, in seconds since its beginning."""

    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end_s - self.begin_s

    def share(self, begin_s: float, end_s: float) -> float:
        """How much of a time lies in it."""
        if end_s <= begin_s:
            return float(self.begin_s <= end_s <= self.end_s)
        inside = min(end_s, self.end_s) - max(begin_s, self.begin_s)
        return max(0.0, inside) / (end_s - begin_s)


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all requests together in a second."""

    requests_per_s: float
    """Those whose answers ended in that part of the test."""
    output_tokens_per_s: float
    """A request's tokens count as if they had come evenly, from the first to the end."""

    @classmethod
    def of(cls, good: Sequence[Outcome], begun_s: float, span: Span) -> Self:
        """Those of a part of a test that began then."""
        ended, tokens = 0, 0.0
        for outcome in good:
            due_s = outcome.due_s - begun_s
            end_s = due_s + outcome.e2e_s
            ended += span.begin_s <= end_s <= span.end_s
            share = span.share(due_s + (outcome.ttft_s or 0.0), end_s)
            tokens += outcome.completion_tokens * share
        return cls(
            requests_per_s=ended / span.seconds,
            output_tokens_per_s=tokens / span.seconds,
        )


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What came of some requests; spreads, rates and tokens are those of the answered."""

    requests: int
    answered: int
    rejected: int
    failed: int
    cut: int
    rejections: Mapping[str, int]
    failures: Mapping[str, int]
    """By their reasons."""
    over_all: Rates
    """From the beginning to the end of the last answer."""
    at_peak: Rates | None
    """Of the part that is the test's `peak`."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    hit_rate: float | None
    """Cached tokens of all prompt tokens."""
    ttft_s: Spread | None
    itl_s: Spread | None
    e2e_s: Spread | None
    tokens_per_s: Spread | None
    """Of each request."""

    @classmethod
    def of(
        cls, outcomes: Sequence[Outcome], begun_s: float, whole: Span, peak: Span | None
    ) -> Self:
        """The figures of requests of a test that began then."""
        good = [o for o in outcomes if o.fate is Fate.ANSWERED]
        prompt_tokens = sum(o.prompt_tokens for o in good)
        cached_tokens = sum(o.cached_tokens for o in good)
        completion_tokens = sum(o.completion_tokens for o in good)
        rejections, failures = _reasons(outcomes, Fate.REJECTED), _reasons(outcomes, Fate.FAILED)
        return cls(
            requests=len(outcomes),
            answered=len(good),
            rejected=sum(rejections.values()),
            failed=sum(failures.values()),
            cut=sum(o.fate is Fate.CUT for o in outcomes),
            rejections=rejections,
            failures=failures,
            over_all=Rates.of(good, begun_s, whole),
            at_peak=Rates.of(good, begun_s, peak) if peak else None,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            completion_tokens=completion_tokens,
            hit_rate=cached_tokens / prompt_tokens if prompt_tokens else None,
            ttft_s=Spread.of(o.ttft_s for o in good if o.ttft_s is not None),
            itl_s=Spread.of(o.itl_s for o in good if o.itl_s is not None),
            e2e_s=Spread.of(o.e2e_s for o in good),
            tokens_per_s=Spread.of(o.tokens_per_s for o in good),
        )


def _reasons(outcomes: Iterable[Outcome], fate: Fate) -> Mapping[str, int]:
    return dict(Counter(o.reason for o in outcomes if o.fate is fate).most_common())

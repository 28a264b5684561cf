"""The figures of a test: distributions, counts and rates, in all and for each model."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import msgspec

from loadtests.users.outcome import Fate, Outcome
from loadtests.workloads.catalogue import TRACE


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How things stood at a time, seconds since the epoch."""

    at_s: float
    users: int
    replicas: Mapping[str, int]
    """Of each model, where the server says."""


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
        cuts = statistics.quantiles(found * 2 if len(found) == 1 else found, n=100)
        most = found[-1]
        p50, p90, p95, p99 = (min(cuts[percent - 1], most) for percent in (50, 90, 95, 99))
        return cls(mean=statistics.fmean(found), p50=p50, p90=p90, p95=p95, p99=p99, most=most)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What came of some requests; spreads and tokens are those of the answered."""

    requests: int
    answered: int
    rejected: int
    failed: int
    rejections: Mapping[str, int]
    failures: Mapping[str, int]
    """By their reasons."""
    requests_per_s: float
    output_tokens_per_s: float
    """Of all requests together."""
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
    def of(cls, outcomes: Sequence[Outcome], seconds: float) -> Self:
        """The figures of requests within so many seconds."""
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
            rejections=rejections,
            failures=failures,
            requests_per_s=len(good) / seconds,
            output_tokens_per_s=completion_tokens / seconds,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            completion_tokens=completion_tokens,
            hit_rate=cached_tokens / prompt_tokens if prompt_tokens else None,
            ttft_s=Spread.of(o.ttft_s for o in good if o.ttft_s is not None),
            itl_s=Spread.of(o.itl_s for o in good if o.itl_s is not None),
            e2e_s=Spread.of(o.e2e_s for o in good),
            tokens_per_s=Spread.of(o.tokens_per_s for o in good),
        )


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: enough to do it again."""

    workload: str
    shape: str
    users: int
    seed: str
    host: str
    begun_s: float
    """Since the epoch."""

    @property
    def title(self) -> str:
        """In a few words; a trace has no users."""
        if self.workload == TRACE:
            return TRACE
        return f"{self.workload}, {self.shape}, up to {self.users} users"


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to tell of a test."""

    setting: Setting
    seconds: float
    """From the beginning to the end of the last answer."""
    total: Figures
    models: Mapping[str, Figures]
    looks: Sequence[Look]

    @classmethod
    def of(cls, setting: Setting, outcomes: Sequence[Outcome], looks: Sequence[Look]) -> Self:
        """Work them out."""
        end_s = max((o.sent_s + o.e2e_s for o in outcomes), default=setting.begun_s)
        seconds = max(end_s - setting.begun_s, 1e-3)
        names = sorted({outcome.model for outcome in outcomes})
        return cls(
            setting=setting,
            seconds=seconds,
            total=Figures.of(outcomes, seconds),
            models={
                name: Figures.of([o for o in outcomes if o.model == name], seconds)
                for name in names
            },
            looks=looks,
        )


def _reasons(outcomes: Iterable[Outcome], fate: Fate) -> Mapping[str, int]:
    return dict(Counter(o.reason for o in outcomes if o.fate is fate).most_common())

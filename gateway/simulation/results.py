"""Figures of a simulation: hit rate, latencies, balance."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from gateway.simulation.trace import BLOCK_TOKENS, Workload
from gateway.simulation.virtual_engine import SimulatedOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """Figures of one policy on one workload."""

    policy: str
    hit_rate: float
    """Share of prompt tokens that were in the chosen replica's cache."""
    ttft_mean_s: float
    """From a request's arrival at a router to its first token."""
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    tpot_p90_s: float
    """Time per output token after the first; requests with one token have none."""
    e2e_mean_s: float
    """From a request's arrival at a router to its last token."""
    imbalance: float
    """Tokens (uncached prompt tokens and answer tokens) that the busiest replica computed, divided
    by the mean of all replicas; 1 is perfect."""

    @classmethod
    def of(cls, policy: str, outcomes: Sequence[SimulatedOutcome], replicas: int) -> "PolicyResult":
        """Compute the figures from the outcomes of all requests, at least one."""
        ttft = sorted(o.first_token_s - o.request.arrived_s for o in outcomes)
        tpot = sorted(
            (o.finished_s - o.first_token_s) / (o.request.output_tokens - 1)
            for o in outcomes
            if o.request.output_tokens > 1
        )
        cached = sum(o.cached_tokens for o in outcomes)
        return cls(
            policy=policy,
            hit_rate=cached / sum(o.request.prompt_tokens for o in outcomes),
            ttft_mean_s=fmean(ttft),
            ttft_p50_s=percentile(ttft, 0.5),
            ttft_p90_s=percentile(ttft, 0.9),
            ttft_p99_s=percentile(ttft, 0.99),
            tpot_p90_s=percentile(tpot, 0.9),
            e2e_mean_s=fmean(o.finished_s - o.request.arrived_s for o in outcomes),
            imbalance=_imbalance(outcomes, replicas),
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the ordered values lie, interpolated; 0 if none."""
    if not ordered:
        return 0.0
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def infinite_cache_hit_rate(workload: Workload) -> float:
    """Return the hit rate of a single cache that all requests share and that evicts nothing.

    As in an engine, only full blocks match, and never the last token of a prompt.
    """
    seen: set[int] = set()
    cached = 0
    for request in workload.requests:
        keys = request.prompt.keys
        reusable = (request.prompt_tokens - 1) // BLOCK_TOKENS
        matched = next((i for i, key in enumerate(keys) if key not in seen), len(keys))
        cached += min(matched, reusable) * BLOCK_TOKENS
        seen.update(keys)
    return cached / sum(request.prompt_tokens for request in workload.requests)


def _imbalance(outcomes: Sequence[SimulatedOutcome], replicas: int) -> float:
    computed = [0] * replicas
    for o in outcomes:
        new_tokens = o.request.prompt_tokens - o.cached_tokens
        computed[o.replica] += new_tokens + o.request.output_tokens
    return max(computed) / fmean(computed)

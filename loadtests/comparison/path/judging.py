"""What the gateway should reach beside its peers, judged round by round."""

from collections.abc import Sequence

import msgspec

from loadtests.measurement import Sample, Spread, spread

MOST_ADDED_TTFT_MS = 1.0
LEAST_THROUGHPUT_RATIO = 1.1
MOST_CPU_RATIO = 1.0
LEAST_RATIO_OVER_RAY = 30.0

OURS = "gateway"
DIRECT = "direct"
VLLM_ROUTER = "vllm-router"
RAY_DEFAULTS = ("ray-serve-llm", "ray-serve-llm tokenwise")
"""Ray Serve LLM as Serve runs it by default, with and without joined tokens."""

Samples = dict[str, list[Sample]]
"""By target, one a round."""


class Bar(msgspec.Struct, frozen=True):
    """Something the gateway should reach; the median of all rounds decides."""

    name: str
    reached: Spread
    limit: float
    is_met: bool


def judge(samples: Samples) -> list[Bar]:
    """What the deployed gateway should reach, as far as there is something to compare it with."""
    ours = samples.get(OURS)
    if ours is None:
        return []
    added = spread(ours, samples[DIRECT], lambda a, b: a.ttft_p50_ms - b.ttft_p50_ms)
    bars = [_at_most("added TTFT p50, ms", added, MOST_ADDED_TTFT_MS)]
    for name, theirs in samples.items():
        if name.startswith(VLLM_ROUTER):
            bars.append(_throughput(ours, name, theirs, LEAST_THROUGHPUT_RATIO))
            cpu = spread(ours, theirs, lambda a, b: a.cpu_s_per_1000 / b.cpu_s_per_1000)
            bars.append(_at_most(f"CPU per request over {name}'s", cpu, MOST_CPU_RATIO))
        elif name in RAY_DEFAULTS:
            bars.append(_throughput(ours, name, theirs, LEAST_RATIO_OVER_RAY))
    return bars


def throughput_ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> Spread:
    """How many times their requests we serve."""
    return spread(ours, theirs, lambda a, b: a.requests_per_s / b.requests_per_s)


def _throughput(ours: Sequence[Sample], name: str, theirs: Sequence[Sample], limit: float) -> Bar:
    reached = throughput_ratio(ours, theirs)
    return Bar(f"requests/s over {name}'s: at least", reached, limit, reached.median >= limit)


def _at_most(name: str, reached: Spread, limit: float) -> Bar:
    return Bar(f"{name}: at most", reached, limit, reached.median <= limit)

"""Scores of the routing comparison: of one run, and of this gateway against the others."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.simulation.scores import percentile
from loadtests.comparison.trace_slices import TIME_SCALE, TOKEN_SCALE
from loadtests.loadgen.outcome import RequestOutcome, answered
from loadtests.loadgen.summary import Spread

TTFT_SLO_S = 4.0
TPOT_SLO_S = 0.1
"""Mean time per output token after the first, of the workload's tokens."""
OURS = "marginal"


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One contender's figures over one slice, in the workload's seconds.

    A request without a whole answer counts in all times with the request timeout, and as a miss in
    `goodput`.
    """

    sent: int
    hit_rate: float
    """Cached tokens of all answered prompt tokens, by the engines' count."""
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    e2e_mean_s: float
    e2e_p50_s: float
    e2e_p99_s: float
    goodput: float
    """Share of all requests that were answered fast enough."""
    rejected: int
    failed: int

    @classmethod
    def of(cls, outcomes: Sequence[RequestOutcome], timeout_s: float) -> "Score":
        """The score of at least one outcome."""
        good = answered(outcomes)
        misses = [timeout_s] * (len(outcomes) - len(good))
        ttft = sorted(TIME_SCALE * each for each in [o.ttft_s or 0.0 for o in good] + misses)
        e2e = sorted(TIME_SCALE * each for each in [o.e2e_s for o in good] + misses)
        rejected = sum(o.http_status in {429, 503} for o in outcomes)
        return cls(
            sent=len(outcomes),
            hit_rate=sum(o.cached_tokens for o in good)
            / max(1, sum(o.prompt_tokens for o in good)),
            ttft_mean_s=statistics.fmean(ttft),
            ttft_p50_s=percentile(ttft, 0.5),
            ttft_p99_s=percentile(ttft, 0.99),
            e2e_mean_s=statistics.fmean(e2e),
            e2e_p50_s=percentile(e2e, 0.5),
            e2e_p99_s=percentile(e2e, 0.99),
            goodput=sum(map(is_fast, good)) / len(outcomes),
            rejected=rejected,
            failed=len(misses) - rejected,
        )


def is_fast(outcome: RequestOutcome) -> bool:
    """Whether an answer is within both limits."""
    ttft_s = outcome.ttft_s or 0.0
    later_tokens = max(1, outcome.completion_tokens - 1) * TOKEN_SCALE
    tpot_s = TIME_SCALE * (outcome.e2e_s - ttft_s) / later_tokens
    return TIME_SCALE * ttft_s <= TTFT_SLO_S and tpot_s <= TPOT_SLO_S


ScoresByContender = Mapping[str, Sequence[Score]]
"""Scores of each contender, one a round."""


def ratios(
    ours: Sequence[Score], theirs: Sequence[Score], figure: Callable[[Score], float]
) -> Spread:
    """One contender's figure over another's, round by round; 0 over 0 is 1."""
    pairs = [(figure(a), figure(b)) for a, b in zip(ours, theirs, strict=True)]
    return Spread.over(a / b if b else (math.inf if a else 1.0) for a, b in pairs)


def against_best(rounds: ScoresByContender) -> list[tuple[str, str, Spread]]:
    """Figure, the best of the others by its median, and our ratio to it round by round."""
    others = [name for name in rounds if name != OURS]
    if OURS not in rounds or not others:
        return []
    found = []
    for title, figure, best in (
        ("mean end to end", lambda s: s.e2e_mean_s, min),
        ("goodput", lambda s: s.goodput, max),
    ):
        name = best(others, key=lambda each: statistics.median(map(figure, rounds[each])))
        found.append((title, name, ratios(rounds[OURS], rounds[name], figure)))
    return found

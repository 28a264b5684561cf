"""What the routing comparison judges by: figures of a turn, and contenders against each other."""

import operator
import statistics
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.simulation.scores import percentile
from loadtests.comparison.routing.client import Outcome
from loadtests.comparison.routing.stretches import SPEED, TOKENS
from loadtests.measurement import Spread

TTFT_SLO_S = 4.0
TPOT_SLO_S = 0.1
"""Seconds a token of the workload after the first, on average over an answer."""
OURS = "marginal"
CLOSE = 0.03
"""How far from the best this gateway may be."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One contender's figures over one turn, in the workload's seconds.

    A request that was not answered in full counts in all times as if its client had waited as long
    as it is patient, and as a miss in `goodput`.
    """

    sent: int
    hit_rate: float
    """Prompt tokens that engines found cached, of all they answered, by their own count."""
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    e2e_mean_s: float
    e2e_p50_s: float
    e2e_p99_s: float
    goodput: float
    """Share of all requests that were answered in full and fast enough."""
    rejected: int
    failed: int

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], patience_s: float) -> "Score":
        """The score of at least one outcome."""
        good = [o for o in outcomes if is_answered(o)]
        misses = [patience_s] * (len(outcomes) - len(good))
        ttft = sorted(SPEED * each for each in [o.ttft_s for o in good] + misses)
        e2e = sorted(SPEED * each for each in [o.e2e_s for o in good] + misses)
        rejected = sum(o.status in {429, 503} for o in outcomes)
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


def is_answered(outcome: Outcome) -> bool:
    """Whether all that was asked for came."""
    return outcome.status == 200


def is_fast(outcome: Outcome) -> bool:
    """Whether an answer kept to the limits."""
    later_tokens = max(1, outcome.output_tokens - 1) * TOKENS
    tpot_s = SPEED * (outcome.e2e_s - outcome.ttft_s) / later_tokens
    return SPEED * outcome.ttft_s <= TTFT_SLO_S and tpot_s <= TPOT_SLO_S


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How this gateway stands to the best of the others, on one workload and one figure."""

    workload: str
    figure: str
    best_other: str
    ratio: Spread
    """Ours over theirs, round by round."""
    limit: float
    is_met: bool


Rounds = Mapping[str, Sequence[Score]]
"""Scores of each contender, one a round."""


def judge(workload: str, rounds: Rounds, *, is_strict: bool) -> list[Verdict]:
    """What this gateway should reach on a workload; with `is_strict` it should be the best."""
    if OURS not in rounds or len(rounds) < 2:
        return []
    e2e = _ratio(rounds, lambda score: score.e2e_mean_s, min)
    goodput = _ratio(rounds, lambda score: score.goodput, max)
    margin = 0.0 if is_strict else CLOSE
    is_less, is_more = (operator.lt, operator.gt) if is_strict else (operator.le, operator.ge)
    return [
        _verdict(workload, "mean end to end", e2e, 1 + margin, is_less),
        _verdict(workload, "goodput", goodput, 1 - margin, is_more),
    ]


def _verdict(
    workload: str,
    figure: str,
    standing: tuple[str, Spread],
    limit: float,
    is_within: Callable[[float, float], bool],
) -> Verdict:
    best_other, ratio = standing
    return Verdict(
        workload=workload,
        figure=figure,
        best_other=best_other,
        ratio=ratio,
        limit=limit,
        is_met=is_within(ratio.median, limit),
    )


def ratios(
    ours: Sequence[Score], theirs: Sequence[Score], figure: Callable[[Score], float]
) -> Spread:
    """One contender's figure over another's, round by round."""
    return Spread.over(_share(figure(a), figure(b)) for a, b in zip(ours, theirs, strict=True))


def _ratio(
    rounds: Rounds, figure: Callable[[Score], float], best: Callable[[Sequence[float]], float]
) -> tuple[str, Spread]:
    """Of the others the best by the median over all rounds, and how we stand to it."""
    medians = {
        name: statistics.median(map(figure, scores))
        for name, scores in rounds.items()
        if name != OURS
    }
    top = best(list(medians.values()))
    name = next(name for name, median in medians.items() if median == top)
    return name, ratios(rounds[OURS], rounds[name], figure)


def _share(ours: float, theirs: float) -> float:
    if theirs:
        return ours / theirs
    return float("inf") if ours else 1.0

"""One run of the routing comparison: one contender, one slice of a workload."""

from collections.abc import Sequence

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.simulation.trace import TraceRequest
from loadtests.comparison.routing_contenders import REQUEST_TIMEOUT_S, Contender
from loadtests.comparison.routing_scores import Score
from loadtests.comparison.trace_slices import salted
from loadtests.launch import HOST, Unavailable
from loadtests.loadgen.worker import (
    ScheduledRequest,
    ScheduleJob,
    ScheduleResult,
    WorkerFailed,
    replay,
)
from loadtests.workloads.texts import prompt_text

MAX_LATE_S = 0.01
"""A load generator that is later than that measures itself."""
KEPT_FLAWS = 5


class RoutingRun(msgspec.Struct, frozen=True, kw_only=True):
    """Score of a run, and whether the machine was up to it."""

    score: Score
    late_s: float
    """99th percentile of how late the load generator sent."""
    client_cpus: float
    busy_share: float
    """Share of the machine's CPUs that were busy, for whatever reason, while requests were sent."""
    doubt: str
    """Why not to trust it; empty if there is no reason."""
    flaws: list[str]
    """Reasons of failures: the first few kinds."""

    def __str__(self) -> str:
        """The run in one line."""
        score = self.score
        return (
            f"{score.e2e_mean_s:.2f} s end to end, {score.goodput:.0%} in time, "
            f"{score.hit_rate:.0%} cached; CPUs {self.busy_share:.0%} busy, "
            f"client {1000 * self.late_s:.0f} ms late"
        )


def run_slice(
    contender: Contender, requests: Sequence[TraceRequest], name: str, lead_s: float
) -> RoutingRun:
    """Send a slice; the requests of its first `lead_s` only fill caches and batches.

    Runs of different names have no text in common.

    Raises:
        Unavailable: there is nothing to score.
    """
    fresh = salted(requests, xxh3_64_intdigest(name.encode()))
    scheduled = [
        ScheduledRequest(
            request.arrived_s, prompt_text(request, f"{number} of {name}"), request.output_tokens
        )
        for number, request in enumerate(fresh)
    ]
    if not any(request.at_s >= lead_s for request in scheduled):
        raise Unavailable("no request of the workload falls into it")
    job = ScheduleJob(
        model=contender.model, requests=scheduled, request_timeout_s=REQUEST_TIMEOUT_S
    )
    try:
        return scored(replay(HOST, contender.port, job), lead_s)
    except WorkerFailed as error:
        raise Unavailable(str(error)) from None


def scored(result: ScheduleResult, lead_s: float) -> RoutingRun:
    """The run that a schedule's result makes, without its first `lead_s`.

    Raises:
        Unavailable: no request was answered, not even with a rejection.
    """
    counted = [outcome for outcome in result.outcomes if outcome.due_s >= lead_s]
    reasons = [f"{o.http_status}: {o.reason}" for o in result.outcomes if o.reason]
    flaws = list(dict.fromkeys(reasons))[:KEPT_FLAWS]
    if not any(o.is_answered or o.http_status not in {0, 200} for o in counted):
        raise Unavailable(f"none of {len(counted)} requests was answered: {', '.join(flaws)}")
    is_late = result.late_s > MAX_LATE_S
    return RoutingRun(
        score=Score.of(counted, REQUEST_TIMEOUT_S),
        late_s=result.late_s,
        client_cpus=result.cpus,
        busy_share=result.busy_share,
        doubt=f"its client sent {1000 * result.late_s:.0f} ms late" if is_late else "",
        flaws=flaws,
    )

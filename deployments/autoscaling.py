"""Autoscaling of a model's engines: a Serve policy over the load that they report.

Requests do not pass through Serve's handles, so Serve's own policy, which counts those, would see
an idle model. Engines report their load, and the requests that routers hold back for them,
themselves (`EngineReplica.record_autoscaling_stats`); `gateway.autoscaling` computes how many
replicas that load needs and when the number changes.

Serve calls a policy ten times a second and keeps the object until the deployment changes or the
controller restarts: then no replica is removed before the whole delay has passed again. A request
for a model at zero replicas is a control call that waits in a handle; Serve starts one replica for
it without asking the policy, and asks again once that replica runs or no call waits any longer.
"""

import logging
import math
import time
from collections.abc import Callable, Hashable
from typing import Any

from ray.serve.config import AutoscalingContext

from gateway.autoscaling.desired_replicas import (
    NO_REPLICAS,
    DesiredReplicas,
    ScalingTargets,
    desired_replicas,
)
from gateway.autoscaling.stabilizer import ScalingSnapshot, Stabilizer
from gateway.autoscaling.staleness import Staleness
from gateway.autoscaling.wake_timeout import WakeTimeout
from gateway.engine_telemetry.stats import EngineStats, read_stats

REPORT_PERIOD_S = 1.0
"""Time between two reports of a replica's load."""
LOOK_BACK_S = 5.0
"""Time over which the mean of the reports is taken."""
DECISION_PERIOD_S = 1.0
"""Time between two decisions on the number of replicas."""

logger = logging.getLogger("ray.serve")

ScalingDecision = tuple[int, dict[str, Any]]
"""Number of replicas, and the state that Serve keeps for the next call: none."""


class EngineScalingPolicy:
    """Autoscaling policy of one model; `now` is a monotonic clock in seconds."""

    def __init__(
        self,
        target_utilization: float,
        max_wait_s: float,
        scale_down_delay_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._targets = ScalingTargets(target_utilization, max_wait_s)
        self._stabilizer = Stabilizer(scale_down_delay_s)
        self._wake_timeout = WakeTimeout(scale_down_delay_s)
        self._staleness: Staleness[Hashable] = Staleness()
        self._start_s = 0.0
        self._next_s = -math.inf

    def __call__(self, ctx: AutoscalingContext) -> ScalingDecision:
        """Serve's call: the wanted number of replicas."""
        target: int = ctx.target_num_replicas
        if self._now() < self._next_s:
            return target, {}
        self._next_s = self._now() + DECISION_PERIOD_S
        try:
            return self._decide(ctx), {}
        except Exception:
            # What is raised here would keep the controller from managing every application.
            logger.exception(
                "application %s: autoscaling failed, keeping %d replicas", ctx.app_name, target
            )
            return target, {}

    def _decide(self, ctx: AutoscalingContext) -> int:
        running = ctx.running_replicas
        stats = self._stats(ctx)
        load = desired_replicas(stats, self._targets) if stats else NO_REPLICAS
        if ctx.total_queued_requests and not load.total:
            load = DesiredReplicas(sequences=1.0, without_backlog=1.0)
        self._start_s = max((each.start_s for each in stats), default=self._start_s)
        if self._gives_up(ctx):
            logger.info(
                "application %s: scaled to zero, no replica came up and no request waits",
                ctx.app_name,
            )
            return 0
        target: int = ctx.target_num_replicas
        decided = self._stabilizer.decide(
            ScalingSnapshot(
                now_s=self._now(),
                desired=load,
                is_complete=len(stats) == len(running) and (bool(running) or not target),
                running=len(running),
                target=target,
                start_s=self._start_s,
                min_replicas=ctx.capacity_adjusted_min_replicas,
                max_replicas=ctx.capacity_adjusted_max_replicas,
            )
        )
        if decided != target:
            message = (
                "application %s: scaling from %d to %d replicas: its load needs %.2f, by its %s"
            )
            logger.info(message, ctx.app_name, target, decided, load.total, load.bottleneck)
        return decided

    def _stats(self, ctx: AutoscalingContext) -> list[EngineStats]:
        """Load of the running replicas that have reported it lately."""
        series = (ctx.raw_metrics or {}).get("slots", {})
        reported_s = {replica: points[-1].timestamp for replica, points in series.items() if points}
        recent = self._staleness.update(self._now(), reported_s)
        stats = read_stats(ctx.aggregated_metrics or {})
        return [stats[r] for r in ctx.running_replicas if r in stats and r in recent]

    def _gives_up(self, ctx: AutoscalingContext) -> bool:
        """Whether to scale to zero although the replica that was started has not come up."""
        is_over = self._wake_timeout.has_expired(
            self._now(),
            self._start_s,
            is_starting=ctx.target_num_replicas > 0 and not ctx.running_replicas,
            is_awaited=bool(ctx.total_queued_requests),
        )
        return is_over and ctx.capacity_adjusted_min_replicas == 0

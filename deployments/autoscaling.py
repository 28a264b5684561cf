"""How many replicas a model has: Serve's autoscaling policy over what its engines report.

Requests do not pass through Serve's handles, so that Serve's own policy, which counts those, would
see an idle model. Engines report their load, and what routers hold back for them, themselves
(`Engine.record_autoscaling_stats`); `gateway.scaling` says what that needs and when it is followed.

Serve calls a policy ten times a second and keeps the object until the deployment changes or the
controller restarts: then nothing is taken away before the whole delay has passed again. A request
for a model at zero is a control call that waits in a handle; Serve starts one replica for it
without asking the policy, and asks again once that replica runs or nobody waits any more.
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

TELLING_S = 1.0
"""How often replicas tell their load."""
LOOK_BACK_S = 5.0
"""Over how much of it the mean is taken."""
LOOK_S = 1.0
"""How often something is decided."""

logger = logging.getLogger("ray.serve")

Answer = tuple[int, dict[str, Any]]
"""Replicas, and what Serve keeps for the next call: nothing."""


class EnginePolicy:
    """One model's; `now` is in seconds, and no time of day, which may be set back."""

    def __init__(
        self,
        target_utilization: float,
        max_wait_s: float,
        scale_down_delay_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._goals = ScalingTargets(target_utilization, max_wait_s)
        self._governor = Stabilizer(scale_down_delay_s)
        self._patience = WakeTimeout(scale_down_delay_s)
        self._hearing: Staleness[Hashable] = Staleness()
        self._start_s = 0.0
        self._next_s = -math.inf

    def __call__(self, ctx: AutoscalingContext) -> Answer:
        """Serve's call: the wanted number of replicas."""
        target: int = ctx.target_num_replicas
        if self._now() < self._next_s:
            return target, {}
        self._next_s = self._now() + LOOK_S
        try:
            return self._look(ctx), {}
        except Exception:
            # It would keep the controller from looking after every application.
            logger.exception("%s stays at %d replicas", ctx.app_name, target)
            return target, {}

    def _look(self, ctx: AutoscalingContext) -> int:
        running = ctx.running_replicas
        stats = self._stats(ctx)
        load = desired_replicas(stats, self._goals) if stats else NO_REPLICAS
        if ctx.total_queued_requests and not load.total:
            load = DesiredReplicas(sequences=1.0, without_backlog=1.0)
        self._start_s = max((each.start_s for each in stats), default=self._start_s)
        if self._gives_up(ctx):
            logger.info("%s: no replica runs, and nobody waits for one any more", ctx.app_name)
            return 0
        target: int = ctx.target_num_replicas
        decided = self._governor.decide(
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
            message = "%s: %d replicas instead of %d: its load needs %.2f, by its %s"
            logger.info(message, ctx.app_name, decided, target, load.total, load.bottleneck)
        return decided

    def _stats(self, ctx: AutoscalingContext) -> list[EngineStats]:
        """Of the replicas that run and have told their load lately."""
        series = (ctx.raw_metrics or {}).get("slots", {})
        told_s = {replica: points[-1].timestamp for replica, points in series.items() if points}
        heard = self._hearing.update(self._now(), told_s)
        told = read_stats(ctx.aggregated_metrics or {})
        return [told[r] for r in ctx.running_replicas if r in told and r in heard]

    def _gives_up(self, ctx: AutoscalingContext) -> bool:
        """Whether a model that may sleep does so although its replica has not come."""
        is_over = self._patience.has_expired(
            self._now(),
            self._start_s,
            is_starting=ctx.target_num_replicas > 0 and not ctx.running_replicas,
            is_awaited=bool(ctx.total_queued_requests),
        )
        return is_over and ctx.capacity_adjusted_min_replicas == 0

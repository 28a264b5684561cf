"""How many replicas a model has: Serve's autoscaling policy over what its engines report.

Requests do not pass through Serve's handles, so that Serve's own policy, which counts those, would
see an idle model. Engines report their load, and what routers hold back for them, themselves
(`Engine.record_autoscaling_stats`); `gateway.scaling` says what that needs and when it is followed.

Serve calls a policy ten times a second and keeps the object until the deployment changes or the
controller restarts: then nothing is taken away before the whole delay has passed again. A request
for a model at zero is a control call that waits in a handle; Serve starts one replica for it
without asking the policy, and asks again once that replica runs.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from ray.serve.config import AutoscalingContext

from gateway.scaling.governor import Governor, Situation
from gateway.scaling.need import NOTHING, Goals, Need, need
from gateway.scaling.stats import read_stats

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
        self._goals = Goals(target_utilization, max_wait_s)
        self._governor = Governor(scale_down_delay_s)
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
        told = read_stats(ctx.aggregated_metrics or {})
        stats = [told[replica] for replica in running if replica in told]
        load = need(stats, self._goals) if stats else NOTHING
        if ctx.total_queued_requests and not load.total:
            load = Need(sequences=1.0, lasting=1.0)
        self._start_s = max((each.start_s for each in stats), default=self._start_s)
        target: int = ctx.target_num_replicas
        decided = self._governor.decide(
            Situation(
                now_s=self._now(),
                need=load,
                is_known=len(stats) == len(running) and (bool(running) or not target),
                running=len(running),
                target=target,
                start_s=self._start_s,
                least=ctx.capacity_adjusted_min_replicas,
                most=ctx.capacity_adjusted_max_replicas,
            )
        )
        if decided != target:
            message = "%s: %d replicas instead of %d: its load needs %.2f, by its %s"
            logger.info(message, ctx.app_name, decided, target, load.total, load.cause)
        return decided

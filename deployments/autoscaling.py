"""How many replicas a model should have: Serve's autoscaling policy over what engines report.

Requests do not pass through Serve's handles, so Serve's own policy, which counts those, would see
an idle model. Engines report their requests in flight (`Engine.record_autoscaling_stats`).
"""

import math
from collections.abc import Iterable
from typing import Any

from ray.serve.config import AutoscalingContext


class InFlightPolicy:
    """As many replicas as keep the requests in flight at `target_utilization` of the slots.

    A request held at zero replicas is a control call that waits in a Serve handle: it asks for one.
    """

    def __init__(self, target_utilization: float) -> None:
        self._target_utilization = target_utilization

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Serve's call, once per control loop: the wanted number of replicas and no state."""
        metrics = ctx.aggregated_metrics or {}
        wanted = wanted_replicas(
            in_flight=sum(metrics.get("in_flight", {}).values()),
            slots_per_replica=_mean(metrics.get("slots", {}).values()),
            target_utilization=self._target_utilization,
        )
        return max(wanted, 1 if ctx.total_queued_requests else 0), {}


def wanted_replicas(in_flight: float, slots_per_replica: float, target_utilization: float) -> int:
    """Replicas that keep `in_flight` requests at the wanted utilization; 0 when nothing runs."""
    if not in_flight or not slots_per_replica:
        return 0
    return math.ceil(in_flight / (slots_per_replica * target_utilization))


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0

"""Faults as a metric of Ray's."""

from ray.util.metrics import Counter

from gateway.faults import Fault


class FaultCounter:
    """`gateway_faults`, by model, reason and what was done; Prometheus adds `_total`."""

    def __init__(self) -> None:
        self._counter = Counter(
            "gateway_faults",
            description="What went wrong with requests, and what was done about it.",
            tag_keys=("model", "reason", "action"),
        )

    def count(self, fault: Fault) -> None:
        """Count one."""
        tags = {"model": fault.model, "reason": fault.reason, "action": fault.action.value}
        self._counter.inc(tags=tags)

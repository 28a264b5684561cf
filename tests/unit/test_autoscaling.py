"""How many replicas a load asks for."""

from types import SimpleNamespace
from typing import Any

import pytest

from deployments.autoscaling import InFlightPolicy, wanted_replicas


@pytest.mark.parametrize(
    ("in_flight", "slots", "utilization", "wanted"),
    [
        (0, 64, 0.7, 0),
        (1, 64, 0.7, 1),
        (44, 64, 0.7, 1),
        (45, 64, 0.7, 2),
        (640, 64, 1.0, 10),
        (5, 0, 0.7, 0),
    ],
)
def test_replicas_keep_the_load_at_the_wanted_utilization(
    in_flight: float, slots: float, utilization: float, wanted: int
) -> None:
    """Requests in flight over the slots one replica should fill, rounded up."""
    assert wanted_replicas(in_flight, slots, utilization) == wanted


def context(in_flight: dict[str, float], queued: float = 0) -> Any:
    """What Serve's controller hands to a policy."""
    slots = dict.fromkeys(in_flight, 10.0)
    metrics = {"in_flight": in_flight, "slots": slots}
    return SimpleNamespace(aggregated_metrics=metrics, total_queued_requests=queued)


def test_the_policy_adds_up_all_replicas() -> None:
    """Two full replicas of ten slots at a utilization of one half want four."""
    wanted, _ = InFlightPolicy(0.5)(context({"a": 10, "b": 10}))

    assert wanted == 4


def test_a_waiting_wake_call_wants_one_replica() -> None:
    """At zero replicas nothing reports; the call that waits in a handle is the load."""
    assert InFlightPolicy(0.5)(context({}, queued=1))[0] == 1
    assert InFlightPolicy(0.5)(context({}))[0] == 0

"""State of a model, and its reason, by what Serve says of it and by the health of its replicas."""

from collections.abc import Mapping

from gateway.routing.fleet import ModelState, ServedModel
from gateway.routing.replica_health import HealthState


def model_condition(model: ServedModel, health: Mapping[str, int]) -> tuple[ModelState, str]:
    """A model's state and reason; `health`: the number of its replicas in each `HealthState`."""
    hanging, count = health.get(HealthState.NOT_RESPONDING, 0), len(model.replicas)
    state = ModelState.NOT_RESPONDING if hanging and hanging == count else model.state
    return state, "; ".join(filter(None, [model.reason, _hanging_engines(hanging, count)]))


def _hanging_engines(hanging: int, count: int) -> str:
    """Engines of a model that do not respond, in words; empty if all do."""
    if not hanging:
        return ""
    if count == 1:
        return "its engine does not respond, and is replaced unless it recovers"
    return f"{hanging} of {count} engines do not respond; they are replaced unless they recover"

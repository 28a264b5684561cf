"""State of a model, and its reason, from Serve's status of its application."""

from ray.serve.schema import ApplicationStatus, DeploymentStatusOverview, ReplicaState

from deployments.serve_internals.status import start_failure
from gateway.routing.fleet import ModelState

FAILING = {"UNHEALTHY", "DEPLOY_FAILED"}
_STOPPING = {ReplicaState.STOPPING, ReplicaState.STOPPED}


def model_state(
    has_replicas: bool, application: ApplicationStatus, engine: DeploymentStatusOverview
) -> tuple[ModelState, str]:
    """A model's state and, worded for clients, its reason."""
    if has_replicas:
        return ModelState.READY, ""
    is_coming = any(n for state, n in engine.replica_states.items() if state not in _STOPPING)
    is_failing = application == ApplicationStatus.DEPLOY_FAILED or engine.status in FAILING
    failure = start_failure(engine.message) if is_failing or is_coming else ""
    if failure:
        return ModelState.UNHEALTHY, f"its engine does not start: {failure}"
    if is_failing:
        if is_coming:
            return ModelState.STARTING, "its engine failed, and another one is starting"
        return ModelState.UNHEALTHY, "its engine failed; `serve status` tells the operator why"
    if is_coming or engine.status in {"UPDATING", "UPSCALING"}:
        return ModelState.STARTING, "its engine is starting"
    return ModelState.SCALED_TO_ZERO, "no engine runs until a request wants one"

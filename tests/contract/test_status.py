"""Statuses of applications from the details of Serve's controller."""

from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview, ReplicaState

from deployments.serve_internals.status import overviews


def test_replicas_are_counted_by_their_state() -> None:
    """As `serve.status()` does: single replicas are left out."""
    engine = {
        "status": "UPSCALING",
        "status_trigger": "AUTOSCALING",
        "message": "one more",
        "replicas": [
            {"state": ReplicaState.RUNNING, "replica_id": "a"},
            {"state": ReplicaState.STARTING, "replica_id": "b"},
            {"state": ReplicaState.RUNNING, "replica_id": "c"},
        ],
    }
    model = {
        "status": "RUNNING",
        "message": "",
        "last_deployed_time_s": 12.5,
        "route_prefix": None,
        "deployments": {"Engine": engine},
    }

    found = overviews({"qwen": model})

    states = {ReplicaState.RUNNING: 2, ReplicaState.STARTING: 1}
    expected = DeploymentStatusOverview("UPSCALING", "AUTOSCALING", states, "one more")
    assert found == {"qwen": ApplicationStatusOverview("RUNNING", "", 12.5, {"Engine": expected})}

"""Status of Serve's applications, read at a fraction of the cost of `serve.status()`.

Ray 2.60's `serve.status()` first turns the controller's answer into its models, and with these
pickles the request router of every deployment: 5 ms for each, every time, in which the router's
process does little else.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ReplicaState,
)

from deployments.serve_internals.fallback import GONE, warn_once

ERROR_LENGTH = 400
"""Characters of an error that are shown."""

_FRAME = re.compile(r'^ {2}File "', re.MULTILINE)
_HEADER = re.compile(r"^.*Traceback \(most recent call last\):$", re.MULTILINE)
_ERROR_CLASS = re.compile(r"^(?:RuntimeError: (?=(?:\w+\.)+\w+: ))?(?:\w+\.)*\w+: ")
"""Class of an error, perhaps inside the `RuntimeError` that Serve makes of every other."""
_BUILD_FAILED = "failed with exception:\n"


@dataclass(frozen=True, slots=True)
class FailedBuild:
    """One application whose builder has refused its `args`."""

    args: Mapping[str, Any]
    error: str


@dataclass(frozen=True, slots=True)
class ServeStatus:
    """Status of all applications, by name."""

    applications: Mapping[str, ApplicationStatusOverview]
    failed_builds: Mapping[str, FailedBuild] = field(default_factory=dict)
    running: Mapping[tuple[str, str], Collection[str]] = field(default_factory=dict)
    """Ids of the running replicas of each deployment, by its application's name and its own."""


def serve_status() -> ServeStatus:
    """Status of all applications, in one call. Blocks until the controller has answered."""
    try:
        details = _application_details()
        applications = overviews(details)
    except GONE as error:
        consequence = "serve.status() is used: slower, and without models whose entry is wrong"
        warn_once("the Serve controller's status", consequence, repr(error))
        return ServeStatus(dict(serve.status().applications))
    return ServeStatus(applications, failed_builds(applications, details), _running(details))


def _running(applications: Mapping[str, Any]) -> dict[tuple[str, str], Collection[str]]:
    try:
        return {
            (name, deployment): [
                replica["replica_id"]
                for replica in each["replicas"]
                if replica["state"] == ReplicaState.RUNNING
            ]
            for name, application in applications.items()
            for deployment, each in application["deployments"].items()
        }
    except GONE as error:
        consequence = "routers do not name those that do not answer"
        warn_once("the ids in the Serve controller's list of replicas", consequence, repr(error))
        return {}


def unplaced_replicas(app: str, deployment: str) -> int:
    """Number of a deployment's starting replicas that have no node yet, as far as Serve knows.

    Serve learns of the node when the replica's process is up, which may take long.
    Blocks until the controller has answered.
    """
    try:
        application = _application_details().get(app, {})
        replicas = application.get("deployments", {}).get(deployment, {}).get("replicas", ())
        return sum(
            replica["state"] == ReplicaState.STARTING and replica.get("node_id") is None
            for replica in replicas
        )
    except GONE as error:
        consequence = "every replica that is starting counts as one without a node"
        warn_once("the Serve controller's list of replicas", consequence, repr(error))
        return _starting(app, deployment)


def overviews(applications: Mapping[str, Any]) -> dict[str, ApplicationStatusOverview]:
    """Applications in the controller's details as `serve.status()` would have them."""
    return {
        name: ApplicationStatusOverview(
            status=application["status"],
            message=application["message"],
            last_deployed_time_s=application["last_deployed_time_s"],
            deployments={
                each: _deployment(details) for each, details in application["deployments"].items()
            },
        )
        for name, application in applications.items()
    }


@dataclass(frozen=True, slots=True)
class ReplicaDetails:
    """One replica, as the controller has it."""

    id: str
    state: str
    pid: int | None


@dataclass(frozen=True, slots=True)
class DeploymentDetails:
    """One deployment, as the controller has it."""

    target: int
    """Number of replicas that it is to have."""
    replicas: Sequence[ReplicaDetails]
    deployed_s: float
    """When its application was deployed last."""


def deployment_details() -> dict[tuple[str, str], DeploymentDetails]:
    """All deployments, by the names of their application and their own.

    Empty if this version of Ray does not have them. Blocks until the controller has answered.
    """
    try:
        return {
            (name, deployment): DeploymentDetails(
                target=each["target_num_replicas"],
                replicas=[
                    ReplicaDetails(r["replica_id"], ReplicaState(r["state"]).value, r.get("pid"))
                    for r in each["replicas"]
                ],
                deployed_s=application["last_deployed_time_s"],
            )
            for name, application in _application_details().items()
            for deployment, each in application["deployments"].items()
        }
    except GONE as error:
        warn_once("the Serve controller's list of replicas", "it is not followed", repr(error))
        return {}


def start_failure(message: str) -> str:
    """Error of the last replica that failed to start, without traceback; empty if none failed.

    `message` is Serve's for a deployment: it ends with the traceback that the replica raised.
    """
    if "failed to start" not in message:
        return ""
    _, _, error = message.partition("Error:\n")
    frames = list(_FRAME.finditer(error)) or list(_HEADER.finditer(error))
    lines = error[frames[-1].start() :].splitlines()[1:] if frames else error.splitlines()
    while lines and lines[0].startswith("    "):
        lines.pop(0)  # the code of the last frame
    text = " ".join(" ".join(lines).split())
    return _ERROR_CLASS.sub("", text)[:ERROR_LENGTH]


def failed_builds(
    applications: Mapping[str, ApplicationStatusOverview], details: Mapping[str, Any]
) -> dict[str, FailedBuild]:
    """The applications whose builders have refused their `args`, in the controller's details.

    Of these applications Serve runs nothing, so that only its own record of what was deployed knows
    them.
    """
    failed = {
        name: overview
        for name, overview in applications.items()
        if overview.status == ApplicationStatus.DEPLOY_FAILED and not overview.deployments
    }
    if not failed:
        return {}
    try:
        deployed = {name: details[name]["deployed_app_config"] for name in failed}
        return {
            name: FailedBuild(config["args"], _build_error(failed[name].message))
            for name, config in deployed.items()
            if config
        }
    except GONE as error:
        consequence = "a model whose entry is wrong is not listed"
        warn_once("the Serve controller's record of what was deployed", consequence, repr(error))
        return {}


def _build_error(message: str) -> str:
    """Error of an application's builder on one line; Serve adds a traceback to most."""
    _, _, error = message.partition(_BUILD_FAILED)
    lines = [line.strip() for line in (error or message).splitlines() if line.strip()]
    if any(line.startswith("Traceback ") for line in lines):
        lines = [_ERROR_CLASS.sub("", lines[-1])]
    return "; ".join(lines)[:ERROR_LENGTH]


def _application_details() -> Mapping[str, Any]:
    from ray.serve.context import _get_global_client

    applications: Mapping[str, Any] = _get_global_client().get_serve_details()["applications"]
    return applications


def _deployment(details: Mapping[str, Any]) -> DeploymentStatusOverview:
    return DeploymentStatusOverview(
        status=details["status"],
        status_trigger=details["status_trigger"],
        replica_states=dict(Counter(replica["state"] for replica in details["replicas"])),
        message=details["message"],
    )


def _starting(app: str, deployment: str) -> int:
    application = serve.status().applications.get(app)
    overview = application.deployments.get(deployment) if application else None
    count: int = overview.replica_states.get(ReplicaState.STARTING, 0) if overview else 0
    return count

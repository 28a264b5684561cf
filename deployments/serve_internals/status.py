"""How all of Serve's applications stand: what `serve.status()` tells, at a fraction of its cost.

Ray 2.60's `serve.status()` makes what the controller answers into its models first, and with these
pickles the request router of every deployment: 5 ms for each that has Serve's own, every time, in
which the router's process does little else.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray.serve.context import _get_global_client as get_serve_client
from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview


def application_statuses() -> dict[str, ApplicationStatusOverview]:
    """All applications, by name. Blocks until the controller has answered."""
    return overviews(application_details())


def application_details() -> Mapping[str, Any]:
    """The same as the controller tells it, single replicas included."""
    # No public name in Ray 2.60 gives the answer as it comes.
    applications: Mapping[str, Any] = get_serve_client().get_serve_details()["applications"]
    return applications


def overviews(applications: Mapping[str, Any]) -> dict[str, ApplicationStatusOverview]:
    """The same from the applications in Serve's details."""
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


def _deployment(details: Mapping[str, Any]) -> DeploymentStatusOverview:
    return DeploymentStatusOverview(
        status=details["status"],
        status_trigger=details["status_trigger"],
        replica_states=dict(Counter(replica["state"] for replica in details["replicas"])),
        message=details["message"],
    )


LENGTH_LIMIT = 400
"""Characters of an error that are told."""

_FRAME = re.compile(r'^ {2}File "', re.MULTILINE)
_ERROR = re.compile(r"^(?:\w+\.)*\w+: ")


def start_failure(message: str) -> str:
    """The error with which the last replica failed to start, without traceback; else empty.

    `message` is Serve's for a deployment: it ends with the traceback that the replica raised.
    """
    if "failed to start" not in message:
        return ""
    _, _, error = message.partition("Error:\n")
    frames = list(_FRAME.finditer(error))
    lines = error[frames[-1].start() :].splitlines()[1:] if frames else error.splitlines()
    while lines and lines[0].startswith("    "):
        lines.pop(0)  # the code of the last frame
    text = " ".join(" ".join(lines).split())
    return _ERROR.sub("", text)[:LENGTH_LIMIT]

"""Connections that a deployment needs from HAProxy, and those for which a machine has files.

A client's connection carries one request at a time. A deployment admits as many requests as its
routers may queue and its engines may run: for each model, `queue.max_requests` for each router, and
the slots of all replicas. All of them may come through one node. Where HAProxy accepts fewer
connections, it turns clients away that the gateway has room for.
"""

import resource
from collections.abc import Mapping

from gateway.config.deployment_file import DeploymentFile
from gateway.config.model import ModelEntry
from gateway.config.sim import SimEntry
from gateway.environment import HAPROXY_MAXCONN

MAX_CONNECTIONS = 65_536
"""Connections by default where files are plenty; each may take 33 KB of memory."""
MIN_CONNECTIONS = 64
FILES_PER_CONNECTION = 2
"""One to the client and one to a router."""
OTHER_FILES = 256
"""Files for listeners, health checks, logs and the poller of each thread."""
DEFAULT_SLOTS = 256
"""Sequences that a vLLM engine runs if its entry does not say; on some GPUs it is more."""
MORE_FILES = (
    "allow {files} open files where Ray starts (`ulimit -Hn`, systemd's `LimitNOFILE`, Docker's"
    " `--ulimit nofile`)"
)


def max_files() -> int:
    """Number of files that HAProxy can have open here: it raises its own limit as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard if hard != resource.RLIM_INFINITY else 2**20


def files_for(connections: int) -> int:
    """Files that HAProxy needs for so many connections."""
    return connections * FILES_PER_CONNECTION + OTHER_FILES


def connections_with(files: int) -> int:
    """Connections for which so many files are enough."""
    return max(MIN_CONNECTIONS, (files - OTHER_FILES) // FILES_PER_CONNECTION)


def advice_for(connections: int) -> str:
    """What to do so that HAProxy accepts so many connections."""
    advice = MORE_FILES.format(files=files_for(connections))
    if connections > MAX_CONNECTIONS:
        advice += f", and set {HAPROXY_MAXCONN}={connections}"
    return advice


def admitted_requests(deployment: DeploymentFile) -> int:
    """Requests that a deployment may hold at the same time, with all replicas that it may have."""
    routers = deployment.routers.max_replicas
    return sum(
        entry.queue.max_requests * routers + _slots(entry) * entry.max_replicas
        for entry in (application.entry for application in deployment.models)
    )


def connections_warning(
    deployment: DeploymentFile, files: int, environ: Mapping[str, str]
) -> str | None:
    """Warning that HAProxy, on a machine like this one, accepts fewer than a deployment admits."""
    chosen = environ.get(HAPROXY_MAXCONN, "")
    most = int(chosen) if chosen.isdecimal() else MAX_CONNECTIONS
    accepted, admitted = min(most, connections_with(files)), admitted_requests(deployment)
    if accepted >= admitted:
        return None
    return (
        f"queues and engines hold up to {admitted} requests, and HAProxy would accept"
        f" {accepted} connections on this machine: {advice_for(admitted)}"
    )


def _slots(entry: ModelEntry) -> int:
    if isinstance(entry, SimEntry):
        return entry.simulation.max_sequences
    slots = entry.engine_args.get("max_num_seqs")
    return slots if isinstance(slots, int) else DEFAULT_SLOTS

"""The drills: what is lost or restarted, and what has to come back."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from loadtests.drills.cluster import ENGINES, GCS_PORT, MODELS, ROUTERS, DrillCluster, wait_for
from loadtests.drills.machines import Machine

BACK_TIMEOUT_S = 180.0
DARK_S = 30.0
DRAIN_S = 60


@dataclass
class Recovery:
    """What came back after a fault, and when: seconds since it happened."""

    began_s: float = field(default_factory=time.monotonic)
    times_s: dict[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        """The fault happens now."""
        self.began_s = time.monotonic()

    def reached(self, what: str, condition: Callable[[], object]) -> None:
        """Wait for something, and record when it came; infinite if it did not."""
        try:
            wait_for(condition, BACK_TIMEOUT_S)
            self.times_s[what] = time.monotonic() - self.began_s
        except TimeoutError:
            self.times_s[what] = float("inf")


@dataclass(frozen=True)
class Drill:
    """Something that happens to a cluster under load; `run` returns when all is back."""

    name: str
    what: str
    run: Callable[[DrillCluster, Recovery], None]
    is_planned: bool = False
    """Whether not even a connection may break."""


def kill_gcs(cluster: DrillCluster, recovery: Recovery) -> None:
    """The head's GCS is killed; the service of the head ends with it, and is started again."""
    (gcs,) = cluster.head.titled("gcs_server")
    recovery.begin()
    gcs.kill()
    _await_head(cluster, recovery)


def kill_head(cluster: DrillCluster, recovery: Recovery) -> None:
    """All that runs on the head is killed: GCS, Serve's controller, its dashboard."""
    recovery.begin()
    cluster.head.crash()
    _await_head(cluster, recovery)


def kill_worker(cluster: DrillCluster, recovery: Recovery) -> None:
    """All that runs on a worker is killed: engines, router, HAProxy; it starts again."""
    worker = _busiest(cluster)
    before = {id_ for id_, node in cluster.replicas().items() if node == worker.address}
    recovery.begin()
    worker.crash()
    _await_replicas(cluster, recovery, before)


def unplug_worker(cluster: DrillCluster, recovery: Recovery) -> None:
    """A worker's network is gone for a while: nothing is closed, nobody answers."""
    worker = _busiest(cluster)
    before = {id_ for id_, node in cluster.replicas().items() if node == worker.address}
    recovery.begin()
    worker.unplug()
    try:
        _await_replicas(cluster, recovery, before)
        time.sleep(max(0.0, recovery.began_s + DARK_S - time.monotonic()))  # noqa: TID251 - a thread
    finally:
        worker.plug_in()
    recovery.reached("node back", lambda: worker.titled("raylet") and cluster.is_whole())


def restart_all(cluster: DrillCluster, recovery: Recovery) -> None:
    """Each worker is drained and restarted, one after the other, and then the head."""
    recovery.begin()
    for worker in cluster.workers:
        _drain(cluster, worker, recovery)
        worker.restart()
        is_back = partial(_is_alive, cluster, worker)
        recovery.reached(f"{worker.name} back", is_back)
        recovery.reached(f"{worker.name}: replicas", lambda: _has_all(cluster))
    cluster.head.restart()
    _await_head(cluster, recovery)


DRILLS = (
    Drill("gcs", "GCS of the head killed", kill_gcs),
    Drill("head", "everything on the head killed", kill_head),
    Drill("worker", "everything on a worker killed", kill_worker),
    Drill("dark", "a worker without network for 30 s", unplug_worker),
    Drill("rolling", "every node drained and restarted", restart_all, is_planned=True),
)


def _await_head(cluster: DrillCluster, recovery: Recovery) -> None:
    recovery.reached("controller", cluster.applications)
    recovery.reached("replicas", lambda: _has_all(cluster))


def _await_replicas(cluster: DrillCluster, recovery: Recovery, lost: set[str]) -> None:
    recovery.reached("noticed", lambda: lost.isdisjoint(cluster.replicas()))
    recovery.reached("replicas", lambda: _has_all(cluster))


def _has_all(cluster: DrillCluster) -> bool:
    return cluster.is_whole() and len(cluster.replicas()) == ENGINES + ROUTERS + MODELS


def _drain(cluster: DrillCluster, worker: Machine, recovery: Recovery) -> None:
    """Move what runs on a worker to the others, and wait until nothing of it carries requests."""
    ray = str(Path(sys.executable).with_name("ray"))
    node = cluster.live_nodes()[worker.address]
    address = f"{cluster.head.address}:{GCS_PORT}"
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "restart"]
    deadline = ["--deadline-remaining-seconds", str(DRAIN_S)]
    subprocess.run(
        [ray, "drain-node", "--address", address, "--node-id", node, *reason, *deadline],
        env={**os.environ, **cluster.environment},
        check=True,
        capture_output=True,
    )
    recovery.reached(
        f"{worker.name} drained",
        lambda: not worker.titled("haproxy ") and not worker.titled("ray::ServeReplica"),
    )


def _is_alive(cluster: DrillCluster, worker: Machine) -> bool:
    return worker.address in cluster.live_nodes()


def _busiest(cluster: DrillCluster) -> Machine:
    """The worker with a router and the most engines."""
    nodes = list(cluster.replicas().items())

    def weight(address: str) -> tuple[bool, int]:
        found = [id_ for id_, node in nodes if node == address]
        return any("Router" in id_ for id_ in found), len(found)

    return max(cluster.workers, key=lambda worker: weight(worker.address))

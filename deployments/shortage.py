"""Which engines wait for a place, and what the cluster has for them.

All of this blocks: it is asked off the event loop, and only while an engine is starting.
"""

from collections.abc import Mapping

import ray
from ray.autoscaler.v2.schema import ClusterStatus, NodeInfo, ResourceDemandSummary
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.serve.schema import ReplicaState

from deployments.statuses import application_details
from gateway.cluster.shortage import Cluster, Node

GROUP = "_group_"
"""In the names of what placement groups have reserved, which stand beside the nodes' own."""
UNEXPLAINED = "its engine waits for Ray to place it"
"""Said where the cluster's sums show room enough, so that nothing tells why."""


def unplaced(app: str, deployment: str) -> int:
    """How many replicas of a deployment start and are on no node yet, as far as Serve knows.

    Serve learns of the node when the replica's process is up, which may take long by itself.
    """
    # `serve.status()` tells that replicas start, but not whether they have a node yet.
    application = application_details().get(app, {})
    replicas = application.get("deployments", {}).get(deployment, {}).get("replicas", ())
    return sum(
        replica["state"] == ReplicaState.STARTING and replica.get("node_id") is None
        for replica in replicas
    )


def read_cluster() -> Cluster:
    """What the cluster has at the moment."""
    # No public name in Ray 2.60 tells what is free on each node; this is what `ray status` asks.
    return cluster_of(get_cluster_status(ray.get_runtime_context().gcs_address))


def cluster_of(status: ClusterStatus) -> Cluster:
    """Ray's own description of the cluster, as far as it decides where replicas go."""
    return Cluster(
        nodes=[_node(node) for node in (*status.active_nodes, *status.idle_nodes)],
        pending_nodes=len(status.pending_nodes)
        + sum(launch.count for launch in status.pending_launches),
        pending_demands=_sought(status.resource_demands),
    )


def _sought(demands: ResourceDemandSummary) -> list[list[dict[str, float]]]:
    """What each group and each actor needs that Ray has found no node for."""
    groups = [
        [dict(shape.bundle) for shape in group.bundles_by_count for _ in range(shape.count)]
        for group in demands.placement_group_demand
    ]
    actors = [
        [dict(shape.bundle)]
        for demand in demands.ray_task_actor_demand
        for shape in demand.bundles_by_count
    ]
    return groups + actors


def _node(node: NodeInfo) -> Node:
    return Node(
        node.node_id,
        total=_own(node.total_resources()),
        free=_own(node.available_resources()),
    )


def _own(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in resources.items() if GROUP not in name}

"""State of the Ray cluster that decides where replicas go: nodes, and unmet demands.

All of this blocks: call it off the event loop, and only while an engine is starting.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ray

from deployments.serve_internals.fallback import GONE, warn_once
from gateway.cluster.shortage import Cluster, Node

if TYPE_CHECKING:
    from ray.autoscaler.v2.schema import ClusterStatus, NodeInfo, ResourceDemandSummary

PLACEMENT_GROUP_MARK = "_group_"
"""Part of the names of resources that placement groups have reserved, among the nodes' own."""
UNEXPLAINED_WAIT = "its engine waits for Ray to place it"
"""Reason if the cluster's totals show enough room, and only Ray knows why it finds none."""


def read_cluster() -> Cluster | None:
    """Current state of the cluster; None if this version of Ray does not report it."""
    # No public name in Ray 2.60 gives the free resources of a node; `ray status` reads these.
    try:
        from ray.autoscaler.v2.sdk import get_cluster_status

        return cluster_of(get_cluster_status(ray.get_runtime_context().gcs_address))
    except GONE as error:
        consequence = (
            "a model that is starting does not say what it waits for, and changed engines wait"
            " until there is room beside the old ones"
        )
        warn_once("Ray's cluster status", consequence, repr(error))
        return None


def cluster_of(status: "ClusterStatus") -> Cluster:
    """The parts of Ray's own cluster status that decide where replicas go."""
    return Cluster(
        nodes=[_node(node) for node in (*status.active_nodes, *status.idle_nodes)],
        pending_nodes=len(status.pending_nodes)
        + sum(launch.count for launch in status.pending_launches),
        pending_demands=_unmet(status.resource_demands),
    )


def _unmet(demands: "ResourceDemandSummary") -> list[list[dict[str, float]]]:
    """Bundles of each placement group and each actor that Ray has found no node for."""
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


def _node(node: "NodeInfo") -> Node:
    return Node(
        node.node_id,
        total=_without_groups(node.total_resources()),
        free=_without_groups(node.available_resources()),
    )


def _without_groups(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in resources.items() if PLACEMENT_GROUP_MARK not in name}

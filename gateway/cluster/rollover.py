"""Chooses which old replicas stop to make room for a model's changed ones.

Changed replicas start beside the old ones, a few at a time. If there is no room for a changed
replica, old ones stop first: as a rule one; if the changed one is larger, as many as it takes. No
replica stops for one that would not fit even without any of them.

A replica that needs a single node gets the node where the fewest old ones have to stop; those that
hold most of that node stop first. If the workers of a replica may be on different nodes, old
replicas are taken in the given order, so slightly more of them may stop than necessary.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.cluster.placement import Placement, Resources
from gateway.cluster.shortage import Cluster, Node, explain_shortage

MAX_SURGE_PERCENT = 25
"""Share of a model's replicas that may start as changed ones beside the old; at least one may."""


def max_surge(replicas: int) -> int:
    """Number of changed replicas that may start beside the old ones, as Serve rounds it."""
    return (MAX_SURGE_PERCENT * replicas + 99) // 100


@dataclass(frozen=True, slots=True)
class ReplicaReservation:
    """Resources that a running replica has reserved on each node, by node id."""

    replica: str
    reserved: Mapping[str, Resources]


def replicas_to_stop(
    placement: Placement, cluster: Cluster, old: Sequence[ReplicaReservation]
) -> list[str] | None:
    """Old replicas that have to stop for the placement; None if stopping all is not enough."""
    is_spread = len(placement.bundles) > 1
    candidates = _any_nodes(old) if is_spread else _one_node_each(cluster, old)
    for stopping in sorted(candidates, key=len):
        if explain_shortage(placement, _cluster_without(stopping, cluster)) is None:
            return [reservation.replica for reservation in stopping]
    return None


def _any_nodes(old: Sequence[ReplicaReservation]) -> list[Sequence[ReplicaReservation]]:
    """Each replica alone, then the first two, the first three and so on."""
    return [[each] for each in old] + [old[:count] for count in range(2, len(old) + 1)]


def _one_node_each(
    cluster: Cluster, old: Sequence[ReplicaReservation]
) -> list[Sequence[ReplicaReservation]]:
    """For each node, its largest replica, its two largest and so on."""
    by_node = (_largest_first(node, old) for node in cluster.nodes)
    return [there[:count] for there in by_node for count in range(1, len(there) + 1)]


def _largest_first(node: Node, old: Sequence[ReplicaReservation]) -> list[ReplicaReservation]:
    there = [each for each in old if node.id in each.reserved]
    return sorted(there, key=lambda each: _size(each.reserved[node.id]), reverse=True)


def _size(amounts: Resources) -> tuple[float, float]:
    return amounts.get("GPU", 0), amounts.get("CPU", 0)


def _cluster_without(stopping: Sequence[ReplicaReservation], cluster: Cluster) -> Cluster:
    nodes = [
        _node_with_released(node, [each.reserved.get(node.id, {}) for each in stopping])
        for node in cluster.nodes
    ]
    return replace(cluster, nodes=nodes)


def _node_with_released(node: Node, released: Sequence[Resources]) -> Node:
    free = Counter(node.free)
    for amounts in released:
        free.update(amounts)
    return replace(node, free=dict(free))

"""How a model's changed replicas replace the old ones, and which of those have to make room.

Changed replicas start beside the old ones, a few at a time. Where there is no room for one, old
ones stop first: one is enough as a rule; where the changed one is larger, as many as it takes.
Nothing stops for a replica that would not fit without all of them either.

One that needs a single node gets the node where the fewest old ones have to stop, those that hold
most there first. Where each worker of a replica may lie on a node of its own, old ones are taken in
the order given, so that a few more may stop than had to.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.cluster.placement import Placement, Resources
from gateway.cluster.shortage import Cluster, Node, shortage

SURGE_PERCENT = 25
"""Changed replicas that may start beside the old ones, of a model's replicas; at least one may."""


def surge(replicas: int) -> int:
    """How many changed replicas may start beside so many old ones, as Serve rounds it."""
    return (SURGE_PERCENT * replicas + 99) // 100


@dataclass(frozen=True, slots=True)
class Holder:
    """A running replica and what it has reserved on each node, by the node's id."""

    replica: str
    reserved: Mapping[str, Resources]


def yielding(placement: Placement, cluster: Cluster, old: Sequence[Holder]) -> list[str] | None:
    """The replicas of `old` to stop; None if not even all of them leave room for the placement."""
    is_spread = len(placement.bundles) > 1
    choices = _any_together(old) if is_spread else _together_on_a_node(cluster, old)
    for leaving in sorted(choices, key=len):
        if shortage(placement, _without(leaving, cluster)) is None:
            return [holder.replica for holder in leaving]
    return None


def _any_together(old: Sequence[Holder]) -> list[Sequence[Holder]]:
    return [[holder] for holder in old] + [old[:count] for count in range(2, len(old) + 1)]


def _together_on_a_node(cluster: Cluster, old: Sequence[Holder]) -> list[Sequence[Holder]]:
    each_node = (_largest_first(node, old) for node in cluster.nodes)
    return [there[:count] for there in each_node for count in range(1, len(there) + 1)]


def _largest_first(node: Node, old: Sequence[Holder]) -> list[Holder]:
    there = [holder for holder in old if node.id in holder.reserved]
    return sorted(there, key=lambda holder: _size(holder.reserved[node.id]), reverse=True)


def _size(amounts: Resources) -> tuple[float, float]:
    return amounts.get("GPU", 0), amounts.get("CPU", 0)


def _without(leaving: Sequence[Holder], cluster: Cluster) -> Cluster:
    nodes = [_freed(node, [h.reserved.get(node.id, {}) for h in leaving]) for node in cluster.nodes]
    return replace(cluster, nodes=nodes)


def _freed(node: Node, reserved: Sequence[Resources]) -> Node:
    free = Counter(node.free)
    for amounts in reserved:
        free.update(amounts)
    return replace(node, free=dict(free))

"""How a model's changed replicas replace the old ones, and which of those have to make room.

Changed replicas start beside the old ones, a few at a time. Where there is no room for one, old
ones stop first: one is enough as a rule; where the changed one is larger, as many as it takes, in
the order given. Nothing stops for a replica that would not fit without all of them either.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.placement import Placement, Resources
from gateway.shortage import Cluster, Node, shortage

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
    alone = ([holder] for holder in old)
    together = (old[:count] for count in range(2, len(old) + 1))
    for leaving in (*alone, *together):
        if shortage(placement, _without(leaving, cluster)) is None:
            return [holder.replica for holder in leaving]
    return None


def _without(leaving: Sequence[Holder], cluster: Cluster) -> Cluster:
    nodes = [_freed(node, [h.reserved.get(node.id, {}) for h in leaving]) for node in cluster.nodes]
    return replace(cluster, nodes=nodes)


def _freed(node: Node, reserved: Sequence[Resources]) -> Node:
    free = Counter(node.free)
    for amounts in reserved:
        free.update(amounts)
    return replace(node, free=dict(free))

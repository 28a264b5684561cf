"""Whether a cluster has room for all models of a deployment file at once.

Method: first fit, the replicas with the most GPUs first, as an empty cluster would fill up. Ray may
pack otherwise: what has no room here may still find some, if rarely. Cost: replicas times nodes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.cluster.placement import Placement, Resources, plan_placement
from gateway.cluster.shortage import ROUNDING, Cluster, Node, explain_shortage
from gateway.config.deployment_file import DeploymentFile

GPU, CPU = "GPU", "CPU"


@dataclass(frozen=True, slots=True)
class WaitingModel:
    """A model of which some replicas have no room."""

    model: str
    wanted: int
    placed: int
    reason: str
    """What the next replica needs, and what there is."""


def first_fit(
    deployment: DeploymentFile, nodes: Sequence[Node], *, at_most: bool
) -> Iterator[WaitingModel]:
    """Models that would wait for resources; `at_most`: with all replicas that they may have."""
    free = {node.id: dict(node.total) for node in nodes}
    routers = deployment.routers
    count = routers.max_replicas if at_most else routers.min_replicas
    yield from _place("routers", Placement({CPU: routers.cpus}), count, nodes, free)
    planned = [(each.entry, plan_placement(each.entry)) for each in deployment.models]
    for entry, placement in sorted(planned, key=lambda pair: -pair[1].gpus):
        wanted = entry.max_replicas if at_most else entry.min_replicas
        yield from _place(entry.name, placement, wanted, nodes, free)


def _place(
    name: str,
    placement: Placement,
    wanted: int,
    nodes: Sequence[Node],
    free: dict[str, dict[str, float]],
) -> Iterator[WaitingModel]:
    for placed in range(wanted):
        if not _take(placement.bundles or (placement.actor,), free):
            left = [Node(node.id, node.total, free[node.id]) for node in nodes]
            reason = explain_shortage(placement, Cluster(left)) or "no choice of nodes has room"
            yield WaitingModel(name, wanted, placed, reason)
            return


def _take(units: Sequence[Resources], free: dict[str, dict[str, float]]) -> bool:
    """Reserve all units, each on the first node with room; False, and nothing, if one has none."""
    taken: list[tuple[str, Resources]] = []
    for unit in units:
        node = next((name for name, rest in free.items() if _has_room(rest, unit)), None)
        if node is None:
            for name, amounts in taken:
                _add(free[name], amounts, 1)
            return False
        _add(free[node], unit, -1)
        taken.append((node, unit))
    return True


def _has_room(rest: Resources, unit: Resources) -> bool:
    return all(rest.get(name, 0.0) + ROUNDING >= amount for name, amount in unit.items())


def _add(rest: dict[str, float], unit: Resources, sign: int) -> None:
    for name, amount in unit.items():
        rest[name] = rest.get(name, 0.0) + sign * amount

"""Explains why a replica waits to be placed: what it needs, what the nodes have and have free.

Method: a replica is one unit on one node, or several equal units, one per worker, on any nodes. The
explanation names the first resource that no choice of nodes has enough of: GPUs, then the CPUs on
the same nodes. Amounts are sums over a node: they do not show whether a free GPU is whole or made
of parts of several. Whether a replica waits is therefore decided by Ray's pending demands; the sums
only explain it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.cluster.placement import ACCELERATOR_TYPE_PREFIX, Placement, Resources

ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Node:
    """Logical resources of a node: its total, and what nothing has reserved."""

    id: str
    total: Resources
    free: Resources

    @property
    def gpu_types(self) -> set[str]:
        """Types of its GPUs, as Ray spells them."""
        typed = (name for name in self.total if name.startswith(ACCELERATOR_TYPE_PREFIX))
        return {name.removeprefix(ACCELERATOR_TYPE_PREFIX) for name in typed}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes of the cluster, and what is pending."""

    nodes: Sequence[Node]
    pending_nodes: int = 0
    """Nodes that the autoscaler is adding."""
    pending_demands: Sequence[Sequence[Resources]] = ()
    """Reservations that Ray has not placed yet: the bundles of a group, or an actor's resources."""

    def has_demand_for(self, placement: Placement) -> bool:
        """Whether Ray is trying to place a replica with this placement."""
        units = _units(placement)
        return any(
            len(bundles) == len(units) and all(_matches(bundle, units[0]) for bundle in bundles)
            for bundles in self.pending_demands
        )


def explain_shortage(placement: Placement, cluster: Cluster) -> str | None:
    """Explain what keeps a replica from being placed; None if there is room for it."""
    explanation = _Requirement(placement).explain_shortage(cluster.nodes)
    if explanation is None or not cluster.pending_nodes:
        return explanation
    nodes = "1 node is" if cluster.pending_nodes == 1 else f"{cluster.pending_nodes} nodes are"
    return f"{explanation}; {nodes} being added"


class _Requirement:
    """Resources that a replica needs: a number of equal units, each on one node."""

    def __init__(self, placement: Placement) -> None:
        units = _units(placement)
        self._unit = units[0]
        self._count = len(units)
        types = [name for name in self._unit if name.startswith(ACCELERATOR_TYPE_PREFIX)]
        self._gpu_type = types[0].removeprefix(ACCELERATOR_TYPE_PREFIX) if types else None

    def explain_shortage(self, nodes: Sequence[Node]) -> str | None:
        """Need and shortage, without the pending nodes."""
        if self._fitting_units(nodes, lambda node: node.free) >= self._count:
            return None
        if "GPU" not in self._unit:
            return f"needs {self._needed('CPU')}; {self._resource_shortage('CPU', nodes)}"
        suitable = nodes
        if self._gpu_type is not None:
            suitable = [node for node in nodes if self._gpu_type in node.gpu_types]
        needs = f"needs {self._needed('GPU')}"
        if not any(node.total.get("GPU") for node in suitable):
            return f"{needs}; {self._gpu_type_shortage(nodes)}"
        if gpu_shortage := self._resource_shortage("GPU", suitable):
            return f"{needs}; {gpu_shortage}"
        cpus = _quantity(self._unit["CPU"], "CPU")
        each = " each" if self._count > 1 else ""
        return f"{needs} with {cpus}{each}; {self._cpu_shortage(suitable)}"

    def _fitting_units(self, nodes: Sequence[Node], amounts: Callable[[Node], Resources]) -> int:
        """Number of units that fit into `amounts` of the nodes."""
        return sum(
            min(_multiples(amounts(node).get(name, 0), each) for name, each in self._unit.items())
            for node in nodes
        )

    def _needed(self, resource: str) -> str:
        """Total need of a resource, with the GPU type and whether it must be on one node."""
        amount = self._unit[resource] * self._count
        needed = _quantity(amount, resource)
        if resource == "GPU" and self._gpu_type is not None:
            needed += f" of type {self._gpu_type}"
        return needed if self._count > 1 or amount <= 1 else f"{needed} on one node"

    def _resource_shortage(self, resource: str, nodes: Sequence[Node]) -> str:
        """Shortage of a resource taken alone; empty if there is enough."""
        each = self._unit[resource]
        if self._count > 1:
            total = sum(_multiples(n.total.get(resource, 0), each) for n in nodes) * each
            free = sum(_multiples(n.free.get(resource, 0), each) for n in nodes) * each
            return _cluster_shortage(each * self._count, total, free)
        largest = max((n.total.get(resource, 0) for n in nodes), default=0)
        if largest + ROUNDING < each:
            return f"the largest node has {largest:g}"
        free = max(n.free.get(resource, 0) for n in nodes)
        if free + ROUNDING < each:
            return f"the largest free is {free:g}" if free > ROUNDING else "none is free"
        return ""

    def _gpu_type_shortage(self, nodes: Sequence[Node]) -> str:
        """GPUs that there are instead of the needed type."""
        others = sorted(set[str]().union(*(node.gpu_types for node in nodes)))
        if not any(node.total.get("GPU") for node in nodes):
            return "no node has a GPU"
        if self._gpu_type is None or not others:
            return f"no node has the resource `{ACCELERATOR_TYPE_PREFIX}{self._gpu_type}`"
        return f"no node has that type, only {' and '.join(others)}"

    def _cpu_shortage(self, nodes: Sequence[Node]) -> str:
        """Shortage of CPUs on the nodes that have enough GPUs."""
        if self._count > 1:
            return self._cpu_shortage_for_units(nodes)
        gpus, cpus = self._unit["GPU"], self._unit["CPU"]
        with_gpus = [n for n in nodes if n.total.get("GPU", 0) + ROUNDING >= gpus]
        if all(n.total.get("CPU", 0) + ROUNDING < cpus for n in with_gpus):
            largest = max(n.total.get("CPU", 0) for n in with_gpus)
            return f"nodes with enough GPUs have at most {_quantity(largest, 'CPU')}"
        free = max(n.free.get("CPU", 0) for n in nodes if n.free.get("GPU", 0) + ROUNDING >= gpus)
        if free <= ROUNDING:
            return "nodes with enough free GPUs have no free CPU"
        return f"nodes with enough free GPUs have at most {_quantity(free, 'free CPU')}"

    def _cpu_shortage_for_units(self, nodes: Sequence[Node]) -> str:
        """Number of GPUs that have CPUs on the same node."""
        if (in_total := self._fitting_units(nodes, lambda node: node.total)) < self._count:
            return f"the nodes have CPUs for {in_total or 'none'} of them"
        free = self._fitting_units(nodes, lambda node: node.free)
        return f"nodes with free GPUs have free CPUs for {free or 'none'} of them"


def _units(placement: Placement) -> Sequence[Resources]:
    """Reservations of a replica that must each be on one node."""
    return placement.bundles or (placement.actor,)


def _matches(bundle: Resources, unit: Resources) -> bool:
    """Whether a bundle asks for exactly the unit's amounts; it may ask for other resources too."""
    return all(abs(bundle.get(name, 0) - amount) < ROUNDING for name, amount in unit.items())


def _cluster_shortage(needed: float, total: float, free: float) -> str:
    if total + ROUNDING < needed:
        return f"the cluster has {total:g}"
    if free + ROUNDING < needed:
        verb = "is" if free <= 1 else "are"
        return f"{free:g} {verb} free" if free > ROUNDING else "none is free"
    return ""


def _multiples(available: float, each: float) -> int:
    """Number of times that `each` fits into what is available."""
    return int((available + ROUNDING) / each)


def _quantity(amount: float, noun: str) -> str:
    """`0.5 of a GPU`, `1 GPU` or `4 GPUs`."""
    if amount < 1:
        return f"{amount:g} of a {noun}"
    return f"{amount:g} {noun}" if amount == 1 else f"{amount:g} {noun}s"

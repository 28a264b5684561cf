"""Why a replica waits for a place: what it needs beside what the nodes have, and have free.

A replica is one unit on one node, or several equal ones, a worker each, on any nodes. GPUs are
looked at first, then the CPUs beside them; what no choice of nodes has enough of is said. Amounts
are a node's sums: whether a GPU is free whole or in parts of several cannot be seen in them. So
what Ray seeks a place for decides whether a replica waits for one; the sums only explain it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.cluster.placement import ACCELERATOR_TYPE, Placement, Resources

ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Node:
    """A node's logical resources: all of them, and those that nothing has reserved."""

    id: str
    total: Resources
    free: Resources

    @property
    def gpu_types(self) -> set[str]:
        """The types of its GPUs, as Ray calls them."""
        typed = (name for name in self.total if name.startswith(ACCELERATOR_TYPE))
        return {name.removeprefix(ACCELERATOR_TYPE) for name in typed}


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes there are, how many more the autoscaler is adding, and who waits for them."""

    nodes: Sequence[Node]
    coming: int = 0
    sought: Sequence[Sequence[Resources]] = ()
    """What Ray seeks a place for: the bundles of a group, or all that an actor reserves."""

    def is_seeking(self, placement: Placement) -> bool:
        """Whether Ray seeks a place for a replica that is placed so, or for another like it."""
        units = _units(placement)
        return any(
            len(bundles) == len(units) and all(_is_for(units[0], bundle) for bundle in bundles)
            for bundles in self.sought
        )


def shortage(placement: Placement, cluster: Cluster) -> str | None:
    """What keeps a replica from being placed, in words; None where there is room for it."""
    lack = _Requirement(placement).lack(cluster.nodes)
    if lack is None or not cluster.coming:
        return lack
    nodes = "1 node is" if cluster.coming == 1 else f"{cluster.coming} nodes are"
    return f"{lack}; {nodes} being added"


class _Requirement:
    """What a replica asks of the nodes."""

    def __init__(self, placement: Placement) -> None:
        units = _units(placement)
        self._unit = units[0]
        self._count = len(units)
        types = [name for name in self._unit if name.startswith(ACCELERATOR_TYPE)]
        self._type = types[0].removeprefix(ACCELERATOR_TYPE) if types else None

    def lack(self, nodes: Sequence[Node]) -> str | None:
        """The whole sentence, but for the nodes being added."""
        if self._units(nodes, lambda node: node.free) >= self._count:
            return None
        if "GPU" not in self._unit:
            return f"needs {self._wanted('CPU')}; {self._scarce('CPU', nodes)}"
        suited = nodes if self._type is None else [n for n in nodes if self._type in n.gpu_types]
        needs = f"needs {self._wanted('GPU')}"
        if not any(node.total.get("GPU") for node in suited):
            return f"{needs}; {self._types_instead(nodes)}"
        if scarce := self._scarce("GPU", suited):
            return f"{needs}; {scarce}"
        return f"{needs} and {self._cpus} beside {self._them}; {self._scarce_beside(suited)}"

    def _units(self, nodes: Sequence[Node], amounts: Callable[[Node], Resources]) -> int:
        """How many units there is room for in `amounts` of the nodes."""
        return sum(
            min(_times(amounts(node).get(name, 0), each) for name, each in self._unit.items())
            for node in nodes
        )

    def _wanted(self, resource: str) -> str:
        """All of a resource that the replica needs, and where."""
        amount = self._unit[resource] * self._count
        noun = _amount(amount, resource)
        if resource == "GPU" and self._type is not None:
            noun += f" of type {self._type}"
        return noun if self._count > 1 or amount <= 1 else f"{noun} on one node"

    def _scarce(self, resource: str, nodes: Sequence[Node]) -> str:
        """How a resource by itself is short; empty if it is not."""
        each = self._unit[resource]
        if self._count > 1:
            total = sum(_times(n.total.get(resource, 0), each) for n in nodes) * each
            free = sum(_times(n.free.get(resource, 0), each) for n in nodes) * each
            return self._sum_short(each * self._count, total, free)
        largest = max((n.total.get(resource, 0) for n in nodes), default=0)
        if largest + ROUNDING < each:
            return f"the largest node has {largest:g}"
        free = max(n.free.get(resource, 0) for n in nodes)
        if free + ROUNDING < each:
            return f"the largest free is {free:g}" if free > ROUNDING else "none is free"
        return ""

    def _sum_short(self, needed: float, total: float, free: float) -> str:
        if total + ROUNDING < needed:
            return f"the cluster has {total:g}"
        if free + ROUNDING < needed:
            are = "is" if free <= 1 else "are"
            return f"{free:g} {are} free" if free > ROUNDING else "none is free"
        return ""

    def _types_instead(self, nodes: Sequence[Node]) -> str:
        """What there is instead of GPUs of the wanted type."""
        others = sorted(set[str]().union(*(node.gpu_types for node in nodes)))
        if not any(node.total.get("GPU") for node in nodes):
            return "no node has a GPU"
        if self._type is None or not others:
            return f"no node has the resource `{ACCELERATOR_TYPE}{self._type}`"
        return f"no node has that type, only {' and '.join(others)}"

    @property
    def _cpus(self) -> str:
        return _amount(self._unit["CPU"], "CPU")

    @property
    def _them(self) -> str:
        return "each" if self._count > 1 else "it" if self._unit["GPU"] <= 1 else "them"

    def _scarce_beside(self, nodes: Sequence[Node]) -> str:
        """How CPUs are short on the nodes that have GPUs enough."""
        if self._count > 1:
            return self._units_beside(nodes)
        gpus, cpus = self._unit["GPU"], self._unit["CPU"]
        with_gpus = [n for n in nodes if n.total.get("GPU", 0) + ROUNDING >= gpus]
        if all(n.total.get("CPU", 0) + ROUNDING < cpus for n in with_gpus):
            most = max(n.total.get("CPU", 0) for n in with_gpus)
            return f"such a node has at most {most:g}"
        free = max(n.free.get("CPU", 0) for n in nodes if n.free.get("GPU", 0) + ROUNDING >= gpus)
        if free <= ROUNDING:
            return "where GPUs are free, no CPU is"
        are = "is" if free <= 1 else "are"
        return f"where GPUs are free, at most {_amount(free, 'CPU')} {are}"

    def _units_beside(self, nodes: Sequence[Node]) -> str:
        """For how many of the GPUs there are CPUs on the same node."""
        if (most := self._units(nodes, lambda node: node.total)) < self._count:
            return f"the nodes have CPUs for {most or 'none'} of them"
        free = self._units(nodes, lambda node: node.free)
        return f"where GPUs are free, CPUs are for {free or 'none'} of them"


def _units(placement: Placement) -> Sequence[Resources]:
    """What has to lie on one node each."""
    return placement.bundles or (placement.actor,)


def _is_for(unit: Resources, bundle: Resources) -> bool:
    """Whether a bundle asks for all of a unit, and at most for other resources beside it."""
    return all(abs(bundle.get(name, 0) - amount) < ROUNDING for name, amount in unit.items())


def _times(available: float, each: float) -> int:
    """How often `each` is contained in what is available."""
    return int((available + ROUNDING) / each)


def _amount(amount: float, noun: str) -> str:
    if amount < 1:
        return f"{amount:g} of a {noun}"
    return f"{amount:g} {noun}" if amount == 1 else f"{amount:g} {noun}s"

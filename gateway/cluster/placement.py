"""Plans where the workers of one replica run: their resources, their nodes and their executor.

If all workers fit on one node, they share one bundle there, which the replica reserves as a whole:
Ray then shows the replica exactly those GPUs, and vLLM starts the workers itself (`mp`). Otherwise
each worker has a bundle of one GPU, because vLLM's `ray` executor accepts no other, and Ray packs
the bundles onto as few nodes as it can. On partly used nodes, packing alone may split a pipeline
stage between nodes, and no shape of bundles prevents that. So the replica orders its ranks by the
nodes of its bundles (`rank_order`), and refuses to start if some stage would still be split.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway.config.hardware import Gpu, PlacedEntry
from gateway.config.vllm import VllmEntry
from gateway.errors.startup import PlacementFailed

Resources = dict[str, float]
Executor = Literal["uni", "mp", "ray"]

ACCELERATOR_TYPE_PREFIX = "accelerator_type:"
"""Start of the name of the resource by which Ray marks a node with its GPU type."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Reservation of one replica; amounts are Ray's logical resources."""

    actor: Resources
    """Resources of the replica's own actor; part of the first bundle if there are bundles."""
    executor: Executor | None = None
    """vLLM's executor backend; None for other engines."""
    workers: int = 1
    """Workers that run the model together."""
    gpus_per_worker: float = 0
    """GPUs of one worker: one, a fraction of one, or none."""
    bundles: Sequence[Resources] = field(default=())
    """Bundles of the placement group; empty if the actor alone reserves everything."""
    strategy: Literal["STRICT_PACK", "PACK"] | None = None
    """On one node, or on as few as possible; None without bundles."""

    @property
    def gpus(self) -> float:
        """GPUs of one replica."""
        return _rounded(self.workers * self.gpus_per_worker)

    @property
    def cpus(self) -> float:
        """Logical CPUs of one replica."""
        return _rounded(sum(bundle["CPU"] for bundle in self.bundles or (self.actor,)))


def plan_placement(entry: PlacedEntry) -> Placement:
    """Plan the placement of one replica; a simulated replica is placed as vLLM's would be."""
    workers, accelerator = entry.parallelism.workers, entry.accelerator
    is_vllm = isinstance(entry, VllmEntry)
    gpus_per_worker = entry.gpu_fraction if isinstance(accelerator, Gpu) else 0
    if workers == 1:
        # A group of one bundle would reserve what the actor already reserves.
        return Placement(_reservation(entry, 1), "uni" if is_vllm else None, 1, gpus_per_worker)
    if isinstance(accelerator, Gpu) and workers > accelerator.per_node:
        bundle = _reservation(entry, 1)
        # The first bundle's GPU belongs to the first worker, which is a separate actor.
        return Placement(
            actor={"CPU": bundle["CPU"]},
            executor="ray" if is_vllm else None,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            bundles=(bundle,) * workers,
            strategy="PACK",
        )
    whole = _reservation(entry, workers)
    return Placement(
        actor=whole,
        executor="mp" if is_vllm else None,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        bundles=(whole,),
        strategy="STRICT_PACK",
    )


def _reservation(entry: PlacedEntry, workers: int) -> Resources:
    """Resources that this many workers on one node reserve."""
    resources: Resources = {"CPU": _rounded(workers * entry.cpus_per_worker)}
    if isinstance(entry.accelerator, Gpu):
        resources["GPU"] = _rounded(workers * entry.gpu_fraction)
        if entry.accelerator.type is not None:
            # The trace amount that Ray itself uses to ask for a node with this GPU type.
            resources[ACCELERATOR_TYPE_PREFIX + entry.accelerator.type] = 0.001
    return resources


def _rounded(amount: float) -> float:
    """Round to ten-thousandths, the unit in which Ray counts resources."""
    return round(amount, 4)


def rank_order(bundle_nodes: Sequence[str], tensor: int, first_node: str) -> list[int]:
    """Bundle index for each of vLLM's ranks, ordered so that no pipeline stage spans two nodes.

    vLLM numbers ranks stage by stage. `bundle_nodes` is the node of each bundle, `tensor` the
    number of ranks in a stage; stages on `first_node`, where the replica runs, come first.

    Raises:
        PlacementFailed: the bundles on some node do not make up whole stages.
    """
    bundles_on: defaultdict[str, list[int]] = defaultdict(list)
    for bundle, node in enumerate(bundle_nodes):
        bundles_on[node].append(bundle)
    counts = [len(bundles) for bundles in bundles_on.values()]
    if any(count % tensor for count in counts):
        raise PlacementFailed(
            f"each pipeline stage needs {tensor} GPUs on one node, but Ray placed the workers"
            f" {' + '.join(map(str, counts))} on {len(counts)} nodes"
        )
    nodes = sorted(bundles_on, key=lambda node: node != first_node)
    return [bundle for node in nodes for bundle in bundles_on[node]]

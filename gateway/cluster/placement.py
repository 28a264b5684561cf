"""Where the workers of one replica run: what they reserve, how close together, and who starts them.

All workers of a replica that fit one node share one bundle there, which the replica reserves
whole: Ray then shows it exactly those GPUs, and vLLM starts the workers itself (`mp`). Otherwise
each worker has a bundle of one GPU, because vLLM's `ray` executor takes no other, and Ray packs the
bundles onto as few nodes as it can. Packing alone may tear a pipeline stage apart where nodes are
partly taken, and no shape of bundles prevents that; so the replica orders its ranks by where the
bundles came to lie (`rank_order`), and where that cannot keep every stage on one node it does not
start.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway.config.hardware import Gpu, Placed
from gateway.config.vllm import VllmEntry
from gateway.errors import PlacementFailed

Resources = dict[str, float]
Executor = Literal["uni", "mp", "ray"]

ACCELERATOR_TYPE = "accelerator_type:"
"""What the name of the resource begins with that a node has of its GPUs' type."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What one replica reserves; amounts are Ray's logical resources."""

    actor: Resources
    """What the replica's own actor reserves; part of the first bundle where there are bundles."""
    executor: Executor | None = None
    """How vLLM runs its workers; None for an engine that is not vLLM."""
    workers: int = 1
    """How many run the model together."""
    gpus_per_worker: float = 0
    """GPUs of one worker: one, a part of one, or none."""
    bundles: Sequence[Resources] = field(default=())
    """The placement group's bundles; none where the actor alone reserves everything."""
    strategy: Literal["STRICT_PACK", "PACK"] | None = None
    """How the bundles lie: on one node, or on as few as possible; None without bundles."""

    @property
    def gpus(self) -> float:
        """GPUs of one replica."""
        return _exact(self.workers * self.gpus_per_worker)

    @property
    def cpus(self) -> float:
        """Logical CPUs of one replica."""
        return _exact(sum(bundle["CPU"] for bundle in self.bundles or (self.actor,)))


def place(entry: Placed) -> Placement:
    """How a replica of the entry's model is placed; a simulated one just as vLLM's would be."""
    workers, accelerator = entry.parallelism.workers, entry.accelerator
    is_vllm = isinstance(entry, VllmEntry)
    gpus_per_worker = entry.gpu_fraction if isinstance(accelerator, Gpu) else 0
    if workers == 1:
        # A group of one bundle would reserve just what the actor reserves itself.
        return Placement(_reserved(entry, 1), "uni" if is_vllm else None, 1, gpus_per_worker)
    if isinstance(accelerator, Gpu) and workers > accelerator.per_node:
        bundle = _reserved(entry, 1)
        # The GPU of the first bundle is for the first worker, which is an actor of its own.
        return Placement(
            actor={"CPU": bundle["CPU"]},
            executor="ray" if is_vllm else None,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            bundles=(bundle,) * workers,
            strategy="PACK",
        )
    whole = _reserved(entry, workers)
    return Placement(
        actor=whole,
        executor="mp" if is_vllm else None,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        bundles=(whole,),
        strategy="STRICT_PACK",
    )


def _reserved(entry: Placed, workers: int) -> Resources:
    """What so many workers on one node reserve."""
    resources: Resources = {"CPU": _exact(workers * entry.cpus_per_worker)}
    if isinstance(entry.accelerator, Gpu):
        resources["GPU"] = _exact(workers * entry.gpu_fraction)
        if entry.accelerator.type is not None:
            # The trace amount by which Ray itself asks for a node with that type of GPU.
            resources[ACCELERATOR_TYPE + entry.accelerator.type] = 0.001
    return resources


def _exact(amount: float) -> float:
    """Round to the ten-thousandths that Ray counts in."""
    return round(amount, 4)


def rank_order(bundle_nodes: Sequence[str], tensor: int, first_node: str) -> list[int]:
    """The bundle for each of vLLM's ranks, stage by stage, so that no stage spans two nodes.

    vLLM numbers ranks by pipeline stage, then within it. `bundle_nodes` is the node each bundle
    lies on, `tensor` the ranks of one stage; stages on `first_node`, where the replica runs, come
    first.

    Raises:
        PlacementFailed: some node holds bundles that make up no whole stage.
    """
    on_node: defaultdict[str, list[int]] = defaultdict(list)
    for bundle, node in enumerate(bundle_nodes):
        on_node[node].append(bundle)
    counts = [len(bundles) for bundles in on_node.values()]
    if any(count % tensor for count in counts):
        raise PlacementFailed(
            f"each pipeline stage needs {tensor} GPUs on one node, but the free GPUs Ray found lie"
            f" {' + '.join(map(str, counts))} on {len(counts)} nodes"
        )
    nodes = sorted(on_node, key=lambda node: node != first_node)
    return [bundle for node in nodes for bundle in on_node[node]]

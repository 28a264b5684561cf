"""Placements put onto a Ray cluster of several nodes with logical GPUs."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import ray
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from deployments.placement import actor_options, rank_environment
from gateway.cluster.placement import plan_placement
from gateway.config.loader import parse_entry
from gateway.config.vllm import VllmEntry
from tests.cluster_gateway import ClusterGateway
from tests.gateway_process import wait_for

pytestmark = [
    pytest.mark.integration,
    # Ray leaves the sockets and pipes of the processes it starts to the garbage collector.
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in. <(socket|_io)\.:pytest.PytestUnraisableExceptionWarning"
    ),
]

GPUS_PER_NODE = 4
CPUS = 0.1
"""Of each worker: all fit on nodes of one CPU."""
HALF = {
    "engine": "vllm",
    "name": "m",
    "source": "s",
    "cpus_per_worker": CPUS,
    "accelerator": "T4",
    "gpu_fraction": 0.5,
}


@pytest.fixture(scope="module")
def cluster(shared: ClusterGateway) -> ClusterGateway:
    """Two nodes of four H100 and one of four T4, on none of which a model runs."""
    shared.deploy(shared.document)
    shared.add_node(GPUS_PER_NODE, "T4")
    wait_for(lambda: ray.available_resources().get("accelerator_type:H100", 0) >= 2)
    return shared


def vllm(tensor: int, pipeline: int = 1, type_: str = "H100") -> VllmEntry:
    """A vLLM entry for nodes of four GPUs."""
    entry = parse_entry(
        {
            "engine": "vllm",
            "name": "m",
            "source": "s",
            "cpus_per_worker": CPUS,
            "parallelism": {"tensor": tensor, "pipeline": pipeline},
            "accelerator": {"type": type_, "per_node": GPUS_PER_NODE},
        }
    )
    assert isinstance(entry, VllmEntry)
    return entry


@asynccontextmanager
async def reserved(entry: VllmEntry, within_s: float = 20) -> AsyncIterator[PlacementGroup | None]:
    """The placement group of one replica; None where it is still pending after `within_s`."""
    placement = plan_placement(entry)
    group = placement_group([dict(b) for b in placement.bundles], strategy=placement.strategy)
    try:
        yield group if await asyncio.to_thread(group.wait, within_s) else None
    finally:
        remove_placement_group(group)


def nodes_of(group: PlacementGroup) -> list[str]:
    """The node that each bundle lies on."""
    nodes = placement_group_table(group)["bundles_to_node_id"]
    return [nodes[bundle] for bundle in sorted(nodes)]


class Replica:
    """Stands where Serve would start an engine."""

    def gpus(self) -> list[str]:
        """The GPUs that Ray gives this process."""
        return list(ray.get_runtime_context().get_accelerator_ids()["GPU"])

    def ranks(self, entry: VllmEntry) -> dict[str, str]:
        """What the replica would tell vLLM about its ranks."""
        return rank_environment(entry)


def start(entry: VllmEntry, group: PlacementGroup) -> "ray.actor.ActorHandle[Replica]":
    """A replica's actor in the first bundle, with what Serve would reserve for it."""
    remote = ray.remote(Replica)
    return remote.options(
        **actor_options(plan_placement(entry), entry.env),
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, 0),
    ).remote()


async def test_workers_that_fit_one_node_share_it(cluster: ClusterGateway) -> None:
    """Four tensor workers get one bundle on one H100 node, and the replica sees all four GPUs."""
    entry = vllm(tensor=4)
    async with reserved(entry) as group:
        assert group is not None
        assert len(nodes_of(group)) == 1
        assert len(await start(entry, group).gpus.remote()) == 4


async def test_two_replicas_never_share_a_gpu(cluster: ClusterGateway) -> None:
    """Two replicas of two workers on one node see different GPUs."""
    entry = vllm(tensor=2, type_="T4")
    async with reserved(entry) as one, reserved(entry) as other:
        assert one is not None
        assert other is not None
        assert nodes_of(one) == nodes_of(other)
        gpus = await asyncio.gather(*(start(entry, g).gpus.remote() for g in (one, other)))
        assert len({gpu for some in gpus for gpu in some}) == 4


async def test_parts_of_a_gpu_lie_on_one(cluster: ClusterGateway) -> None:
    """Two engines of half a GPU see the same one, a third another, as does one of a whole GPU."""
    half = parse_entry(HALF)
    whole = parse_entry(HALF | {"gpu_fraction": 1})
    remote = ray.remote(Replica)
    replicas = [
        remote.options(**actor_options(plan_placement(entry), {})).remote()
        for entry in (half, half, half, whole)
    ]

    one, two, three, four = await asyncio.gather(*(replica.gpus.remote() for replica in replicas))

    assert one == two
    assert len({*one, *three, *four}) == 3


async def test_stages_lie_on_nodes_of_their_own(cluster: ClusterGateway) -> None:
    """Two stages of four go to the two H100 nodes, and vLLM's ranks follow the stages."""
    entry = vllm(tensor=4, pipeline=2)
    async with reserved(entry) as group:
        assert group is not None
        nodes = nodes_of(group)
        assert sorted(Counter(nodes).values()) == [4, 4]
        ranks = await start(entry, group).ranks.remote(entry)
        order = [int(bundle) for bundle in ranks["VLLM_RAY_BUNDLE_INDICES"].split(",")]
        assert sorted(order) == list(range(8))
        assert [len({nodes[b] for b in order[i : i + 4]}) for i in (0, 4)] == [1, 1]
        assert nodes[order[0]] == nodes[0]


async def test_the_replica_leaves_the_gpus_to_the_workers(cluster: ClusterGateway) -> None:
    """Where vLLM's workers are actors of their own, the replica itself holds no GPU."""
    entry = vllm(tensor=4, pipeline=2)
    async with reserved(entry) as group:
        assert group is not None
        assert await start(entry, group).gpus.remote() == []


async def test_a_torn_stage_does_not_start(cluster: ClusterGateway) -> None:
    """On nodes partly taken, where Ray splits a stage, the replica refuses with the reason."""
    entry = vllm(tensor=2, pipeline=3)
    taken = {"GPU": 1, "accelerator_type:H100": 0.001}
    blocker = placement_group([taken, taken], strategy="STRICT_SPREAD")
    try:
        assert await asyncio.to_thread(blocker.wait, 20)
        async with reserved(entry) as group:
            assert group is not None
            assert any(count % 2 for count in Counter(nodes_of(group)).values())
            with pytest.raises(ray.exceptions.RayTaskError, match="stage needs 2 GPUs on one node"):
                await start(entry, group).ranks.remote(entry)
    finally:
        remove_placement_group(blocker)


async def test_what_does_not_fit_waits(cluster: ClusterGateway) -> None:
    """A replica for which there are not enough GPUs of its type stays pending, holding none."""
    async with reserved(vllm(tensor=4, pipeline=2, type_="T4"), within_s=3) as group:
        assert group is None
        async with reserved(vllm(tensor=4, type_="T4")) as other:
            assert other is not None

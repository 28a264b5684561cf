"""Why a replica waits to be placed."""

import pytest

from gateway.cluster.placement import Placement, plan_placement
from gateway.cluster.shortage import Cluster, Node, explain_shortage
from gateway.config.loader import parse_entry


def placement(type_: str | None = None, fields: dict[str, object] | None = None) -> Placement:
    """Placement of a model on nodes of four GPUs, with a CPU for each worker."""
    accelerator = {"type": type_, "per_node": 4}
    entry = {"engine": "sim", "name": "m", "accelerator": accelerator, "cpus_per_worker": 1}
    return plan_placement(parse_entry(entry | (fields or {})))


def node(gpus: float, free: float, type_: str = "H100", cpus: float = 16, **more: float) -> Node:
    """A node with GPUs of one type, some of them free."""
    typed = {f"accelerator_type:{type_}": 1.0} if gpus else {}
    total = {"CPU": cpus, "GPU": gpus, **typed}
    return Node("n", total, {**total, "GPU": free, **more})


FOUR: dict[str, object] = {"parallelism": {"tensor": 4}}
SIXTEEN: dict[str, object] = {"parallelism": {"tensor": 4, "pipeline": 4}}
FOUR_H100 = "needs 4 GPUs of type H100 on one node"
SIXTEEN_H100 = "needs 16 GPUs of type H100"
HALF: dict[str, object] = {"gpu_fraction": 0.5}


@pytest.mark.parametrize(
    ("wanted", "nodes", "explanation"),
    [
        (
            placement("H100", FOUR),
            [node(4, 2), node(4, 1), node(8, 8, "L4")],
            f"{FOUR_H100}; the largest free is 2",
        ),
        (
            placement("H100", FOUR),
            [node(4, 0)],
            f"{FOUR_H100}; none is free",
        ),
        (
            placement("H100", FOUR),
            [node(2, 2), node(2, 2)],
            f"{FOUR_H100}; the largest node has 2",
        ),
        (
            placement("H100", FOUR),
            [node(4, 4, "L4"), node(4, 4, "A100"), node(0, 0)],
            f"{FOUR_H100}; no node has that type, only A100 and L4",
        ),
        (placement(None, FOUR), [node(0, 0)], "needs 4 GPUs on one node; no node has a GPU"),
        (placement(), [], "needs 1 GPU; no node has a GPU"),
        (placement("L4"), [node(4, 0, "L4")], "needs 1 GPU of type L4; none is free"),
        (placement(None, HALF), [node(1, 0.3)], "needs 0.5 of a GPU; the largest free is 0.3"),
        (
            placement("H100", FOUR),
            [node(4, 4, CPU=3), node(4, 0)],
            f"{FOUR_H100} with 4 CPUs; nodes with enough free GPUs have at most 3 free CPUs",
        ),
        (
            placement("H100", FOUR),
            [node(4, 4, CPU=1), node(4, 0)],
            f"{FOUR_H100} with 4 CPUs; nodes with enough free GPUs have at most 1 free CPU",
        ),
        (
            placement(None, {"cpus_per_worker": 0.5}),
            [node(4, 4, CPU=0)],
            "needs 1 GPU with 0.5 of a CPU; nodes with enough free GPUs have no free CPU",
        ),
        (
            placement(),
            [node(4, 4, cpus=0.5)],
            "needs 1 GPU with 1 CPU; nodes with enough GPUs have at most 0.5 of a CPU",
        ),
        (
            placement("H100", SIXTEEN),
            [node(4, 4)] * 3,
            f"{SIXTEEN_H100}; the cluster has 12",
        ),
        (
            placement("H100", SIXTEEN),
            [node(4, 4), node(4, 2)] * 2,
            f"{SIXTEEN_H100}; 12 are free",
        ),
        (
            placement("H100", SIXTEEN),
            [node(4, 4, CPU=2)] * 4,
            f"{SIXTEEN_H100} with 1 CPU each; nodes with free GPUs have free CPUs for 8 of them",
        ),
        (
            placement("H100", SIXTEEN),
            [node(4, 4, CPU=0)] * 4,
            f"{SIXTEEN_H100} with 1 CPU each; nodes with free GPUs have free CPUs for none of them",
        ),
        (
            placement("H100", SIXTEEN | {"cpus_per_worker": 8}),
            [node(4, 4, cpus=32)] * 2 + [node(4, 4, cpus=16)] * 2,
            f"{SIXTEEN_H100} with 8 CPUs each; the nodes have CPUs for 12 of them",
        ),
        (placement("H100", SIXTEEN), [node(4, 0)] * 4 + [node(1, 1)], f"{SIXTEEN_H100}; 1 is free"),
        (
            plan_placement(parse_entry({"engine": "sim", "name": "m", "cpus_per_worker": 3})),
            [node(4, 4, cpus=8, CPU=2), node(0, 0, CPU=1)],
            "needs 3 CPUs on one node; the largest free is 2",
        ),
        (placement("H100", FOUR), [node(4, 2), node(4, 4)], None),
        (placement("H100", SIXTEEN), [node(4, 4)] * 4, None),
        (placement(None, HALF), [node(1, 0.5)], None),
    ],
)
def test_the_explanation_names_the_need_and_what_there_is(
    wanted: Placement, nodes: list[Node], explanation: str | None
) -> None:
    """Too small, in use, of another type or short of CPUs: each has its own words."""
    assert explain_shortage(wanted, Cluster(nodes)) == explanation


def test_pending_nodes_are_mentioned() -> None:
    """The explanation says how many nodes the autoscaler is adding."""
    one, two = (explain_shortage(placement(), Cluster([], pending)) for pending in (1, 2))

    assert one == "needs 1 GPU; no node has a GPU; 1 node is being added"
    assert two == "needs 1 GPU; no node has a GPU; 2 nodes are being added"


ONE_H100 = {"CPU": 1.0, "GPU": 1.0, "accelerator_type:H100": 0.001}


@pytest.mark.parametrize(
    ("wanted", "demands", "is_pending"),
    [
        (placement("H100"), [[ONE_H100]], True),
        (placement("H100"), [[{"CPU": 1.0}], [ONE_H100 | {"memory": 1e9}]], True),
        (placement("H100"), [], False),
        (placement("H100"), [[ONE_H100 | {"GPU": 2.0}]], False),
        (placement("L4"), [[ONE_H100]], False),
        (placement("H100", SIXTEEN), [[ONE_H100] * 16], True),
        (placement("H100", SIXTEEN), [[ONE_H100] * 15, [ONE_H100]], False),
    ],
)
def test_a_replica_waits_only_if_ray_has_a_pending_demand_like_its_own(
    wanted: Placement, demands: list[list[dict[str, float]]], is_pending: bool
) -> None:
    """The demand is one group or actor with exactly these amounts; others do not matter."""
    assert Cluster([], pending_demands=demands).has_demand_for(wanted) is is_pending

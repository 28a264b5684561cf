"""Why a replica waits for a place, and which old ones make room for it."""

from dataclasses import replace

import pytest
from ray.autoscaler.v2.schema import (
    ClusterStatus,
    LaunchRequest,
    NodeInfo,
    NodeUsage,
    PlacementGroupResourceDemand,
    RayTaskActorDemand,
    ResourceDemandSummary,
    ResourceRequestByCount,
)
from ray.autoscaler.v2.schema import ResourceUsage as Usage

from deployments.shortage import cluster_of
from gateway.cluster.placement import Placement, place
from gateway.cluster.rollover import Holder, yielding
from gateway.cluster.shortage import Cluster, Node, shortage
from gateway.config.loader import parse_entry


def placed(type_: str | None = None, fields: dict[str, object] | None = None) -> Placement:
    """How a model on nodes of four GPUs is placed, with a CPU for each worker."""
    accelerator = {"type": type_, "per_node": 4}
    entry = {"engine": "sim", "name": "m", "accelerator": accelerator, "cpus_per_worker": 1}
    return place(parse_entry(entry | (fields or {})))


def node(gpus: float, free: float, type_: str = "H100", cpus: float = 16, **more: float) -> Node:
    """A node with GPUs of a type, of which some are free."""
    typed = {f"accelerator_type:{type_}": 1.0} if gpus else {}
    total = {"CPU": cpus, "GPU": gpus, **typed}
    return Node("n", total, {**total, "GPU": free, **more})


FOUR: dict[str, object] = {"parallelism": {"tensor": 4}}
SIXTEEN: dict[str, object] = {"parallelism": {"tensor": 4, "pipeline": 4}}
FOUR_H100 = "needs 4 GPUs of type H100 on one node"
SIXTEEN_H100 = "needs 16 GPUs of type H100"
HALF: dict[str, object] = {"gpu_fraction": 0.5}


@pytest.mark.parametrize(
    ("placement", "nodes", "reason"),
    [
        (
            placed("H100", FOUR),
            [node(4, 2), node(4, 1), node(8, 8, "L4")],
            f"{FOUR_H100}; the largest free is 2",
        ),
        (
            placed("H100", FOUR),
            [node(4, 0)],
            f"{FOUR_H100}; none is free",
        ),
        (
            placed("H100", FOUR),
            [node(2, 2), node(2, 2)],
            f"{FOUR_H100}; the largest node has 2",
        ),
        (
            placed("H100", FOUR),
            [node(4, 4, "L4"), node(4, 4, "A100"), node(0, 0)],
            f"{FOUR_H100}; no node has that type, only A100 and L4",
        ),
        (placed(None, FOUR), [node(0, 0)], "needs 4 GPUs on one node; no node has a GPU"),
        (placed(), [], "needs 1 GPU; no node has a GPU"),
        (placed("L4"), [node(4, 0, "L4")], "needs 1 GPU of type L4; none is free"),
        (placed(None, HALF), [node(1, 0.3)], "needs 0.5 of a GPU; the largest free is 0.3"),
        (
            placed("H100", FOUR),
            [node(4, 4, CPU=3), node(4, 0)],
            f"{FOUR_H100} and 4 CPUs beside them; where GPUs are free, at most 3 CPUs are",
        ),
        (
            placed("H100", FOUR),
            [node(4, 4, CPU=1), node(4, 0)],
            f"{FOUR_H100} and 4 CPUs beside them; where GPUs are free, at most 1 CPU is",
        ),
        (
            placed(None, {"cpus_per_worker": 0.5}),
            [node(4, 4, CPU=0)],
            "needs 1 GPU and 0.5 of a CPU beside it; where GPUs are free, no CPU is",
        ),
        (
            placed(),
            [node(4, 4, cpus=0.5)],
            "needs 1 GPU and 1 CPU beside it; such a node has at most 0.5",
        ),
        (
            placed("H100", SIXTEEN),
            [node(4, 4)] * 3,
            f"{SIXTEEN_H100}; the cluster has 12",
        ),
        (
            placed("H100", SIXTEEN),
            [node(4, 4), node(4, 2)] * 2,
            f"{SIXTEEN_H100}; 12 are free",
        ),
        (
            placed("H100", SIXTEEN),
            [node(4, 4, CPU=2)] * 4,
            f"{SIXTEEN_H100} and 1 CPU beside each; where GPUs are free, CPUs are for 8 of them",
        ),
        (
            placed("H100", SIXTEEN),
            [node(4, 4, CPU=0)] * 4,
            f"{SIXTEEN_H100} and 1 CPU beside each; where GPUs are free, CPUs are for none of them",
        ),
        (
            placed("H100", SIXTEEN | {"cpus_per_worker": 8}),
            [node(4, 4, cpus=32)] * 2 + [node(4, 4, cpus=16)] * 2,
            f"{SIXTEEN_H100} and 8 CPUs beside each; the nodes have CPUs for 12 of them",
        ),
        (placed("H100", SIXTEEN), [node(4, 0)] * 4 + [node(1, 1)], f"{SIXTEEN_H100}; 1 is free"),
        (
            place(parse_entry({"engine": "sim", "name": "m", "cpus_per_worker": 3})),
            [node(4, 4, cpus=8, CPU=2), node(0, 0, CPU=1)],
            "needs 3 CPUs on one node; the largest free is 2",
        ),
        (placed("H100", FOUR), [node(4, 2), node(4, 4)], None),
        (placed("H100", SIXTEEN), [node(4, 4)] * 4, None),
        (placed(None, HALF), [node(1, 0.5)], None),
    ],
)
def test_the_reason_says_what_is_needed_and_what_there_is(
    placement: Placement, nodes: list[Node], reason: str | None
) -> None:
    """Too small, taken, of another type or short of CPUs: each has its own words."""
    assert shortage(placement, Cluster(nodes)) == reason


def test_nodes_on_their_way_are_mentioned() -> None:
    """The autoscaler is at work: there is hope."""
    one, two = (shortage(placed(), Cluster([], coming)) for coming in (1, 2))

    assert one == "needs 1 GPU; no node has a GPU; 1 node is being added"
    assert two == "needs 1 GPU; no node has a GPU; 2 nodes are being added"


def test_ray_s_description_of_the_cluster_is_understood() -> None:
    """Nodes with what they have free, without what groups hold, and those being added."""
    usage = [
        Usage("GPU", total=4, used=1.5),
        Usage("GPU_group_0_0123", total=2, used=0),
        Usage("accelerator_type:H100", total=1, used=0.001),
        Usage("accelerator_type:H100_group_0_0123", total=0.001, used=0),
    ]
    usable = {
        "resource_usage": NodeUsage(usage, idle_time_ms=0),
        "ip_address": "",
        "instance_id": "",
    }
    kind = {"instance_type_name": "", "ray_node_type_name": ""}
    status = ClusterStatus(
        active_nodes=[NodeInfo(node_id="a", **usable, **kind)],
        idle_nodes=[NodeInfo(node_id="b", **usable, **kind)],
        pending_nodes=[NodeInfo(ip_address="", instance_id="", **kind)],
        pending_launches=[LaunchRequest(**kind, count=2, state="", request_ts_s=0)],
        resource_demands=ResourceDemandSummary(
            [PlacementGroupResourceDemand([ResourceRequestByCount({"GPU": 1}, 2)], details="")],
            [RayTaskActorDemand([ResourceRequestByCount({"CPU": 1}, 3)])],
        ),
    )

    cluster = cluster_of(status)

    assert [n.id for n in cluster.nodes] == ["a", "b"]
    assert cluster.nodes[0].total == {"GPU": 4, "accelerator_type:H100": 1}
    assert cluster.nodes[0].free["GPU"] == 2.5
    assert cluster.nodes[0].gpu_types == {"H100"}
    assert cluster.coming == 3
    assert cluster.sought == [[{"GPU": 1}, {"GPU": 1}], [{"CPU": 1}]]


ONE_H100 = {"CPU": 1.0, "GPU": 1.0, "accelerator_type:H100": 0.001}


@pytest.mark.parametrize(
    ("placement", "sought", "is_sought"),
    [
        (placed("H100"), [[ONE_H100]], True),
        (placed("H100"), [[{"CPU": 1.0}], [ONE_H100 | {"memory": 1e9}]], True),
        (placed("H100"), [], False),
        (placed("H100"), [[ONE_H100 | {"GPU": 2.0}]], False),
        (placed("L4"), [[ONE_H100]], False),
        (placed("H100", SIXTEEN), [[ONE_H100] * 16], True),
        (placed("H100", SIXTEEN), [[ONE_H100] * 15, [ONE_H100]], False),
    ],
)
def test_a_replica_waits_only_if_ray_seeks_a_place_like_its_own(
    placement: Placement, sought: list[list[dict[str, float]]], is_sought: bool
) -> None:
    """All units of one group or an actor, of just that size; whatever else it asks for."""
    assert Cluster([], sought=sought).is_seeking(placement) is is_sought


def holder(name: str, node_id: str, gpus: float) -> Holder:
    """A replica with GPUs on one node."""
    return Holder(name, {node_id: {"CPU": 1, "GPU": gpus, "accelerator_type:H100": 0.001}})


@pytest.mark.parametrize(
    ("old", "stop"),
    [
        ([holder("a", "x", 2), holder("b", "y", 4)], ["b"]),
        ([holder("a", "x", 2), holder("b", "x", 2)], ["a", "b"]),
        ([holder(f"{i}", "xy"[i % 2], 2) for i in range(4)], ["0", "2"]),
        ([holder("a", "x", 1), holder("b", "x", 1), holder("c", "x", 3)], ["c", "a"]),
        ([holder("a", "x", 2), holder("b", "y", 1), holder("c", "x", 2)], ["a", "c"]),
        ([holder("a", "x", 2), holder("b", "y", 2)], None),
        ([], None),
    ],
)
def test_as_few_old_replicas_stop_as_make_room(old: list[Holder], stop: list[str] | None) -> None:
    """One that leaves room by itself, or several together; none in vain."""
    cluster = Cluster([replace(node(4, 0), id=name) for name in ("x", "y")])

    assert yielding(placed("H100", FOUR), cluster, old) == stop


def test_workers_on_any_nodes_take_the_room_of_any_old_replicas() -> None:
    """A pipeline over nodes needs the places of several replicas, wherever they are."""
    cluster = Cluster([replace(node(4, 0), id=name) for name in "wxyz"])
    old = [holder(name, name, 4) for name in "wxyz"]

    assert yielding(placed("H100", SIXTEEN), cluster, old) == ["w", "x", "y", "z"]

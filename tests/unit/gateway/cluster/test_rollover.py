"""Which old replicas stop to make room for changed ones, and how many changed ones may start."""

import pytest

from gateway.cluster.placement import Placement, plan_placement
from gateway.cluster.rollover import ReplicaReservation, max_surge, replicas_to_stop
from gateway.cluster.shortage import Cluster, Node
from gateway.config.loader import parse_entry


def placement(**parallelism: int) -> Placement:
    """Placement on nodes of four GPUs of type H100, with a CPU for each worker."""
    accelerator = {"type": "H100", "per_node": 4}
    entry = {"engine": "sim", "name": "m", "accelerator": accelerator, "cpus_per_worker": 1}
    return plan_placement(parse_entry({**entry, "parallelism": parallelism}))


def full_cluster(names: str) -> Cluster:
    """Nodes of four GPUs and 16 CPUs, whose GPUs are all in use."""
    total = {"CPU": 16.0, "GPU": 4.0, "accelerator_type:H100": 1.0}
    return Cluster([Node(name, total, {**total, "GPU": 0.0}) for name in names])


def replica(name: str, node_id: str, gpus: float) -> ReplicaReservation:
    """A running replica with GPUs on one node."""
    return ReplicaReservation(
        name, {node_id: {"CPU": 1, "GPU": gpus, "accelerator_type:H100": 0.001}}
    )


@pytest.mark.parametrize(
    ("old", "stop"),
    [
        ([replica("a", "x", 2), replica("b", "y", 4)], ["b"]),
        ([replica("a", "x", 2), replica("b", "x", 2)], ["a", "b"]),
        ([replica(f"{i}", "xy"[i % 2], 2) for i in range(4)], ["0", "2"]),
        ([replica("a", "x", 1), replica("b", "x", 1), replica("c", "x", 3)], ["c", "a"]),
        ([replica("a", "x", 2), replica("b", "y", 1), replica("c", "x", 2)], ["a", "c"]),
        ([replica("a", "x", 2), replica("b", "y", 2)], None),
        ([], None),
    ],
)
def test_as_few_old_replicas_stop_as_possible(
    old: list[ReplicaReservation], stop: list[str] | None
) -> None:
    """One that makes room alone stops, or else several; none do if that is not enough."""
    assert replicas_to_stop(placement(tensor=4), full_cluster("xy"), old) == stop


def test_a_pipeline_over_several_nodes_takes_the_room_of_several_replicas() -> None:
    """Its workers may run where any of the old replicas were."""
    old = [replica(name, name, 4) for name in "wxyz"]

    wanted = placement(tensor=4, pipeline=4)
    assert replicas_to_stop(wanted, full_cluster("wxyz"), old) == ["w", "x", "y", "z"]


@pytest.mark.parametrize(("replicas", "surge"), [(1, 1), (4, 1), (5, 2), (16, 4)])
def test_a_quarter_of_the_replicas_may_start_beside_the_old_ones(replicas: int, surge: int) -> None:
    """At least one may, so that a model of one replica has no gap."""
    assert max_surge(replicas) == surge

"""Ray's report on the cluster, read for `gateway.cluster`."""

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

from deployments.serve_internals.cluster_state import cluster_of


def test_rays_cluster_status_is_read() -> None:
    """It gives the nodes without their groups' resources, pending nodes and pending demands."""
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
    assert cluster.pending_nodes == 3
    assert cluster.pending_demands == [[{"GPU": 1}, {"GPU": 1}], [{"CPU": 1}]]

"""Facts about a healthy cluster of three nodes, in which tests plant faults."""

from msgspec import structs

from gateway.doctor.facts import (
    ClusterFacts,
    Collective,
    ConnectionTry,
    Disk,
    Interface,
    NodeFacts,
    NodeResources,
    Resolution,
)
from gateway.environment import HAPROXY_BINARY, RECOMMENDED

GIB = 1 << 30
IDS = ("a", "b", "c")
ENVIRONMENT = {
    **{each.name: each.value for each in RECOMMENDED if each.value is not None},
    HAPROXY_BINARY: "/opt/bin/gateway-haproxy",
}
PACKAGES = {"ray": "2.60.0", "ray-llm-gateway": "0.1.0", "vllm": "0.32.0", "torch": "2.13.0"}


def node(id_: str, **changes: object) -> NodeFacts:
    """A healthy node."""
    number = IDS.index(id_) + 1
    healthy = NodeFacts(
        id=id_,
        name=f"host-{id_}",
        address=f"10.0.0.{number}",
        is_head=number == 1,
        python="3.11.7",
        packages=PACKAGES,
        shm_total_bytes=64 * GIB,
        shm_free_bytes=60 * GIB,
        max_files=1 << 20,
        disks=(Disk(purpose="logs", path="/tmp", total_bytes=100 * GIB, free_bytes=50 * GIB),),  # noqa: S108
        interfaces=(
            Interface(name="lo", addresses=("127.0.0.1",)),
            Interface(name="eth0", addresses=(f"10.0.0.{number}",)),
        ),
        environment=ENVIRONMENT,
        token_mark="5ba3",  # noqa: S106 - no token
        haproxy="/opt/bin/gateway-haproxy",
        clock_error_s=0.01,
    )
    return structs.replace(healthy, **changes)


def cluster(*nodes: NodeFacts, **changes: object) -> ClusterFacts:
    """A healthy cluster, with some nodes in place of its own."""
    by_id = {id_: node(id_) for id_ in IDS} | {each.id: each for each in nodes}
    pairs = [(x, y) for x in IDS for y in IDS if x != y]
    healthy = ClusterFacts(
        is_cluster=True,
        nodes=tuple(by_id.values()),
        connections=tuple(
            ConnectionTry(source=x, target=y, port=30_000, purpose="routers", result="open")
            for x, y in pairs
        ),
        resolutions=tuple(
            Resolution(source=x, target=y, addresses=(by_id[y].address,)) for x, y in pairs
        ),
        collectives=(Collective(backend="gloo", nodes=3, seconds=0.5),),
        resources=tuple(NodeResources(id=id_, total={"CPU": 8.0}) for id_ in IDS),
    )
    return structs.replace(healthy, **changes)

"""Checks of `gateway doctor`: each planted fault is found, with its place and its remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from gateway.config.loader import load_config
from gateway.doctor.checks.network import GLOO_INTERFACE, NCCL_INTERFACE, is_chosen
from gateway.doctor.examination import examine
from gateway.doctor.facts import (
    ClusterFacts,
    Collective,
    ConnectionTry,
    Disk,
    GpuFacts,
    NodeResources,
    Resolution,
    SilentNode,
    SourceFacts,
)
from gateway.doctor.findings import Finding, Level
from gateway.environment import AUTH_MODE, HAPROXY_BINARY, HAS_HAPROXY
from tests.unit.gateway.doctor.planted import ENVIRONMENT, GIB, PACKAGES, cluster, node

GPU = GpuFacts(index=0, name="H100", total_bytes=80 * GIB, free_bytes=79 * GIB)
DEPLOYMENT = """
http_options: {host: 127.0.0.1}
applications:
  - name: gateway
    import_path: deployments.app:gateway
    route_prefix: /
  - name: big
    import_path: deployments.app:model
    route_prefix: null
    args: {name: big, engine: sim, accelerator: {type: H100, per_node: 4}, parallelism: {tensor: 4},
           replicas: 2}
  - name: small
    import_path: deployments.app:model
    route_prefix: null
    args: {name: small, engine: sim, accelerator: cpu, cpus_per_worker: 1,
           autoscaling: {min: 1, max: 4}, env: {GLOO_SOCKET_IFNAME: eth0}}
"""


def bad(facts: ClusterFacts, file: Path | None = None) -> list[Finding]:
    """What is not well."""
    deployment = None if file is None else load_config(file)
    return [each for each in examine(facts, deployment) if each.level is not Level.OK]


def env(**changes: str | None) -> dict[str, str]:
    """The environment of a healthy node with some variables changed, or unset."""
    found: dict[str, str | None] = {**ENVIRONMENT, **changes}
    return {name: value for name, value in found.items() if value is not None}


def test_a_healthy_cluster_has_no_findings() -> None:
    """Every check says what it has looked at."""
    findings = examine(cluster())

    assert {each.level for each in findings} == {Level.OK}
    assert {each.check for each in findings} >= {
        *("nodes", "Python", "ray", "vllm", "shm", "files", "disk", "clock", "token"),
        *("environment", "names", "ports", "collectives"),
    }
    assert all(not each.remedy for each in findings)


PLANTED: dict[str, tuple[Callable[[], ClusterFacts], Level, str, str]] = {
    "another Ray": (
        lambda: cluster(node("c", packages={**PACKAGES, "ray": "2.60.1"})),
        *(Level.FAILURE, "ray", "2.60.1 on host-c (10.0.0.3)"),
    ),
    "unsupported vLLM everywhere": (
        lambda: cluster(*(node(i, packages={**PACKAGES, "vllm": "0.31.0"}) for i in "abc")),
        *(Level.FAILURE, "vllm", "0.31.0 is not supported"),
    ),
    "the package is missing": (
        lambda: cluster(node("b", packages={"ray": "2.60.0", "torch": "2.13.0", "vllm": "0.32.0"})),
        *(Level.FAILURE, "ray-llm-gateway", "not installed on host-b"),
    ),
    "no vLLM on one node": (
        lambda: cluster(node("a", packages={k: v for k, v in PACKAGES.items() if k != "vllm"})),
        *(Level.WARNING, "vllm", "not installed on host-a"),
    ),
    "another Python": (
        lambda: cluster(node("b", python="3.12.1")),
        *(Level.FAILURE, "Python", "3.12.1 on host-b"),
    ),
    "an old Python": (
        lambda: cluster(*(node(i, python="3.10.4") for i in "abc")),
        *(Level.FAILURE, "Python", "3.10.4 is too old"),
    ),
    "an old driver": (
        lambda: cluster(
            *(node(i, cuda="13.0", driver="580.1", gpus=(GPU,)) for i in "ab"),
            node("c", cuda="13.0", driver="535.9", gpus=(GPU,)),
            resources=(),
        ),
        *(Level.FAILURE, "GPU driver", "host-c (10.0.0.3): driver 535.9 is too old"),
    ),
    "a broken driver": (
        lambda: cluster(node("b", gpu_error="nvidia-smi fails: exit status 9")),
        *(Level.FAILURE, "GPUs", "host-b (10.0.0.2): nvidia-smi fails"),
    ),
    "a GPU taken by nobody": (
        lambda: cluster(node("b", gpus=(structs.replace(GPU, free_bytes=10 * GIB),)), resources=()),
        *(Level.WARNING, "GPUs", "GPU 0 H100: 10 of 80 GiB free, 0 processes"),
    ),
    "Ray has other GPUs": (
        lambda: cluster(
            node("b", gpus=(GPU,)),
            resources=(NodeResources(id="b", total={"GPU": 2.0}),),
        ),
        *(Level.WARNING, "GPUs", "Ray has 2 GPUs, and the driver shows 1"),
    ),
    "a container's shared memory": (
        lambda: cluster(node("c", shm_total_bytes=64 << 20, shm_free_bytes=64 << 20)),
        *(Level.FAILURE, "shm", "host-c (10.0.0.3): 0.1 of 0.1 GiB"),
    ),
    "few files": (
        lambda: cluster(node("a", max_files=1024)),
        *(Level.FAILURE, "files", "host-a (10.0.0.1): 1024 may be open"),
    ),
    "a full disk": (
        lambda: cluster(
            node(
                "a",
                disks=(Disk(purpose="logs", path="/x", total_bytes=100 * GIB, free_bytes=GIB),),
            )
        ),
        *(Level.FAILURE, "disk", "1.0 GiB free for logs (/x)"),
    ),
    "a skewed clock": (
        lambda: cluster(node("b", clock_offset_s=-90.0, clock_error_s=0.2)),
        *(Level.FAILURE, "clock", "host-b (10.0.0.2): 90.00 s behind the others"),
    ),
    "a clock that drifts": (
        lambda: cluster(node("b", clock_offset_s=3.0)),
        *(Level.WARNING, "clock", "3.00 s ahead of the others"),
    ),
    "no token authentication": (
        lambda: cluster(node("c", environment=env(**{AUTH_MODE: None}))),
        *(Level.FAILURE, "token", "off on host-c"),
    ),
    "no token": (
        lambda: cluster(node("c", token_mark="")),
        *(Level.FAILURE, "token", "there is none on host-c"),
    ),
    "another token": (
        lambda: cluster(node("c", token_mark="77aa")),  # noqa: S106 - no token
        *(Level.FAILURE, "token", "nodes have different tokens"),
    ),
    "half an environment": (
        lambda: cluster(node("a", environment=env(**{HAS_HAPROXY: None}))),
        *(Level.WARNING, "environment", f"not set: {HAS_HAPROXY}=1; requests take"),
    ),
    "another HAProxy": (
        lambda: cluster(node("a", environment=env(**{HAPROXY_BINARY: "/usr/sbin/haproxy"}))),
        *(Level.FAILURE, "environment", "is not the path of gateway-haproxy"),
    ),
    "no HAProxy": (
        lambda: cluster(node("b", haproxy="")),
        *(Level.FAILURE, "environment", "/opt/bin/gateway-haproxy cannot be run"),
    ),
    "a name that leads astray": (
        lambda: cluster(
            resolutions=(Resolution(source="a", target="b", addresses=("127.0.1.1",)),)
        ),
        *(Level.WARNING, "names", "host-b leads to 127.0.1.1, not 10.0.0.2 on host-a"),
    ),
    "a name that leads nowhere": (
        lambda: cluster(resolutions=(Resolution(source="a", target="b"),)),
        *(Level.WARNING, "names", "host-b leads to nothing"),
    ),
    "a closed port": (
        lambda: cluster(
            connections=(
                ConnectionTry(
                    source="a", target="c", port=15_000, purpose="Ray's workers", result="timeout"
                ),
            )
        ),
        *(Level.FAILURE, "ports", "host-c (10.0.0.3) port 15000 from host-a (10.0.0.1): no answer"),
    ),
    "an address that two machines have": (
        lambda: cluster(
            connections=(
                ConnectionTry(
                    source="b", target="c", port=1, purpose="routers", result="wrong machine"
                ),
            )
        ),
        *(Level.FAILURE, "ports", "another machine or process answers"),
    ),
    "no such interface": (
        lambda: cluster(node("b", environment=env(**{GLOO_INTERFACE: "ens5"}))),
        *(Level.FAILURE, "interfaces", "GLOO_SOCKET_IFNAME=ens5 (where Ray starts): no such"),
    ),
    "the wrong interface": (
        lambda: cluster(node("b", environment=env(**{NCCL_INTERFACE: "lo"}))),
        *(Level.FAILURE, "interfaces", "does not have the node's address"),
    ),
    "a collective that fails": (
        lambda: cluster(
            collectives=(
                Collective(
                    backend="gloo",
                    nodes=3,
                    errors={"a": "wait timeout after 30000ms", "b": "connect refused"},
                ),
            )
        ),
        *(Level.FAILURE, "collectives", "Gloo: host-b (10.0.0.2): connect refused"),
    ),
    "no torch": (
        lambda: cluster(
            collectives=(
                Collective(backend="gloo", nodes=3, errors={"b": "No module named 'torch'"}),
            )
        ),
        *(Level.WARNING, "collectives", "No module named 'torch'"),
    ),
    "a node that does not answer": (
        lambda: cluster(silent=(SilentNode(id="d" * 20, address="10.0.0.4", error="too late"),)),
        *(Level.FAILURE, "nodes", "10.0.0.4 (dddddddddddd) does not answer: too late"),
    ),
    "missing weights": (
        lambda: cluster(sources=(source("a", "found"), source("c", "missing"))),
        *(Level.FAILURE, "weights", "big: source models/big is not there on host-c (10.0.0.3)"),
    ),
    "weights that may not be read": (
        lambda: cluster(sources=(source("a", "unreadable", "permission denied for x"),)),
        *(Level.FAILURE, "weights", "cannot be read (permission denied for x) on host-a"),
    ),
    "a cache that is not shared": (
        lambda: cluster(sources=(source("a", "cached"), source("b", "not cached"))),
        *(Level.WARNING, "weights", "is not in the cache, and will be downloaded"),
    ),
}


def source(place: str, state: str, detail: str = "") -> SourceFacts:
    """Weights of a model on one node."""
    return SourceFacts(
        node=place,
        model="big",
        field="source",
        source="models/big",
        state=state,
        detail=detail,
    )


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_the_only_finding(name: str) -> None:
    """It names its place, and what to do; nothing else is wrong."""
    make, level, check, words = PLANTED[name]
    (found,) = bad(make())

    assert (found.level, found.check) == (level, check)
    assert words in found.message
    assert found.remedy


def test_interfaces_of_models_are_looked_at_on_each_node(tmp_path: Path) -> None:
    """An entry's own variables go before those where Ray starts."""
    file = tmp_path / "serve.yaml"
    file.write_text(DEPLOYMENT.replace("eth0", "eth9"))
    found = [each for each in bad(cluster(), file) if each.check == "interfaces"]

    assert len(found) == 3
    assert "GLOO_SOCKET_IFNAME=eth9 (`env` of small): no such interface" in found[0].message
    assert "set it to eth0" in found[0].remedy


def test_a_model_without_room_is_named_with_what_it_needs(tmp_path: Path) -> None:
    """Before anything is deployed."""
    file = tmp_path / "serve.yaml"
    file.write_text(DEPLOYMENT)
    total = {"CPU": 8.0, "GPU": 4.0, "accelerator_type:H100": 1.0}
    resources = (
        NodeResources(id="a", total={"CPU": 2.0}),
        NodeResources(id="b", total=total),
    )
    (found,) = [each for each in bad(cluster(resources=resources), file) if each.check == "room"]

    assert found.level is Level.FAILURE
    assert found.message == (
        "big: 1 of 2 replicas have room; needs 4 GPUs of type H100 on one node; none is free"
    )


@pytest.mark.parametrize(("cpus", "finds"), [(20.0, 0), (4.0, 1)])
def test_room_for_the_most_replicas_is_a_wish(tmp_path: Path, cpus: float, finds: int) -> None:
    """Where only the least fit, it is a warning."""
    file = tmp_path / "serve.yaml"
    file.write_text(DEPLOYMENT)
    total = {"CPU": cpus, "GPU": 8.0, "accelerator_type:H100": 1.0}
    resources = (NodeResources(id="a", total=total),)
    found = [each for each in bad(cluster(resources=resources), file) if each.check == "room"]

    assert [each.level for each in found] == [Level.WARNING] * finds
    assert all("small: " in each.message for each in found)


@pytest.mark.parametrize(
    ("variable", "value", "name", "expected"),
    [
        (NCCL_INTERFACE, "eth", "eth0", True),
        (NCCL_INTERFACE, "=eth", "eth0", False),
        (NCCL_INTERFACE, "=eth0,ib0", "ib0", True),
        (NCCL_INTERFACE, "^docker,lo", "eth0", True),
        (NCCL_INTERFACE, "^docker,lo", "docker0", False),
        (NCCL_INTERFACE, "^=lo", "lo1", True),
        (GLOO_INTERFACE, "eth", "eth0", False),
        (GLOO_INTERFACE, "ib0,eth0", "eth0", True),
    ],
)
def test_interfaces_are_named_as_nccl_and_gloo_do(
    variable: str, value: str, name: str, expected: bool
) -> None:
    """NCCL takes beginnings of names, and Gloo whole ones."""
    assert is_chosen(variable, value, name) is expected


def test_this_machine_alone_is_enough() -> None:
    """Without a cluster, what needs several nodes is left out."""
    facts = ClusterFacts(nodes=(node("a"),))

    assert bad(facts) == []
    assert "no cluster runs here" in examine(facts)[0].message

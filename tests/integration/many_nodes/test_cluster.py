"""Models on a Ray cluster of several nodes with logical GPUs: where they run, and why not."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError

from loadtests.checked_load import CheckedLoad, Counts
from tests.cluster_gateway import ClusterGateway
from tests.gateway_process import (
    Document,
    document,
    gateway_application,
    model_application,
    wait_for,
)
from tests.integration.many_nodes.conftest import SMALL

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),  # a process for each node and replica, and then some
    # Ray leaves the sockets and pipes of the processes it starts to the garbage collector.
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in. <(socket|_io)\.:pytest.PytestUnraisableExceptionWarning"
    ),
]

CLIENTS = 4
AFTER_S = 2.0
PATIENCE_S = 240
"""For what takes some seconds on a machine that has nothing else to do."""


def model(name: str, type_: str | None = None, **fields: object) -> Document:
    """A simulated model on GPUs of a type, or on CPUs."""
    placed = {"accelerator": {"type": type_, "per_node": 4}} if type_ else {}
    return model_application(
        name=name, engine="sim", cpus_per_worker=0.05, drain_timeout_s=30, **placed, **fields
    )


STAGED = model("staged", "H100", parallelism={"tensor": 4, "pipeline": 2})
HALVES = model("halves", "L4", gpu_fraction=0.5, replicas=3)
LATE = [
    model("wide", "H100", parallelism={"tensor": 4}),
    model("whole", "L4"),
    model("pair", "L4", parallelism={"tensor": 4}),
    model("other", "A100"),
]


@pytest.fixture(scope="module")
def gateway(shared: ClusterGateway) -> ClusterGateway:
    """A head node, two nodes of four H100, one of two L4, and a model that needs no GPU."""
    shared.add_node(2, "L4")
    await_replicas(shared, "small", 1)
    return shared


def deploy(gateway: ClusterGateway, *models: Document) -> None:
    """Have these models, beside the one without GPUs, and no others."""
    gateway.deploy(document(gateway_application(), *models))


def await_replicas(gateway: ClusterGateway, name: str, replicas: int) -> None:
    """Return once so many engines of a model run."""
    wait_for(lambda: gateway.card(name).get("replicas") == replicas, PATIENCE_S)


def await_reason(gateway: ClusterGateway, name: str, part: str) -> None:
    """Return once a model's reason has this in it."""
    wait_for(lambda: part in gateway.card(name).get("reason", ""), PATIENCE_S)


def reservations(name: str) -> list[dict[str, Any]]:
    """What the engines of a model say they have reserved, by node."""
    answers = serve.get_deployment_handle("Engine", name).broadcast("reservation")
    try:
        every = answers.results(timeout_s=PATIENCE_S, return_exceptions=True)
    except DeploymentUnavailableError:
        return []  # no engine runs
    return [answer for answer in every if not isinstance(answer, Exception)]


def gpus_by_node(name: str) -> list[Counter[str]]:
    """The GPUs that each engine of a model has reserved, by node."""
    return [
        Counter({node: amounts["GPU"] for node, amounts in holding["reserved"].items()})
        for holding in reservations(name)
    ]


def has_changed(name: str, old: dict[str, Any]) -> bool:
    """Whether other engines of a model run than the old one."""
    now = {holding["replica"] for holding in reservations(name)}
    return now != set() and old["replica"] not in now


def under_load(
    gateway: ClusterGateway, name: str, happening: Callable[[], Awaitable[None]]
) -> Counts:
    """What became of requests before, during and after something that happens."""

    async def run() -> Counts:
        load = CheckedLoad(gateway.url, name, random.Random(1))  # noqa: S311 - makes requests
        is_over = asyncio.Event()
        loading = asyncio.create_task(load.run(CLIENTS, is_over.is_set))
        await asyncio.sleep(AFTER_S)
        try:
            await happening()
            await asyncio.sleep(AFTER_S)
        finally:
            is_over.set()
            await loading
        return load.counts

    return asyncio.run(run())


def assert_nothing_lost(counts: Counts) -> None:
    """Every request was answered, in full and rightly."""
    assert (counts.lost, counts.errors, counts.shed) == ({}, {}, 0)
    assert counts.succeeded == counts.sent > CLIENTS


def test_models_lie_where_their_entries_say(gateway: ClusterGateway) -> None:
    """Stages each on one node, halves of GPUs together, and what does not fit says why it waits."""
    deploy(gateway, SMALL, STAGED, HALVES)
    await_replicas(gateway, "staged", 1)
    await_replicas(gateway, "halves", 3)
    deploy(gateway, SMALL, STAGED, HALVES, *LATE)

    [stages] = gpus_by_node("staged")
    assert sorted(stages.values()) == [4, 4]
    halves = sum(gpus_by_node("halves"), Counter[str]())
    assert list(halves.values()) == [1.5]
    assert not halves.keys() & stages.keys()
    await_reason(gateway, "wide", "needs 4 GPUs of type H100 on one node; none is free")
    await_reason(gateway, "whole", "needs 1 GPU of type L4; the largest free is 0.5")
    await_reason(gateway, "pair", "needs 4 GPUs of type L4 on one node; the largest node has 2")
    await_reason(gateway, "other", "needs 1 GPU of type A100; no node has that type, only H100")
    assert gateway.card("wide")["state"] == "starting"
    assert gateway.chat("small")[0] == gateway.chat("staged")[0] == 200


def test_serve_says_what_is_required(gateway: ClusterGateway) -> None:
    """`serve status` shows what a model waits for, in Serve's words."""

    def message() -> str:
        deployments = gateway.status()["applications"]["pair"]["deployments"]
        return str(deployments.get("Engine", {}).get("message", ""))

    wait_for(lambda: '"GPU": 4.0, "accelerator_type:L4"' in message(), PATIENCE_S)


def test_what_waits_starts_when_there_is_room(gateway: ClusterGateway) -> None:
    """A model that leaves makes room, and the reason is gone."""
    deploy(gateway, SMALL, HALVES, *LATE)
    await_replicas(gateway, "wide", 1)

    wait_for(lambda: gateway.card("wide").get("reason") is None, PATIENCE_S)


def test_a_lost_node_loses_no_request(gateway: ClusterGateway) -> None:
    """Its engines' requests are answered by the others, and they come back on another node."""
    trio = model("trio", "A100", parallelism={"tensor": 3}, replicas=2)
    nodes = [gateway.add_node(4, "A100") for _ in range(2)]
    deploy(gateway, SMALL, trio)
    await_replicas(gateway, "trio", 2)
    lost = nodes[0].node_id
    assert {lost} < {node for gpus in gpus_by_node("trio") for node in gpus}
    spare = gateway.add_node(4, "A100").node_id

    async def lose() -> None:
        gateway.kill_node(nodes[0])
        await asyncio.to_thread(wait_for, has_come_back, PATIENCE_S)

    def has_come_back() -> bool:
        return spare in {node for gpus in gpus_by_node("trio") for node in gpus}

    assert_nothing_lost(under_load(gateway, "trio", lose))
    await_replicas(gateway, "trio", 2)


def test_a_changed_model_takes_over_beside_the_old(gateway: ClusterGateway) -> None:
    """With room for one more engine, there is one at any time, and no request is lost."""
    changed = model("small", replicas=1, simulation={"output_tokens": 32})
    [old] = reservations("small")
    replicas: list[int] = []

    async def change() -> None:
        await asyncio.to_thread(deploy, gateway, changed)
        await asyncio.to_thread(wait_for, is_new, PATIENCE_S)

    def is_new() -> bool:
        replicas.append(gateway.card("small").get("replicas", 0))
        return has_changed("small", old)

    assert_nothing_lost(under_load(gateway, "small", change))
    assert min(replicas) >= 1


@dataclass(frozen=True)
class Change:
    """What was seen while models changed that fill all places there are for them."""

    counts: Counts
    reasons: list[str]
    """Of the one whose entry has changed."""


@pytest.fixture(scope="module")
def change(gateway: ClusterGateway) -> Change:
    """One model with another entry, and one as it was with a release of the code, at once."""
    fields = {"parallelism": {"tensor": 2}, "replicas": 1}
    released = model("released", "H100", parallelism={"tensor": 4, "pipeline": 2}, replicas=1)
    deploy(gateway, SMALL, model("full", "L4", **fields), released)
    await_replicas(gateway, "full", 1)
    await_replicas(gateway, "released", 1)
    [old], [old_release] = reservations("full"), reservations("released")
    changed = model("full", "L4", simulation={"output_tokens": 32}, **fields)
    release = released | {"runtime_env": {"env_vars": {"RELEASE": "2"}}}
    reasons: list[str] = []

    async def happen() -> None:
        await asyncio.to_thread(deploy, gateway, SMALL, changed, release)
        await asyncio.to_thread(wait_for, is_new, PATIENCE_S)

    def is_new() -> bool:
        reasons.append(gateway.card("full").get("reason", ""))
        return has_changed("full", old)

    counts = under_load(gateway, "full", happen)
    wait_for(lambda: has_changed("released", old_release), PATIENCE_S)
    return Change(counts, reasons)


def test_a_changed_model_without_room_says_so_and_waits_for_the_old(change: Change) -> None:
    """The only place is the old engine's: it finishes, stops, and the new one takes it."""
    assert_nothing_lost(change.counts)
    needs = "a changed engine needs 2 GPUs of type L4 on one node; none is free"
    reasons = change.reasons
    assert any(reason.startswith(f"{needs}; unless that changes") for reason in reasons), reasons


def test_a_release_of_the_code_changes_engines_without_room_too(
    gateway: ClusterGateway, change: Change
) -> None:
    """The entry is as it was; Serve replaces the engines all the same, and so they make room."""
    await_replicas(gateway, "released", 1)
    assert gateway.chat("released")[0] == 200


def test_a_change_that_can_never_fit_leaves_the_old_alone(gateway: ClusterGateway) -> None:
    """More GPUs than any node has: the old engine goes on, and the reason says so."""
    fields = {"simulation": {"output_tokens": 32}, "replicas": 1}
    full = model("full", "L4", parallelism={"tensor": 4}, **fields)
    full["args"]["drain_timeout_s"] = 1  # Serve waits as long for an engine that has no place yet
    deploy(gateway, SMALL, full)

    await_reason(gateway, "full", "it would not fit without the old ones either")
    assert gateway.card("full")["state"] == "ready"
    assert gateway.chat("full")[0] == 200

"""Rollover: when old engines stop for changed ones, and the reasons that are given."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.schema import DeploymentStatusOverview

from deployments import rollover
from deployments.rollover import (
    POLL_PERIOD_S,
    RETIRE_AFTER_S,
    RETIRE_WITH_NODES_AFTER_S,
    RETIRE_WITH_ROOM_AFTER_S,
    Rollover,
)
from deployments.serve_internals.cluster_state import UNEXPLAINED_WAIT
from gateway.cluster.placement import plan_placement
from gateway.cluster.shortage import Cluster, Node
from gateway.config.loader import parse_entry

OLD, NEW = "old code", "new code"
ENTRY = {"engine": "sim", "name": "m", "accelerator": "gpu", "parallelism": {"tensor": 2}}
LARGER = ENTRY | {"parallelism": {"tensor": 4}}
HELD = {"x": {"CPU": 0.2, "GPU": 2.0}}
FULL = Cluster([Node("x", {"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 0})])
ROOMY = replace(FULL, nodes=[Node("x", {"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 2})])
"""Two halves free of two GPUs: a sum that Ray cannot use."""
NEEDS = "a changed engine needs 2 GPUs on one node; none is free"
IF_IT_FAILS = "stop to make room, and are missing if it then fails to start"
LOOKS = round(RETIRE_AFTER_S / POLL_PERIOD_S + 0.5)
"""As many as it takes to lose patience."""
LOOKS_WITH_RAY = round(RETIRE_WITH_ROOM_AFTER_S / POLL_PERIOD_S + 0.5)
LOOKS_FOR_NODES = round(RETIRE_WITH_NODES_AFTER_S / POLL_PERIOD_S + 0.5)


@dataclass
class FakeEngines:
    """A model's engines as a handle reaches them, on a cluster of one node with two GPUs."""

    versions: dict[str, str | None] = field(default_factory=lambda: {"old": OLD})
    """What each replica runs; None for one that answers with an error."""
    cluster: Cluster = FULL
    unplaced: int = 1
    """The changed engines that start and have no node, as Serve knows."""
    is_sought: bool = True
    """Whether Ray seeks a node for a changed engine."""
    asked_to_go: list[str] = field(default_factory=list)
    app_name: str = "app"
    deployment_name: str = "Engine"

    def broadcast(self, method: str, *args: Sequence[str]) -> "FakeEngines":
        """A call of all replicas."""
        self._answers: list[Any] = [None]
        if method == "retire":
            self.asked_to_go.extend(args[0])
        else:
            gone = [DeploymentUnavailableError("one that has just gone"), ActorDiedError()]
            self._answers = [*map(self._reservation, self.versions), *gone]
        return self

    def _reservation(self, name: str) -> object:
        version = self.versions[name]
        if version is None:
            return RuntimeError("what does this ask?")
        return {"replica": name, "version": version, "reserved": HELD}

    def go(self) -> None:
        """Stop those that were asked to."""
        for name in self.asked_to_go:
            self.versions.pop(name, None)

    async def results_async(self, **_: object) -> list[Any]:
        """What they answered."""
        return self._answers

    def read_cluster(self) -> Cluster:
        """What the cluster has, and what Ray seeks."""
        other = {"CPU": 1.0, "GPU": 8.0}
        sizes = (ENTRY, LARGER) if self.is_sought else ()
        return replace(
            self.cluster,
            pending_demands=[[other], *([plan_placement(parse_entry(e)).actor] for e in sizes)],
        )


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> FakeEngines:
    """One old engine, whose GPUs the changed one needs."""
    fake = FakeEngines()
    monkeypatch.setattr(rollover, "unplaced_replicas", lambda _app, _deployment: fake.unplaced)
    monkeypatch.setattr(rollover, "read_cluster", fake.read_cluster)
    return fake


def overview(status: str, replicas: dict[str, int]) -> DeploymentStatusOverview:
    """Serve's status of the engines."""
    make: Any = DeploymentStatusOverview
    return make(status=status, status_trigger="", replica_states=replicas, message="")


def following(engines: Any, entry: Any = ENTRY) -> Rollover:
    """A rollover of the model's engines to the new version, optionally with another entry."""
    return Rollover(entry, NEW, engines)


async def look(change: Rollover, times: int, **replicas: int) -> None:
    """Poll this many times."""
    for _ in range(times):
        await change._advance(overview("UPDATING", replicas or {"RUNNING": 1, "STARTING": 1}))


async def test_an_old_engine_is_retired_after_the_announced_wait(engines: FakeEngines) -> None:
    """Until then it is only announced; then it is called once."""
    change = following(engines)
    await look(change, LOOKS - 1)
    announced, early = await change.wait_reason(), list(engines.asked_to_go)
    await look(change, 2)
    done = await change.wait_reason()
    await look(change, LOOKS, STARTING=1, STOPPING=1)

    assert (
        announced == f"{NEEDS}; unless that changes within 15 s, 1 of 1 old engines {IF_IT_FAILS}"
    )
    assert early == []
    assert done == f"{NEEDS}; 1 of 1 old engines finish their requests and stop to make room"
    assert set(engines.asked_to_go) == {"old"}


async def test_nodes_being_added_are_waited_for_within_a_limit(engines: FakeEngines) -> None:
    """The autoscaler may make room without stopping an engine, but a node may never come."""
    engines.cluster = replace(engines.cluster, pending_nodes=1)
    change = following(engines)
    await look(change, LOOKS_FOR_NODES)
    waiting, early = await change.wait_reason(), list(engines.asked_to_go)
    await look(change, LOOKS)

    being_added = f"{NEEDS}; 1 node is being added"
    assert waiting == f"{being_added}; old engines keep running meanwhile, for 5 minutes at most"
    assert early == []
    assert engines.asked_to_go == ["old"]


async def test_room_taken_by_another_model_is_made_only_once(engines: FakeEngines) -> None:
    """A model does not lose all its engines to another one that is faster."""
    engines.versions = dict.fromkeys(["a", "b", "c"], OLD)
    change = following(engines)
    await look(change, LOOKS)
    engines.go()
    await look(change, 2, RUNNING=2, STARTING=1, STOPPING=1)
    await look(change, 10 * LOOKS, RUNNING=2, STARTING=1)

    assert engines.asked_to_go == ["a"]
    assert await change.wait_reason() == (
        f"{NEEDS}; the room made for it went to another model; no more old engines stop"
    )


async def test_the_next_engine_is_retired_when_a_changed_one_runs(engines: FakeEngines) -> None:
    """One by one, even if several may start at once: a broken entry costs at most one."""
    engines.versions = dict.fromkeys(["a", "b", "c"], OLD)
    change = following(engines)
    await look(change, LOOKS)
    engines.go()
    await look(change, 2 * LOOKS, RUNNING=2, STARTING=2)
    loading, early = await change.wait_reason(), list(engines.asked_to_go)
    engines.versions["n"] = NEW
    await look(change, LOOKS - 1, RUNNING=3, STARTING=1)
    patient = list(engines.asked_to_go)
    await look(change, 1, RUNNING=3, STARTING=1)

    assert (
        loading == f"{NEEDS}; old engines keep running until the changed one that is starting runs"
    )
    assert early == patient == ["a"]
    assert engines.asked_to_go == ["a", "b"]


async def test_an_engine_that_missed_the_call_is_retired_again(engines: FakeEngines) -> None:
    """The same engine is called again, and no other."""
    engines.versions = {"a": OLD, "b": OLD}
    change = following(engines)
    await look(change, 3 * LOOKS)

    assert len(engines.asked_to_go) > 1
    assert set(engines.asked_to_go) == {"a"}


async def test_one_engine_is_retired_where_ray_finds_no_place_in_enough_room(
    engines: FakeEngines,
) -> None:
    """Parts of several GPUs do not make a whole one: after a while an old engine frees one."""
    engines.cluster, engines.versions = ROOMY, {"a": OLD, "b": OLD}
    change = following(engines)
    await look(change, LOOKS)
    announced, early = await change.wait_reason(), list(engines.asked_to_go)
    await look(change, LOOKS_WITH_RAY)
    engines.go()
    await look(change, 2 * LOOKS_WITH_RAY, RUNNING=1, STARTING=1)

    waits = "a changed engine waits for Ray to place it"
    assert (
        announced == f"{waits}; unless that changes within 60 s, 1 of 2 old engines {IF_IT_FAILS}"
    )
    assert early == []
    assert set(engines.asked_to_go) == {"a"}
    assert await change.wait_reason() == (
        f"{waits}; Ray finds no place although room was made for it; no more old engines stop"
    )


async def test_engines_that_answer_with_an_error_count_as_old(engines: FakeEngines) -> None:
    """They run an older release; the reason says that they do not answer."""
    engines.versions = {"a": None}
    change = following(engines)
    await look(change, 3 * LOOKS)
    alone = await change.wait_reason()
    engines.versions = {"a": None, "b": OLD}
    await look(change, 1)

    assert alone == f"{NEEDS}; its old engines do not answer, and keep running"
    assert "1 of 2 old engines stop" in await change.wait_reason()


async def test_no_engine_is_retired_if_the_changed_one_would_not_fit(engines: FakeEngines) -> None:
    """If it fits nowhere, old engines keep running, and the reason says so."""
    change = following(engines, LARGER)
    await look(change, 3 * LOOKS)

    assert engines.asked_to_go == []
    assert await change.wait_reason() == (
        "a changed engine needs 4 GPUs on one node; the largest node has 2;"
        " it would not fit without the old ones either, which keep running"
    )


async def test_engines_of_the_same_version_are_not_retired(engines: FakeEngines) -> None:
    """An additional engine without room waits, and gives its reason."""
    engines.versions = {"a": NEW}
    change = following(engines)
    await look(change, 3 * LOOKS)
    explained = await change.wait_reason()
    engines.cluster = ROOMY

    assert engines.asked_to_go == []
    assert explained == "needs 2 GPUs on one node; none is free"
    assert await change.wait_reason() == UNEXPLAINED_WAIT


@pytest.mark.parametrize("fields", [{"unplaced": 0}, {"is_sought": False}])
async def test_an_engine_that_starts_needs_no_room(
    engines: FakeEngines, fields: dict[str, Any]
) -> None:
    """It has its resources: the old engine stays, however long the start takes."""
    for name, value in fields.items():
        setattr(engines, name, value)
    change = following(engines)
    await look(change, 3 * LOOKS)

    assert engines.asked_to_go == []
    assert await change.wait_reason() == ""


async def test_a_rollover_ends_when_the_deployment_is_healthy(
    engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it polls, even if Serve has no status for a moment."""
    statuses = iter(["UPDATING", None, "UPDATING", "HEALTHY"])

    def status() -> Any:
        said = next(statuses)
        deployments = {"Engine": overview(said or "", {"RUNNING": 1})}
        known = {"app": SimpleNamespace(deployments=deployments)} if said else {}
        return SimpleNamespace(applications=known)

    monkeypatch.setattr(rollover, "serve", SimpleNamespace(status=status))
    monkeypatch.setattr(rollover, "POLL_PERIOD_S", 0.001)
    await following(engines).run()

    assert next(statuses, "asked no more") == "asked no more"

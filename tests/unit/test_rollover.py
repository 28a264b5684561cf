"""When old engines make room for changed ones, and what is said meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.schema import DeploymentStatusOverview

from deployments import rollover
from deployments.rollover import PATIENCE_S, PERIOD_S, Rollover
from gateway.rollover import surge
from gateway.shortage import Cluster, Node

OLD = {"engine": "sim", "name": "m", "accelerator": "gpu", "parallelism": {"tensor": 2}}
NEW = OLD | {"simulation": {"output_tokens": 8}}
LARGER = OLD | {"parallelism": {"tensor": 4}}
HELD = {"x": {"CPU": 0.2, "GPU": 2.0}}
FULL = Cluster([Node("x", {"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 0})])
LOOKS = round(PATIENCE_S / PERIOD_S + 0.5)
"""As many as it takes to lose patience."""


@dataclass
class FakeEngines:
    """A model's engines as a handle reaches them, on a cluster of one node with two GPUs."""

    entries: dict[str, Any] = field(default_factory=lambda: {"old": OLD})
    """What each replica runs."""
    cluster: Cluster = FULL
    is_placed: bool = False
    """Whether the changed engine that starts has found a node."""
    asked_to_go: list[str] = field(default_factory=list)
    app_name: str = "app"
    deployment_name: str = "Engine"

    def broadcast(self, method: str, *args: Sequence[str]) -> "FakeEngines":
        """A call of all replicas."""
        self._answers: list[Any] = [None]
        if method == "make_room":
            self.asked_to_go.extend(args[0])
        else:
            self._answers = [
                {"replica": name, "entry": entry, "reserved": HELD}
                for name, entry in self.entries.items()
            ] + [DeploymentUnavailableError("one that has just gone")]
        return self

    async def results_async(self, **_: object) -> list[Any]:
        """What they answered."""
        return self._answers

    def unplaced(self, _: str) -> set[str]:
        """The applications with an engine that has no node."""
        return set() if self.is_placed else {"app"}


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> FakeEngines:
    """One old engine, whose GPUs the changed one needs."""
    fake = FakeEngines()
    monkeypatch.setattr(rollover, "unplaced", fake.unplaced)
    monkeypatch.setattr(rollover, "read_cluster", lambda: fake.cluster)
    return fake


def overview(status: str, replicas: dict[str, int]) -> DeploymentStatusOverview:
    """Serve's word on the engines."""
    make: Any = DeploymentStatusOverview
    return make(status=status, status_trigger="", replica_states=replicas, message="")


def following(engines: Any, entry: Any = NEW) -> Rollover:
    """What follows the change of a model's engines to an entry."""
    return Rollover(entry, engines)


async def look(change: Rollover, times: int, **replicas: int) -> None:
    """Look so often."""
    for _ in range(times):
        await change._look(overview("UPDATING", replicas or {"RUNNING": 1, "STARTING": 1}))


async def test_an_old_engine_makes_room_when_patience_is_at_its_end(engines: FakeEngines) -> None:
    """Until then it is announced; then it is asked, once."""
    change = following(engines)
    await look(change, LOOKS - 1)
    announced, early = await change.lack(), list(engines.asked_to_go)
    await look(change, 2)
    done = await change.lack()
    await look(change, LOOKS, STARTING=1, STOPPING=1)

    needs = "a changed engine needs 2 GPUs on one node; none is free"
    assert announced == (
        f"{needs}; unless that changes within 15 s, 1 of 1 old engines stop to make room"
    )
    assert early == []
    assert done == f"{needs}; 1 of 1 old engines finish what they have and stop to make room"
    assert engines.asked_to_go == ["old"]


async def test_nodes_on_their_way_are_waited_for(engines: FakeEngines) -> None:
    """The autoscaler makes room without an old engine having to go."""
    engines.cluster = replace(engines.cluster, coming=1)
    change = following(engines)
    await look(change, 3 * LOOKS)

    assert engines.asked_to_go == []
    assert "1 node is being added" in await change.lack()


async def test_nothing_stops_in_vain(engines: FakeEngines) -> None:
    """A changed engine that fits nowhere leaves the old ones alone, and that is said."""
    change = following(engines, LARGER)
    await look(change, 3 * LOOKS)

    assert engines.asked_to_go == []
    assert await change.lack() == (
        "a changed engine needs 4 GPUs on one node; the largest node has 2;"
        " it would not fit without the old ones either, which go on as they are"
    )


async def test_engines_of_the_same_entry_are_not_asked_to_go(engines: FakeEngines) -> None:
    """One more engine than fits is no change: it waits, and says why."""
    engines.entries = {"a": NEW}
    change = following(engines)
    await look(change, 3 * LOOKS)

    assert engines.asked_to_go == []
    assert await change.lack() == "needs 2 GPUs on one node; none is free"


async def test_an_engine_that_loads_needs_no_room(engines: FakeEngines) -> None:
    """It has its place: however long its start takes, the old one stays until it runs."""
    engines.is_placed = True
    change = following(engines)
    await look(change, 3 * LOOKS)

    assert engines.asked_to_go == []
    assert await change.lack() == ""


async def test_it_ends_with_the_change(
    engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serve is asked until all engines are new, also where it does not know for a moment."""
    statuses = iter(["UPDATING", None, "UPDATING", "HEALTHY"])

    def status() -> Any:
        said = next(statuses)
        deployments = {"Engine": overview(said or "", {"RUNNING": 1})}
        known = {"app": SimpleNamespace(deployments=deployments)} if said else {}
        return SimpleNamespace(applications=known)

    monkeypatch.setattr(rollover, "serve", SimpleNamespace(status=status))
    monkeypatch.setattr(rollover, "PERIOD_S", 0.001)
    await following(engines).run()

    assert next(statuses, "asked no more") == "asked no more"


@pytest.mark.parametrize(("replicas", "more"), [(1, 1), (4, 1), (5, 2), (16, 4)])
def test_a_quarter_starts_beside_the_old(replicas: int, more: int) -> None:
    """At least one, so that a model of one engine has no gap."""
    assert surge(replicas) == more

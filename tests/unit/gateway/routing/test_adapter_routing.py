"""Requests for an adapter go where it is loaded, and a router knows what stands in their way."""

import contextlib
import logging
import random
from collections.abc import Iterator

import pytest
from msgspec import structs

from gateway.config.serving_options import ServingOptions
from gateway.errors import ModelNotFound
from gateway.http.models import adapter_card, model_card
from gateway.kvcache.prefix import NO_PROMPT
from gateway.routing.decision import DecisionLog
from gateway.routing.fleet import Fleet, ModelState, Replica, ServedModel
from gateway.routing.policies.marginal import WEIGHT
from gateway.routing.replica_state import BROKEN_S, LOAD_S
from gateway.routing.scheduler import Scheduler
from gateway.telemetry import AdapterState, Dispatch, Load, Update
from tests.unit.gateway.routing.test_scheduler import FACTS, METADATA, TEN
from tests.unit.targets import target_of

WITH_ADAPTERS = structs.replace(METADATA, facts=structs.replace(FACTS, adapters=("x", "y", "z")))


def model(name: str = "m", *adapters: str, policy: str = "marginal") -> ServedModel:
    """A model with adapters and without replicas."""
    entry = {
        "adapters": [{"name": adapter, "source": "x"} for adapter in adapters],
        "routing": {"policy": policy},
    }
    return ServedModel(name, created_s=1, options=ServingOptions.model_validate(entry))


class Scene:
    """A dispatcher for replicas `a` and `b` of a model with the adapter `x`."""

    def __init__(self, policy: str = "marginal") -> None:
        self.model = model("m", "x", policy=policy)
        self.model.replace_replicas([Replica(name, WITH_ADAPTERS) for name in "ab"])
        rng = random.Random(3)  # noqa: S311 - ids and ties, no secrets
        self.scheduler = Scheduler(self.model, DecisionLog(), rng, lambda: 1000.0)
        self.scheduler.sync()

    def tell(self, replica: str, *, running: int = 0, **state: object) -> None:
        """Hear from a replica how its adapters stand."""
        load = Load(running=running, waiting=0, pending_tokens=0, free_tokens=10_000)
        adapters = AdapterState(**state)  # type: ignore[arg-type]
        self.scheduler.hear(replica, Update(is_snapshot=True, load=load, adapters=adapters))

    def load_s(self, adapter: str = "x") -> dict[str, float]:
        """What loading the adapter is taken to cost at each replica."""
        candidates = self.scheduler.choose(target_of(NO_PROMPT, adapter=adapter)).candidates
        return {candidate.replica.id: candidate.load_s for candidate in candidates}

    @contextlib.contextmanager
    def sending(self, adapter: str = "x", asked: str = "") -> Iterator[tuple[str, Dispatch]]:
        """Send a request for an adapter: where it went, and what goes with it."""
        target = target_of(TEN, adapter=adapter, asked=asked)
        decision = self.scheduler.choose(target)
        with self.scheduler.sending(decision, target) as dispatch:
            yield decision.replica.id, dispatch


@pytest.mark.parametrize("policy", ["marginal", "least-pending"])
def test_the_replica_that_has_it_is_preferred(policy: str) -> None:
    """Although it is busier."""
    scene = Scene(policy)
    scene.tell("a", loaded=["x"], max_loaded=2, running=1)
    scene.tell("b", loaded=["y"], max_loaded=2, load_s=0.5)

    with_adapter = scene.scheduler.choose(target_of(TEN, adapter="x"))
    without = scene.scheduler.choose(target_of(TEN))

    assert (with_adapter.replica.id, without.replica.id) == ("a", "b")


def test_enough_load_outweighs_it() -> None:
    """Loading takes a second or so: waiting behind many others would take longer."""
    scene = Scene()
    scene.tell("a", loaded=["x"], max_loaded=2, running=1000)
    scene.tell("b", loaded=[], max_loaded=2, load_s=0.01)

    assert scene.scheduler.choose(target_of(TEN, adapter="x")).replica.id == "b"


def test_what_loading_costs() -> None:
    """As the replica has measured; twice that where others lose one by it; much where it fails."""
    scene = Scene()
    assert scene.load_s() == {"a": LOAD_S, "b": LOAD_S}

    scene.tell("a", loaded=["y"], max_loaded=2, load_s=0.25)
    scene.tell("b", loaded=["z", "y"], max_loaded=2, load_s=0.25)
    assert scene.load_s() == {"a": 0.25, "b": 0.5}

    scene.tell("b", loaded=["y", "z"], max_loaded=2, load_s=0.25)
    assert scene.load_s() == {"a": 0.25, "b": 0.25}, "y is loaded on a, too"

    scene.tell("a", broken={"x": "it is bent"}, max_loaded=2)
    scene.tell("b", loaded=["x"], max_loaded=2)
    assert scene.load_s() == {"a": BROKEN_S, "b": 0.0}
    assert scene.load_s("") == {"a": 0.0, "b": 0.0}


def test_a_replica_of_an_older_entry_is_avoided() -> None:
    """It does not know the adapter, and would answer that there is none."""
    scene = Scene()
    scene.tell("a", loaded=["y", "z"], max_loaded=2, running=5)
    scene.model.replace_replicas([*scene.model.replicas.values(), Replica("old", METADATA)])

    assert scene.load_s("x")["old"] == BROKEN_S


def test_it_is_expected_where_a_request_for_it_was_sent() -> None:
    """Those that come at the same time go there too, before the replica has told anything."""
    scene = Scene()
    for replica in "ab":
        scene.tell(replica, max_loaded=2)
    with scene.sending() as (first, _), scene.sending() as (second, _):
        assert second == first
        assert scene.load_s()[first] == 0.0
        assert scene.load_s("y")[first] == LOAD_S


def test_a_held_request_is_expected_to_load_it() -> None:
    """Where it waits, the next one will find it loaded."""
    scene = Scene()
    decision = scene.scheduler.choose(target_of(TEN, adapter="x"))
    scene.scheduler.hold(decision, target_of(TEN, adapter="x"))
    assert scene.load_s()[decision.replica.id] == 0.0

    scene.scheduler.release(decision)
    assert scene.load_s()[decision.replica.id] == 0.0
    scene.scheduler.drop(decision)
    assert scene.load_s()[decision.replica.id] == LOAD_S


def test_it_is_expected_until_the_last_request_for_it_has_ended() -> None:
    """Those for other adapters, or for none, do not count."""
    scene = Scene()
    for replica in "ab":
        scene.tell(replica, loaded=["z"], max_loaded=2)
    with scene.sending() as (first, _):
        with scene.sending() as (second, _), scene.sending(""):
            assert second == first
        assert scene.load_s()[first] == 0.0
    assert scene.load_s()[first] == LOAD_S


def test_a_replica_that_came_back_owes_nothing() -> None:
    """A request sent to it before it went ends without a trace."""
    scene = Scene()
    replicas = [scene.model.replicas["a"]]
    scene.model.replace_replicas(replicas)
    with contextlib.ExitStack() as stack:
        with scene.sending():
            for present in ([], replicas):
                scene.model.replace_replicas(present)
                scene.scheduler.sync()
            stack.enter_context(scene.sending())
        assert scene.load_s() == {"a": 0.0}
    assert scene.load_s() == {"a": LOAD_S}


def test_an_update_without_news_changes_nothing() -> None:
    """What was told before still holds."""
    scene = Scene()
    scene.tell("a", loaded=["x"], max_loaded=2)

    scene.scheduler.hear("a", Update())

    assert scene.load_s()["a"] == 0.0


def test_a_decision_explains_what_loading_costs() -> None:
    """In seconds, part of the cost, and of the predicted time to first token."""
    scene = Scene()
    scene.tell("a", loaded=["x"], max_loaded=1, running=2)
    scene.tell("b", loaded=["y"], max_loaded=1, load_s=0.25, running=2)
    decision = scene.scheduler.choose(target_of(NO_PROMPT, adapter="x"))
    said = decision.explanation()
    candidates = said["candidates"]
    assert isinstance(candidates, list)
    (here, there) = candidates

    assert said["adapter"] == "x"
    assert (here["replica"], here["load_s"]) == ("a", 0.0)
    assert (there["replica"], there["load_s"]) == ("b", 0.5)
    assert there["cost"] - here["cost"] == pytest.approx(0.5 * (1 + WEIGHT * 2), abs=1e-5)


def test_the_engine_is_told_what_answers() -> None:
    """Where the body has another name for it."""
    scene = Scene()
    with scene.sending("x", "alias") as (_, renamed), scene.sending("x") as (_, plain):
        assert Dispatch.decode(renamed.encode()).model == "x"
        assert Dispatch.decode(plain.encode()).model == ""


def test_an_adapter_is_found_by_its_name() -> None:
    """Its model answers for it, as long as it is there."""
    fleet, base = Fleet(), model("m", "x")
    fleet.add(base)
    assert fleet.model("x") is base
    assert fleet.has("x")
    assert not fleet.has_model("x")

    fleet.remove(base)
    assert not fleet.has("x")
    with pytest.raises(ModelNotFound):
        fleet.model("x")


def test_changed_terms_change_the_adapters() -> None:
    """An entry that was edited and deployed again."""
    fleet, base = Fleet(), model("m", "x")
    fleet.add(base)
    base.options = model("m", "y").options

    fleet.replace_replicas(base, [])

    assert list(fleet.adapters) == ["y"]


def test_of_equal_names_the_first_counts(caplog: pytest.LogCaptureFixture) -> None:
    """A model's own name before all adapters'; the log says once which one is left out."""
    fleet, first, second = Fleet(), model("m", "x", "n"), model("n", "x")
    with caplog.at_level(logging.WARNING):
        fleet.add(first)
        fleet.add(second)
        fleet.replace_replicas(first, [])

    assert fleet.model("n") is second
    assert fleet.model("x") is first
    assert sorted(record.message for record in caplog.records) == [
        "the adapter n of m is left out: that name is taken already",
        "the adapter x of n is left out: that name is taken already",
    ]

    fleet.remove(first)
    assert fleet.model("x") is second


def test_an_adapters_card() -> None:
    """It stands as its model does, which it names."""
    scene = Scene()
    scene.tell("a", loaded=["x"], max_loaded=1)
    card, base = adapter_card(scene.model, "x"), model_card(scene.model)

    assert (card.id, card.parent, card.loaded_replicas) == ("x", "m", 1)
    assert (card.state, card.reason, card.replicas) == (base.state, base.reason, base.replicas)
    assert base.parent is None


def test_a_broken_adapters_card() -> None:
    """It says why, once no replica can load it; its model goes on."""
    scene = Scene()
    scene.tell("a", broken={"x": "it is bent"}, max_loaded=1)
    assert adapter_card(scene.model, "x").state is ModelState.READY

    scene.tell("b", broken={"x": "it is bent"}, max_loaded=1)
    card = adapter_card(scene.model, "x")

    assert card.state is ModelState.UNHEALTHY
    assert card.reason == "it cannot be loaded: it is bent"
    assert model_card(scene.model).state is ModelState.READY

"""Tests of routing requests for adapters: to where the adapter is loaded, or soon will be."""

import contextlib
import logging
import random
from collections.abc import Iterator

import pytest
from msgspec import structs

from gateway.config.serving_options import ServingOptions
from gateway.errors.request import ModelNotFound
from gateway.http.models import adapter_card, model_card
from gateway.kvcache.prefix import NO_PROMPT
from gateway.routing.decision import DecisionLog
from gateway.routing.fleet import Fleet, ModelState, Replica, ServedModel
from gateway.routing.policies.marginal import OTHERS_WEIGHT
from gateway.routing.replica_state import DEFAULT_ADAPTER_LOAD_S, UNLOADABLE_S
from gateway.routing.scheduler import Scheduler
from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.update import AdapterState, Load, Update
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
    """A scheduler for replicas `a` and `b` of a model with the adapter `x`."""

    def __init__(self, policy: str = "marginal") -> None:
        self.model = model("m", "x", policy=policy)
        self.model.replace_replicas([Replica(name, WITH_ADAPTERS) for name in "ab"])
        rng = random.Random(3)  # noqa: S311 - ids and ties, no secrets
        self.scheduler = Scheduler(self.model, DecisionLog(), rng, lambda: 1000.0)
        self.scheduler.replicas.sync()

    def report(self, replica: str, *, running: int = 0, **state: object) -> None:
        """Let a replica report the state of its adapters."""
        load = Load(running=running, waiting=0, pending_tokens=0, free_tokens=10_000)
        adapters = AdapterState(**state)  # type: ignore[arg-type]
        self.scheduler.record_update(
            replica, Update(is_snapshot=True, load=load, adapters=adapters)
        )

    def load_s(self, adapter: str = "x") -> dict[str, float]:
        """Return the time that loading the adapter is expected to take at each replica."""
        candidates = self.scheduler.choose(target_of(NO_PROMPT, adapter=adapter)).candidates
        return {candidate.replica.id: candidate.adapter_load_s for candidate in candidates}

    @contextlib.contextmanager
    def sending(self, adapter: str = "x", asked: str = "") -> Iterator[tuple[str, Dispatch]]:
        """Send a request for an adapter; yields its replica and its dispatch."""
        target = target_of(TEN, adapter=adapter, asked=asked)
        decision = self.scheduler.choose(target)
        with self.scheduler.sending(decision, target) as dispatch:
            yield decision.replica.id, dispatch


@pytest.mark.parametrize("policy", ["marginal", "least-pending"])
def test_a_replica_with_the_adapter_loaded_is_preferred(policy: str) -> None:
    """It is chosen although it is busier."""
    scene = Scene(policy)
    scene.report("a", loaded=["x"], max_loaded=2, running=1)
    scene.report("b", loaded=["y"], max_loaded=2, load_s=0.5)

    with_adapter = scene.scheduler.choose(target_of(TEN, adapter="x"))
    without = scene.scheduler.choose(target_of(TEN))

    assert (with_adapter.replica.id, without.replica.id) == ("a", "b")


def test_a_long_queue_outweighs_a_loaded_adapter() -> None:
    """Loading takes a second or so; waiting behind many others would take longer."""
    scene = Scene()
    scene.report("a", loaded=["x"], max_loaded=2, running=1000)
    scene.report("b", loaded=[], max_loaded=2, load_s=0.01)

    assert scene.scheduler.choose(target_of(TEN, adapter="x")).replica.id == "b"


def test_loading_costs_the_time_that_the_replica_reports() -> None:
    """It costs twice that if the last copy of another is unloaded, and far more if it fails."""
    scene = Scene()
    assert scene.load_s() == {"a": DEFAULT_ADAPTER_LOAD_S, "b": DEFAULT_ADAPTER_LOAD_S}

    scene.report("a", loaded=["y"], max_loaded=2, load_s=0.25)
    scene.report("b", loaded=["z", "y"], max_loaded=2, load_s=0.25)
    assert scene.load_s() == {"a": 0.25, "b": 0.5}

    scene.report("b", loaded=["y", "z"], max_loaded=2, load_s=0.25)
    assert scene.load_s() == {"a": 0.25, "b": 0.25}, "y is loaded on a, too"

    scene.report("a", broken={"x": "it is bent"}, max_loaded=2)
    scene.report("b", loaded=["x"], max_loaded=2)
    assert scene.load_s() == {"a": UNLOADABLE_S, "b": 0.0}
    assert scene.load_s("") == {"a": 0.0, "b": 0.0}


def test_a_replica_that_does_not_know_the_adapter_is_avoided() -> None:
    """A replica of an older entry would answer that the adapter does not exist."""
    scene = Scene()
    scene.report("a", loaded=["y", "z"], max_loaded=2, running=5)
    scene.model.replace_replicas([*scene.model.replicas.values(), Replica("old", METADATA)])

    assert scene.load_s("x")["old"] == UNLOADABLE_S


def test_an_adapter_is_expected_where_a_request_for_it_was_sent() -> None:
    """Simultaneous requests go there too, before the replica has reported anything."""
    scene = Scene()
    for replica in "ab":
        scene.report(replica, max_loaded=2)
    with scene.sending() as (first, _), scene.sending() as (second, _):
        assert second == first
        assert scene.load_s()[first] == 0.0
        assert scene.load_s("y")[first] == DEFAULT_ADAPTER_LOAD_S


def test_an_adapter_is_expected_where_a_request_for_it_waits() -> None:
    """The next request will find the adapter loaded there."""
    scene = Scene()
    decision = scene.scheduler.choose(target_of(TEN, adapter="x"))
    scene.scheduler.hold(decision, target_of(TEN, adapter="x"))
    assert scene.load_s()[decision.replica.id] == 0.0

    scene.scheduler.release(decision)
    assert scene.load_s()[decision.replica.id] == 0.0
    scene.scheduler.discard(decision)
    assert scene.load_s()[decision.replica.id] == DEFAULT_ADAPTER_LOAD_S


def test_an_adapter_is_expected_until_the_last_request_for_it_has_ended() -> None:
    """Requests for other adapters, or for none, do not count."""
    scene = Scene()
    for replica in "ab":
        scene.report(replica, loaded=["z"], max_loaded=2)
    with scene.sending() as (first, _):
        with scene.sending() as (second, _), scene.sending(""):
            assert second == first
        assert scene.load_s()[first] == 0.0
    assert scene.load_s()[first] == DEFAULT_ADAPTER_LOAD_S


def test_a_replica_that_returns_expects_no_adapter() -> None:
    """A request sent to it before its removal ends without an effect."""
    scene = Scene()
    replicas = [scene.model.replicas["a"]]
    scene.model.replace_replicas(replicas)
    with contextlib.ExitStack() as stack:
        with scene.sending():
            for present in ([], replicas):
                scene.model.replace_replicas(present)
                scene.scheduler.replicas.sync()
            stack.enter_context(scene.sending())
        assert scene.load_s() == {"a": 0.0}
    assert scene.load_s() == {"a": DEFAULT_ADAPTER_LOAD_S}


def test_an_update_without_adapters_keeps_their_state() -> None:
    """The state reported before is still valid."""
    scene = Scene()
    scene.report("a", loaded=["x"], max_loaded=2)

    scene.scheduler.record_update("a", Update())

    assert scene.load_s()["a"] == 0.0


def test_a_decision_shows_the_cost_of_loading() -> None:
    """The time to load is shown in seconds, and is part of the cost."""
    scene = Scene()
    scene.report("a", loaded=["x"], max_loaded=1, running=2)
    scene.report("b", loaded=["y"], max_loaded=1, load_s=0.25, running=2)
    decision = scene.scheduler.choose(target_of(NO_PROMPT, adapter="x"))
    said = decision.explanation()
    candidates = said["candidates"]
    assert isinstance(candidates, list)
    (here, there) = candidates

    assert said["adapter"] == "x"
    assert (here["replica"], here["load_s"]) == ("a", 0.0)
    assert (there["replica"], there["load_s"]) == ("b", 0.5)
    assert there["cost"] - here["cost"] == pytest.approx(0.5 * (1 + OTHERS_WEIGHT * 2), abs=1e-5)


def test_a_dispatch_names_the_adapter_if_the_body_does_not() -> None:
    """The engine is told which adapter answers if the client used another name."""
    scene = Scene()
    with scene.sending("x", "alias") as (_, renamed), scene.sending("x") as (_, plain):
        assert Dispatch.decode(renamed.encode()).model == "x"
        assert Dispatch.decode(plain.encode()).model == ""


def test_a_dispatch_always_names_what_answers_a_form() -> None:
    """A form may name two models: the engine must not choose the one that nobody has checked."""
    target = target_of(NO_PROMPT, adapter="x")
    request = structs.replace(target.request, path="/v1/audio/transcriptions")
    assert structs.replace(target, request=request).renamed == "x"


def test_an_adapter_is_found_by_its_name() -> None:
    """The name leads to the adapter's model, as long as that is there."""
    fleet, base = Fleet(), model("m", "x")
    fleet.add(base)
    assert fleet.model("x") is base
    assert fleet.has("x")
    assert not fleet.has_model("x")

    fleet.remove(base)
    assert not fleet.has("x")
    with pytest.raises(ModelNotFound):
        fleet.model("x")


def test_changed_options_change_the_adapters() -> None:
    """An entry may be edited and deployed again."""
    fleet, base = Fleet(), model("m", "x")
    fleet.add(base)
    base.options = model("m", "y").options

    fleet.replace_replicas(base, [])

    assert list(fleet.adapters) == ["y"]


def test_a_name_belongs_to_the_first_that_has_it(caplog: pytest.LogCaptureFixture) -> None:
    """Models come before adapters; the log says once which adapter is ignored."""
    fleet, first, second = Fleet(), model("m", "x", "n"), model("n", "x")
    with caplog.at_level(logging.WARNING):
        fleet.add(first)
        fleet.add(second)
        fleet.replace_replicas(first, [])

    assert fleet.model("n") is second
    assert fleet.model("x") is first
    ignored = "is ignored: its name is taken; give it another name in the model's entry"
    assert sorted(record.message for record in caplog.records) == [
        f"adapter n of model m {ignored}",
        f"adapter x of model n {ignored}",
    ]

    fleet.remove(first)
    assert fleet.model("x") is second


def test_an_adapter_has_the_state_of_its_model() -> None:
    """Its card has the model's state, and names the model as its parent."""
    scene = Scene()
    scene.report("a", loaded=["x"], max_loaded=1)
    card, base = adapter_card(scene.model, "x"), model_card(scene.model)

    assert (card.id, card.parent, card.loaded_replicas) == ("x", "m", 1)
    assert (card.state, card.reason, card.replicas) == (base.state, base.reason, base.replicas)
    assert base.parent is None


def test_an_adapter_that_no_replica_can_load_is_unhealthy() -> None:
    """Its card says why; its model stays ready."""
    scene = Scene()
    scene.report("a", broken={"x": "it is bent"}, max_loaded=1)
    assert adapter_card(scene.model, "x").state is ModelState.READY

    scene.report("b", broken={"x": "it is bent"}, max_loaded=1)
    card = adapter_card(scene.model, "x")

    assert card.state is ModelState.UNHEALTHY
    assert card.reason == "it cannot be loaded: it is bent"
    assert model_card(scene.model).state is ModelState.READY

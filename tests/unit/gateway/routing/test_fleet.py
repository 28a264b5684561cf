"""The fleet: what it knows of models and replicas, and what it keeps when they change."""

import pytest

from gateway.errors import ModelNotFound, ModelUnavailable
from gateway.routing.fleet import Fleet, ModelState, Replica, ServedModel
from gateway.telemetry import EngineFacts, ReplicaMetadata


def replica(name: str, max_model_len: int = 512) -> Replica:
    """A replica of that id."""
    facts = EngineFacts(
        engine="fake",
        routes=("/v1/completions",),
        kv_tokens=1,
        block_size=1,
        max_sequences=1,
        max_model_len=max_model_len,
    )
    return Replica(name, ReplicaMetadata(model="m", host="h", port=1, key="k", facts=facts))


def fleet_with_model() -> tuple[Fleet, ServedModel]:
    """A fleet of one model without replicas."""
    fleet = Fleet()
    model = ServedModel("m", created_s=1)
    fleet.add(model)
    return fleet, model


def test_model_is_found_by_its_name_only() -> None:
    """A known name gives the model, any other OpenAI's error."""
    fleet, model = fleet_with_model()
    assert fleet.model("m") is model
    with pytest.raises(ModelNotFound):
        fleet.model("M")


def test_removed_model_is_gone_and_removing_twice_is_harmless() -> None:
    """After `remove` nobody finds the model."""
    fleet, model = fleet_with_model()
    fleet.remove(model)
    fleet.remove(model)
    with pytest.raises(ModelNotFound):
        fleet.model("m")


def test_known_replicas_stay_when_the_set_changes() -> None:
    """A replica that stays is the same object, so whoever holds it goes on with it."""
    fleet, model = fleet_with_model()
    fleet.model("m").replace_replicas([replica("a"), replica("b")])
    stays = model.replicas["a"]
    fleet.model("m").replace_replicas([replica("a"), replica("c")])
    assert list(model.replicas) == ["a", "c"]
    assert model.replicas["a"] is stays


def test_a_name_taken_over_is_not_removed_with_its_former_model() -> None:
    """An application that is renamed exists twice for a while: the old one takes nothing along."""
    fleet, former = fleet_with_model()
    later = ServedModel("m", created_s=2)
    fleet.add(later)
    fleet.remove(former)
    assert fleet.model("m") is later


def test_an_unknown_name_may_yet_become_known() -> None:
    """While models are being deployed a client is told to come back, not that there is none."""
    fleet = Fleet()
    fleet.is_settled = False
    with pytest.raises(ModelUnavailable):
        fleet.model("m")


def test_fleet_is_ready_with_the_first_replica() -> None:
    """One replica of one model makes the gateway useful."""
    fleet, _ = fleet_with_model()
    assert not fleet.is_ready
    fleet.model("m").replace_replicas([replica("a")])
    assert fleet.is_ready


def test_context_is_known_while_an_engine_runs() -> None:
    """The longest context of the replicas is the model's; without replicas there is none."""
    fleet, model = fleet_with_model()
    assert model.max_model_len is None
    fleet.model("m").replace_replicas([replica("a", 100), replica("b", 200)])
    assert model.max_model_len == 200


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (ModelState.STARTING, "starting"),
        (ModelState.SCALED_TO_ZERO, "scaled to zero"),
        (ModelState.UNHEALTHY, "unhealthy"),
    ],
)
def test_condition_is_in_words(state: ModelState, words: str) -> None:
    """What a client is told about a model without replicas reads as a sentence."""
    assert ServedModel("m", created_s=1, state=state).condition == words


def test_a_model_is_ready_from_its_first_replica_to_its_last() -> None:
    """Replicas come and go faster than Serve's status is read: the state follows them at once."""
    fleet = Fleet()
    fleet.add(ServedModel("m", created_s=1))

    fleet.model("m").replace_replicas([replica("r1")])
    with_replica = fleet.model("m").state
    fleet.model("m").replace_replicas([])

    assert with_replica is ModelState.READY
    assert fleet.model("m").state is ModelState.STARTING

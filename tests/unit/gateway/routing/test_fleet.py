"""Tests of the fleet: which models and replicas it has, and what stays when they change."""

import pytest

from gateway.errors.request import ModelNotFound
from gateway.errors.upstream import ModelUnavailable
from gateway.routing.fleet import Fleet, ModelState, Replica, ServedModel
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata


def replica(name: str, max_model_len: int = 512) -> Replica:
    """A replica with that id."""
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


def test_a_model_is_found_by_its_name_only() -> None:
    """A known name gives the model; any other name raises."""
    fleet, model = fleet_with_model()
    assert fleet.model("m") is model
    with pytest.raises(ModelNotFound):
        fleet.model("M")


def test_a_removed_model_is_not_found() -> None:
    """Removing a model twice is harmless."""
    fleet, model = fleet_with_model()
    fleet.remove(model)
    fleet.remove(model)
    with pytest.raises(ModelNotFound):
        fleet.model("m")


def test_known_replicas_stay_when_the_set_changes() -> None:
    """A replica that stays is the same object, so requests that hold it are not affected."""
    fleet, model = fleet_with_model()
    fleet.model("m").replace_replicas([replica("a"), replica("b")])
    stays = model.replicas["a"]
    fleet.model("m").replace_replicas([replica("a"), replica("c")])
    assert list(model.replicas) == ["a", "c"]
    assert model.replicas["a"] is stays


def test_removing_a_replaced_model_keeps_its_successor() -> None:
    """A renamed application exists twice for a while; removing the old one keeps the new one."""
    fleet, former = fleet_with_model()
    later = ServedModel("m", created_s=2)
    fleet.add(later)
    fleet.remove(former)
    assert fleet.model("m") is later


def test_an_unknown_name_is_unavailable_until_all_models_are_known() -> None:
    """While models are being deployed, clients are told to retry."""
    fleet = Fleet()
    fleet.is_settled = False
    with pytest.raises(ModelUnavailable):
        fleet.model("m")


def test_the_context_length_is_known_while_an_engine_runs() -> None:
    """The longest context of the replicas counts; without replicas there is none."""
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
def test_the_condition_of_a_model_is_in_words(state: ModelState, words: str) -> None:
    """Clients are told the state of a model without replicas in plain words."""
    assert ServedModel("m", created_s=1, state=state).condition == words


def test_a_model_is_ready_from_its_first_replica_to_its_last() -> None:
    """The state follows replicas at once, before Serve's status is polled again."""
    fleet = Fleet()
    fleet.add(ServedModel("m", created_s=1))

    fleet.model("m").replace_replicas([replica("r1")])
    with_replica = fleet.model("m").state
    fleet.model("m").replace_replicas([])

    assert with_replica is ModelState.READY
    assert fleet.model("m").state is ModelState.STARTING

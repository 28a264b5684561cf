"""Check of HAProxy's limit against the requests that the gateway holds."""

import pytest

from gateway.config.serving_options import ServingOptions
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.serving.connection_check import ConnectionCheck
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata

SLOTS = 8
FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=1024, block_size=16, max_sequences=SLOTS, max_model_len=512
)
METADATA = ReplicaMetadata(model="m", host="h", port=1, key="k", facts=FACTS)


def model(name: str) -> ServedModel:
    """A model with one replica, of which a router queues 100 requests."""
    options = ServingOptions.model_validate({"queue": {"max_requests": 100}})
    made = ServedModel(name, created_s=7, options=options)
    made.replace_replicas([Replica(f"{name}-replica", METADATA)])
    return made


def test_a_low_limit_is_logged_once_for_each_set_of_models(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The line has both numbers, and what to do."""
    fleet = Fleet()
    fleet.add(model("a"))
    check = ConnectionCheck(fleet)

    check.check(200 + SLOTS, routers=2)
    assert caplog.messages == []

    for _ in range(2):
        check.check(199 + SLOTS, routers=2)
    assert len(caplog.messages) == 1
    assert f"accepts {199 + SLOTS} connections" in caplog.messages[0]
    assert f"hold up to {200 + SLOTS} requests" in caplog.messages[0]
    assert "LimitNOFILE" in caplog.messages[0]

    fleet.add(model("b"))
    for _ in range(2):
        check.check(199 + SLOTS, routers=2)
    assert len(caplog.messages) == 2


def test_nothing_is_logged_while_models_are_unknown(caplog: pytest.LogCaptureFixture) -> None:
    """A router finds them one after the other when it starts."""
    fleet = Fleet()
    fleet.is_settled = False
    fleet.add(model("a"))

    ConnectionCheck(fleet).check(1, routers=1)

    assert caplog.messages == []

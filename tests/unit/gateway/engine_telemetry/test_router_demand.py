"""What routers hold by project, as an engine passes it on."""

from gateway.engine_telemetry.router_demand import EXPIRY_S, RouterDemand
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry.demand import Demand
from gateway.telemetry.facts import EngineFacts
from tests.unit.conftest import Clock

FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=1, block_size=1, max_sequences=1, max_model_len=1
)


def test_changes_are_published_once(clock: Clock) -> None:
    """By router, of those that have changed; the end of what one holds is a change, too."""
    demands = RouterDemand(clock)
    demands.record(Demand(router="x", projects={"a": 1}))
    demands.record(Demand(router="y", requests=3))
    first, again = demands.pop_held(), demands.pop_held()
    demands.record(Demand(router="x"))
    assert first == {"x": {"a": 1}}
    assert again is None
    assert demands.pop_held() == {"x": {}}
    assert demands.held == {}


def test_a_router_that_is_gone_holds_nothing(clock: Clock) -> None:
    """After a few seconds, and others are told."""
    demands = RouterDemand(clock)
    demands.record(Demand(router="x", projects={"a": 1}))
    demands.pop_held()
    clock.now_s += EXPIRY_S + 1
    assert demands.pop_held() == {"x": {}}
    assert demands.held == {}


def test_the_tracker_repeats_it_to_all_routers(clock: Clock) -> None:
    """At once if it has changed, and in every snapshot."""
    tracker, calls = EngineTracker(FACTS, clock), list[None]()
    tracker.pop_update()
    tracker.add_listener(lambda: calls.append(None))
    tracker.record_demand(Demand(router="x", projects={"a": 1}))
    update = tracker.pop_update()
    tracker.record_demand(Demand(router="x", projects={"a": 1}))
    assert update is not None
    assert update.held == tracker.snapshot().held == {"x": {"a": 1}}
    assert len(calls) == 1

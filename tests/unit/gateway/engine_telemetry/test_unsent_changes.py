"""Changes at an engine that routers have not been sent."""

from gateway.engine_telemetry.router_demand import RouterDemand
from gateway.engine_telemetry.unsent_changes import UnsentChanges
from gateway.engine_telemetry.usage_meter import UsageMeter
from gateway.kvcache.shadow_cache import ShadowCache
from gateway.telemetry.facts import EngineFacts
from gateway.telemetry.update import AdapterState, Load

LOAD = Load(running=1, waiting=0, pending_tokens=0, free_tokens=9)
FACTS = EngineFacts(
    engine="sim", routes=(), kv_tokens=9, block_size=1, max_sequences=1, max_model_len=9
)


def unsent() -> UnsentChanges:
    """An engine that has just started."""
    usage = UsageMeter(FACTS, lambda: None)
    return UnsentChanges(ShadowCache(9), usage, RouterDemand(lambda: 0.0))


def test_a_change_is_sent_once() -> None:
    """What has been popped is not popped again, until it changes."""
    changes = unsent()
    changes.accepted.append(7)
    changes.adapters = AdapterState(loaded=["a"])

    first = changes.pop(LOAD, 0.0)
    assert first is not None
    assert (first.accepted, first.load, first.adapters) == ([7], LOAD, AdapterState(loaded=["a"]))
    assert changes.pop(LOAD, 0.0) is None

    changes.is_draining = True
    second = changes.pop(LOAD, 0.0)
    assert second is not None
    assert (second.is_draining, second.load, second.adapters) == (True, None, None)
    assert changes.pop(LOAD, 0.0) is None


def test_a_snapshot_marks_nothing_as_sent() -> None:
    """It is for one new router: the others have still to be sent the changes."""
    changes = unsent()
    changes.accepted.append(7)

    assert changes.snapshot(LOAD, 0.0, [7, 8]).accepted == [7, 8]
    update = changes.pop(LOAD, 0.0)
    assert update is not None
    assert update.accepted == [7]

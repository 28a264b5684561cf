"""Facts, dispatches and updates for tests of an engine's tracker."""

from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.facts import EngineFacts
from gateway.telemetry.update import Finished, Update, pack_keys

KEY_BYTES = 40


def engine_facts(kv_tokens: int) -> EngineFacts:
    """Facts of an engine with a KV cache of `kv_tokens`."""
    return EngineFacts(
        engine="fake",
        routes=(),
        kv_tokens=kv_tokens,
        block_size=16,
        max_sequences=8,
        max_model_len=1000,
    )


def dispatch(number: int, *keys: int, reply_start: bytes | None = None) -> Dispatch:
    """Dispatch of a request with 40 canonical bytes of prompt per key, and its own priority."""
    return Dispatch(
        id=number,
        keys=pack_keys(keys),
        key_bytes=KEY_BYTES,
        prompt_bytes=len(keys) * KEY_BYTES,
        seed=7,
        reply_start=reply_start,
        priority=1000 + number,
    )


def sent(tracker: EngineTracker) -> Update:
    """The update that is due; there must be one."""
    update = tracker.pop_update()
    assert update is not None
    return update


def finished(tracker: EngineTracker) -> Finished:
    """The only finished request."""
    (request,) = sent(tracker).finished
    return request

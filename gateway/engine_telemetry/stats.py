"""Load of an engine, as it reports it to the autoscaling policy through Ray Serve."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import msgspec

from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry.demand import Demand
from gateway.telemetry.facts import EngineFacts

R = TypeVar("R", bound=Hashable)


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Load of one engine."""

    running: float
    """Sequences that have started."""
    waiting: float
    """Sequences that have not started."""
    slots: float
    """Most sequences that may run at the same time."""
    kv_tokens: float
    """Tokens that fit into its KV cache; 0 if it has none."""
    kv_used_tokens: float
    """Tokens of the KV cache that running sequences use."""
    prompts: float
    """Prompts not computed yet. Batch prompts are left out if interactive ones overtake them."""
    prefill_backlog_s: float
    """Seconds of prefill left to do for these prompts."""
    prefill_s_per_s: float
    """Seconds of prefill that arrive per second."""
    service_s: float
    """Mean seconds that a request occupies its slot; 0 if unknown."""
    held: float
    """Interactive sequences that routers hold back for this engine."""
    held_prefill_s: float
    """Seconds of prefill that those will take."""
    held_batch: float
    """Batch sequences that routers hold back for it."""
    start_s: float
    """Seconds that its start took."""

    @property
    def is_busy(self) -> bool:
        """Whether the engine has work, or a router holds some back for it."""
        return bool(self.running or self.waiting or self.held or self.held_batch)

    def as_metrics(self) -> dict[str, float]:
        """Metrics by name, the form in which Serve collects them."""
        return msgspec.structs.asdict(self)


def engine_stats(
    facts: EngineFacts, tracker: EngineTracker, in_flight: int, held: Demand, start_s: float
) -> EngineStats:
    """Make the stats of an engine that works on `in_flight` HTTP requests.

    The tracker may know fewer requests: those that generate no tokens may never reach it.
    """
    load, meter = tracker.load, tracker.meter
    prompts, prompt_tokens = tracker.prefill_backlog
    return EngineStats(
        running=load.running,
        waiting=max(load.waiting, in_flight - load.running),
        slots=facts.max_sequences,
        kv_tokens=facts.kv_tokens,
        kv_used_tokens=facts.kv_tokens - load.free_tokens if facts.kv_tokens else 0,
        prompts=prompts,
        prefill_backlog_s=prompt_tokens * meter.prefill_s,
        prefill_s_per_s=meter.prefill_s_per_s,
        service_s=meter.service_s,
        held=held.requests,
        held_prefill_s=held.prefill_tokens * meter.prefill_s,
        held_batch=held.batch_requests,
        start_s=start_s,
    )


def read_stats(metrics: Mapping[str, Mapping[R, float]]) -> dict[R, EngineStats]:
    """Return the stats of each replica that reported all of them.

    `metrics`: values by metric name, then by replica.
    """
    replicas = metrics.get("slots", {}).keys()
    reported = {
        replica: {name: metrics[name][replica] for name in _FIELDS if replica in metrics[name]}
        for replica in (replicas if metrics.keys() >= _FIELDS else ())
    }
    return {
        replica: EngineStats(**values)
        for replica, values in reported.items()
        if len(values) == len(_FIELDS)
    }


_FIELDS = frozenset(EngineStats.__struct_fields__)

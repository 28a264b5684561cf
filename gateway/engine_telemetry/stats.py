"""What an engine says of its load to whoever decides how many of them there are."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import msgspec

from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry import Demand, EngineFacts

R = TypeVar("R", bound=Hashable)


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's load."""

    running: float
    """Sequences that have started."""
    waiting: float
    """Sequences that have not."""
    slots: float
    """Sequences it may run at the same time."""
    kv_tokens: float
    """Tokens its KV cache has room for; 0 where it has none."""
    kv_used_tokens: float
    """Tokens of those that running sequences use."""
    prompts: float
    """Prompts that are not computed yet, those of batch requests left out that others pass."""
    prefill_backlog_s: float
    """Seconds of prefill left to do for these."""
    prefill_s_per_s: float
    """Seconds of prefill that arrive in a second."""
    service_s: float
    """Seconds that a request has its slot, on average; 0: not known."""
    held: float
    """Interactive sequences that routers hold back for this engine."""
    held_prefill_s: float
    """Seconds of prefill they will take."""
    held_batch: float
    """Batch sequences that routers hold back for it."""
    start_s: float
    """Seconds its start took."""

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to do, here or in a router."""
        return bool(self.running or self.waiting or self.held or self.held_batch)

    def as_metrics(self) -> dict[str, float]:
        """As Serve carries them."""
        return msgspec.structs.asdict(self)


def engine_stats(
    facts: EngineFacts, report: EngineTracker, in_flight: int, held: Demand, start_s: float
) -> EngineStats:
    """The stats of an engine that works on `in_flight` HTTP requests.

    Not all of them are in its report: what makes no tokens may pass it by.
    """
    load, meter = report.load, report.meter
    prompts, prompt_tokens = report.backlog
    return EngineStats(
        running=load.running,
        waiting=max(load.waiting, in_flight - load.running),
        slots=facts.max_sequences,
        kv_tokens=facts.kv_tokens,
        kv_used_tokens=facts.kv_tokens - load.free_tokens if facts.kv_tokens else 0,
        prompts=prompts,
        prefill_backlog_s=prompt_tokens * meter.prefill_s,
        prefill_s_per_s=meter.arriving,
        service_s=meter.service_s,
        held=held.requests,
        held_prefill_s=held.prefill_tokens * meter.prefill_s,
        held_batch=held.batch_requests,
        start_s=start_s,
    )


def read_stats(metrics: Mapping[str, Mapping[R, float]]) -> dict[R, EngineStats]:
    """The stats of each replica that has told all of them; `metrics`: by name, then by replica."""
    replicas = metrics.get("slots", {}).keys()
    told = {
        replica: {name: metrics[name][replica] for name in _FIELDS if replica in metrics[name]}
        for replica in (replicas if metrics.keys() >= _FIELDS else ())
    }
    return {
        replica: EngineStats(**values)
        for replica, values in told.items()
        if len(values) == len(_FIELDS)
    }


_FIELDS = frozenset(EngineStats.__struct_fields__)

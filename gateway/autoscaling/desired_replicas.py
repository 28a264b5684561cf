"""Number of replicas that a load needs.

Method: the largest of four terms, each in replicas.

- *sequences*: the sequences in the engines, divided by the slots that should be used; plus the work
  of the batch requests that routers hold, divided by the time in which it should be done.
- *KV cache*: the tokens in use, divided by the room that should be used.
- *prefill*: the seconds of prefill that arrive per second, divided by the share of its time that an
  engine should spend on prefill.
- *wait*: how long interactive requests wait. The seconds until the held ones have had their turn,
  prefill and answer, divided by the longest acceptable wait; plus the prefill queued in the
  engines, divided by that wait or by the time a start takes, whichever is longer: work that is done
  before another replica could help is no reason to start one. A prompt cannot be split between
  replicas, so this term is at most one replica for each waiting request, plus one.

A held interactive request counts by how long it waits and not as a sequence: the queue is bounded
in seconds, so the shorter the requests, the more of them it holds. Batch requests can wait, so they
count only as work.
"""

from collections.abc import Collection
from dataclasses import dataclass

from gateway.engine_telemetry.stats import EngineStats

BATCH_DRAIN_S = 60.0
"""Seconds in which held batch requests should be done, unless starts are slow."""
BATCH_DRAIN_STARTS = 2.0
"""The same as a multiple of the time a start takes; the longer of the two applies."""


@dataclass(frozen=True, slots=True)
class ScalingTargets:
    """How busy a model's replicas should be."""

    target_utilization: float
    """Share of a replica's capacity that should be used."""
    max_wait_s: float
    """Seconds that a request may wait for its turn."""


@dataclass(frozen=True, slots=True)
class DesiredReplicas:
    """Replicas that a load needs, unrounded, for each resource."""

    sequences: float = 0.0
    kv_cache: float = 0.0
    prefill: float = 0.0
    wait: float = 0.0
    without_backlog: float = 0.0
    """The need without queued work, which grows only because replicas are missing."""

    @property
    def total(self) -> float:
        """The largest need."""
        return max(self.sequences, self.kv_cache, self.prefill, self.wait)

    @property
    def bottleneck(self) -> str:
        """The resource with the largest need, for the log."""
        needs = {
            "sequences": self.sequences,
            "KV cache": self.kv_cache,
            "arriving prefill": self.prefill,
            "wait": self.wait,
        }
        return max(needs, key=needs.__getitem__)


NO_REPLICAS = DesiredReplicas()


def desired_replicas(engines: Collection[EngineStats], targets: ScalingTargets) -> DesiredReplicas:
    """Replicas that the load of these engines needs: at least one engine, all taken to be alike."""
    if not any(engine.is_busy for engine in engines):
        return NO_REPLICAS  # whatever arrived lately
    share = targets.target_utilization
    slots = share * sum(engine.slots for engine in engines) / len(engines)
    kv_tokens = share * sum(engine.kv_tokens for engine in engines) / len(engines)
    start_s = max(engine.start_s for engine in engines)
    running = sum(engine.running for engine in engines)
    held = sum(_held_sequences(engine) for engine in engines)
    sequences = held + running + sum(engine.waiting for engine in engines)
    batch_s = sum(_drain_s(engine, engine.held_batch) for engine in engines)
    kv_cache = _ratio(sum(engine.kv_used_tokens for engine in engines), kv_tokens)
    prefill = sum(engine.prefill_s_per_s for engine in engines) / share
    batch_drain_s = max(BATCH_DRAIN_S, BATCH_DRAIN_STARTS * start_s)
    return DesiredReplicas(
        sequences=_ratio(sequences, slots) + batch_s / batch_drain_s,
        kv_cache=kv_cache,
        prefill=prefill,
        wait=_wait_term(engines, targets.max_wait_s, start_s),
        without_backlog=max(_ratio(running, slots), kv_cache, prefill),
    )


def _wait_term(engines: Collection[EngineStats], max_wait_s: float, start_s: float) -> float:
    held_s = sum(engine.held_prefill_s + _drain_s(engine, engine.held) for engine in engines)
    prefill_s = sum(engine.prefill_backlog_s for engine in engines)
    waiting = sum(engine.prompts + engine.held for engine in engines)
    return min(held_s / max_wait_s + prefill_s / max(max_wait_s, start_s), waiting + 1)


def _drain_s(engine: EngineStats, held: float) -> float:
    """Seconds until a full engine has served this many held sequences."""
    return held * engine.service_s / max(1.0, engine.running)


def _held_sequences(engine: EngineStats) -> float:
    """Held requests that count as sequences: those of an engine without a measured service time."""
    return 0.0 if engine.service_s else engine.held + engine.held_batch


def _ratio(load: float, capacity: float) -> float:
    return load / capacity if capacity else 0.0

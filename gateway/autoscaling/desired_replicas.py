"""How many replicas a load needs.

Method: the most of four terms, each in replicas.

- *sequences*: those in the engines over the slots that should be taken, and beside these the work
  of the batch requests that routers hold, over the time in which it should be done.
- *KV cache*: the tokens in use over the room that should be taken.
- *prefill*: the seconds of prefill that arrive in a second over those an engine should spend on it.
- *wait*: how long interactive requests wait. The seconds until those that are held have had their
  turn, prefill and answer, over the longest wait that is wanted; the prefills that engines have
  before them over the same, or over what a start takes, if that is longer: what is done before
  another replica could help is no reason to start one. A prompt cannot be shared out: no more than
  one replica for each that waits, and one for the next.

A held interactive request counts by how long it waits and not as a sequence: the queue is bounded
in seconds, and holds the more of them the shorter they are. Batch requests can wait, and so are
only work.
"""

from collections.abc import Collection
from dataclasses import dataclass

from gateway.engine_telemetry.stats import EngineStats

BATCH_S = 60.0
"""In which the batch requests that are held should be done, or in twice what a start takes."""
STARTS = 2.0


@dataclass(frozen=True, slots=True)
class ScalingTargets:
    """What a model's replicas are to be like."""

    target_utilization: float
    """How full, as a share of what they can do."""
    max_wait_s: float
    """How long a request may wait for its turn."""


@dataclass(frozen=True, slots=True)
class DesiredReplicas:
    """Replicas that a load needs, unrounded, by what it needs them for."""

    sequences: float = 0.0
    kv: float = 0.0
    prefill: float = 0.0
    wait: float = 0.0
    lasting: float = 0.0
    """What of it does not grow with the time that the load has to wait for more replicas."""

    @property
    def total(self) -> float:
        """The most of all."""
        return max(self.sequences, self.kv, self.prefill, self.wait)

    @property
    def cause(self) -> str:
        """What needs the most."""
        terms = {
            "sequences": self.sequences,
            "KV cache": self.kv,
            "arriving prefill": self.prefill,
            "wait": self.wait,
        }
        return max(terms, key=terms.__getitem__)


NOTHING = DesiredReplicas()


def need(engines: Collection[EngineStats], goals: ScalingTargets) -> DesiredReplicas:
    """What the load of these engines, at least one, needs; they are taken to be alike."""
    if not any(engine.is_busy for engine in engines):
        return NOTHING  # whatever came lately
    share = goals.target_utilization
    slots = share * sum(engine.slots for engine in engines) / len(engines)
    room = share * sum(engine.kv_tokens for engine in engines) / len(engines)
    start_s = max(engine.start_s for engine in engines)
    running = sum(engine.running for engine in engines)
    held = sum(_unmeasured(engine) for engine in engines)
    sequences = held + running + sum(engine.waiting for engine in engines)
    batch_s = sum(_turns_s(engine, engine.held_batch) for engine in engines)
    kv = _over(sum(engine.kv_used_tokens for engine in engines), room)
    prefill = sum(engine.prefill_s_per_s for engine in engines) / share
    return DesiredReplicas(
        sequences=_over(sequences, slots) + batch_s / max(BATCH_S, STARTS * start_s),
        kv=kv,
        prefill=prefill,
        wait=_wait(engines, goals.max_wait_s, start_s),
        lasting=max(_over(running, slots), kv, prefill),
    )


def _wait(engines: Collection[EngineStats], max_wait_s: float, start_s: float) -> float:
    held_s = sum(engine.held_prefill_s + _turns_s(engine, engine.held) for engine in engines)
    begun_s = sum(engine.prefill_backlog_s for engine in engines)
    waiting = sum(engine.prompts + engine.held for engine in engines)
    return min(held_s / max_wait_s + begun_s / max(max_wait_s, start_s), waiting + 1)


def _turns_s(engine: EngineStats, held: float) -> float:
    """Seconds until so many that are held for an engine, which is full, have had their turn."""
    return held * engine.service_s / max(1.0, engine.running)


def _unmeasured(engine: EngineStats) -> float:
    """Sequences held for an engine that does not know yet how long one takes."""
    return 0.0 if engine.service_s else engine.held + engine.held_batch


def _over(load: float, capacity: float) -> float:
    return load / capacity if capacity else 0.0

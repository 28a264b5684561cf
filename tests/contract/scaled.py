"""An autoscaled model in virtual time: simulated replicas, a queue, the real policy."""

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from deployments.autoscaling import LOOK_BACK_S, EngineScalingPolicy
from gateway.engine_telemetry.stats import EngineStats, engine_stats
from gateway.routing.engine_limits import BATCH_RESERVE, ENGINE_QUEUE_SHARE
from gateway.simulation.batching import EngineProfile
from gateway.simulation.settings import SimulationSettings
from gateway.simulation.timeline import Timeline
from gateway.simulation.trace import TraceRequest, trace_request
from gateway.simulation.virtual_engine import SimulatedOutcome, VirtualEngine
from gateway.telemetry.demand import Demand
from gateway.telemetry.dispatch import Dispatch

FIGURES = EngineProfile(
    kv_blocks=8192,
    block_size=16,
    max_running=16,
    step_tokens=4096,
    step_s=0.012,
    step_s_per_prefill_token=0.0001,
    step_s_per_sequence=0.0002,
)
SETTING = SimulationSettings(replicas=1, engine=FIGURES)
QUEUE_S = 5.0
"""How long an interactive request may be held."""
TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Want:
    """A request that arrives."""

    arrived_s: float
    prompt_tokens: int = 200
    output_tokens: int = 320
    """Some 5 seconds of a replica that is not full."""
    is_batch: bool = False


@dataclass(slots=True, eq=False)
class _Replica:
    engine: VirtualEngine
    held: deque[Want] = field(default_factory=deque)
    told: deque[EngineStats] = field(default_factory=lambda: deque(maxlen=int(LOOK_BACK_S)))

    def has_room(self, *, is_batch: bool) -> bool:
        load, slots = self.engine.tracker.load, FIGURES.max_running
        most = slots * (1 - BATCH_RESERVE) if is_batch else slots * (1 + ENGINE_QUEUE_SHARE)
        return load.running + load.waiting < most and not load.waiting

    def stats(self, start_s: float) -> EngineStats:
        others = [want for want in self.held if not want.is_batch]
        held = Demand(
            requests=len(others),
            prefill_tokens=sum(want.prompt_tokens for want in others),
            batch_requests=len(self.held) - len(others),
        )
        return engine_stats(SETTING.facts, self.engine.tracker, 0, held, start_s)


class ScaledModel:
    """One model under load; `targets` and `running` record its numbers of replicas."""

    def __init__(
        self,
        *,
        start_s: float = 10.0,
        least: int = 1,
        most: int = 20,
        target_utilization: float = 0.7,
        scale_down_delay_s: float = 300.0,
    ) -> None:
        self._timeline = Timeline()
        self._policy = EngineScalingPolicy(
            target_utilization, 2.0, scale_down_delay_s, self._timeline
        )
        self._start_s, self._least, self._most = start_s, least, most
        self._target = least
        self._replicas = [self._replica() for _ in range(least)]
        self._coming = 0
        self._serial = 0
        self._until_s = 0.0
        self.targets: list[tuple[float, int]] = [(0.0, least)]
        """Every change."""
        self.rejected = 0

    def wake(self) -> None:
        """What Serve does for a model at zero that is asked for."""
        self._scale(1)
        self._timeline.run()

    def run(self, load: Iterator[Want], until_s: float) -> None:
        """Let the load come, and time pass."""
        self._until_s = until_s

        def arrive(want: Want) -> None:
            self._take(want)
            await_next()

        def await_next() -> None:
            if (want := next(load, None)) and want.arrived_s < until_s:
                self._timeline.call_at(want.arrived_s, partial(arrive, want))

        await_next()
        self._timeline.call_at(self._timeline() + TICK_S, self._tick)
        self._timeline.run()

    def target_at(self, time_s: float) -> int:
        """How many replicas there were to be at a time."""
        return [target for changed_s, target in self.targets if changed_s <= time_s][-1]

    @property
    def highest(self) -> int:
        """The most there were to be."""
        return max(target for _, target in self.targets)

    @property
    def turns_s(self) -> list[float]:
        """When the direction of change was another than before."""
        steps = [
            (after_s, after > before)
            for (_, before), (after_s, after) in itertools.pairwise(self.targets)
        ]
        return [
            time_s for (_, was_up), (time_s, is_up) in itertools.pairwise(steps) if is_up != was_up
        ]

    def _replica(self) -> _Replica:
        replica = _Replica(VirtualEngine(SETTING, self._timeline, lambda _: self._release(replica)))
        return replica

    def _take(self, want: Want) -> None:
        best = min(self._replicas, key=lambda r: (len(r.held), _pending(r), _requests(r)))
        if best.held or not best.has_room(is_batch=want.is_batch):
            best.held.append(want)
        else:
            self._send(best, want)

    def _send(self, replica: _Replica, want: Want) -> None:
        self._serial += 1
        first = self._serial * 1_000_000  # no prompt begins as another
        ids = range(first, first + want.prompt_tokens // 512)
        now_s = self._timeline()
        request: TraceRequest = trace_request(now_s, want.prompt_tokens, want.output_tokens, ids)
        dispatch = Dispatch(id=self._serial, is_batch=want.is_batch)
        replica.engine.submit(dispatch, SimulatedOutcome(request, 0), lambda: None)

    def _release(self, replica: _Replica) -> None:
        while replica.held and replica.has_room(is_batch=replica.held[0].is_batch):
            self._send(replica, replica.held.popleft())

    def _tick(self) -> None:
        now_s = self._timeline()
        for replica in self._replicas:
            late = [w for w in replica.held if not w.is_batch and now_s - w.arrived_s > QUEUE_S]
            self.rejected += len(late)
            for want in late:
                replica.held.remove(want)
            replica.told.append(replica.stats(self._start_s))
        self._scale(self._policy(self._context())[0])
        if now_s < self._until_s:
            self._timeline.call_at(now_s + TICK_S, self._tick)

    def _scale(self, target: int) -> None:
        if target == self._target:
            return
        now_s = self._timeline()
        for _ in range(target - max(self._target, len(self._replicas) + self._coming)):
            self._coming += 1
            self._timeline.call_at(now_s + self._start_s, self._come)
        leaving, self._replicas = self._replicas[target:], self._replicas[:target]
        self._target = target
        self.targets.append((now_s, target))
        for want in [want for replica in leaving for want in replica.held]:
            self._take(want)

    def _come(self) -> None:
        self._coming -= 1
        if len(self._replicas) < self._target:
            self._replicas.append(self._replica())
            held = [want for replica in self._replicas for want in replica.held]
            for replica in self._replicas:
                replica.held.clear()
            for want in held:
                self._take(want)

    def _context(self) -> Any:
        points = [SimpleNamespace(timestamp=self._timeline())]
        told = {i: list(r.told) for i, r in enumerate(self._replicas) if r.told}
        metrics = {
            name: {
                i: sum(getattr(s, name) for s in stats) / len(stats) for i, stats in told.items()
            }
            for name in EngineStats.__struct_fields__
        }
        return SimpleNamespace(
            app_name="scaled",
            running_replicas=list(range(len(self._replicas))),
            target_num_replicas=self._target,
            aggregated_metrics=metrics,
            raw_metrics={"slots": dict.fromkeys(told, points)},
            total_queued_requests=0.0,
            capacity_adjusted_min_replicas=self._least,
            capacity_adjusted_max_replicas=self._most,
        )


def poisson(
    rate: Callable[[float], float], make: Callable[[float], Want], seed: int = 1
) -> Iterator[Want]:
    """Requests at random times, `rate(time)` per second."""
    rng, time_s = random.Random(seed), 0.0  # noqa: S311 - load, not secrets
    while True:
        time_s += rng.expovariate(max(rate(time_s), 1e-3))
        yield make(time_s)


def _pending(replica: _Replica) -> int:
    return replica.engine.tracker.load.pending_tokens


def _requests(replica: _Replica) -> int:
    load = replica.engine.tracker.load
    return load.running + load.waiting

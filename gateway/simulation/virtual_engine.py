"""Engine in virtual time: the model of a replica, and the telemetry that it sends.

Steps that only decode are merged, and shortened when a request arrives: the result is the
same as step by step, at a small part of the cost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gateway.engine_telemetry.tracked_request import TrackedRequest
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.engine_telemetry.usage_meter import CallUsage
from gateway.simulation.batching import BatchingReplica, SimulatedSequence
from gateway.simulation.settings import SimulationSettings
from gateway.simulation.timeline import Timeline
from gateway.simulation.trace import TraceRequest
from gateway.telemetry.demand import Demand
from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.update import Update

UNLIMITED_STEPS = 1 << 30


@dataclass(slots=True, eq=False)
class SimulatedOutcome:
    """Outcome of one request."""

    request: TraceRequest
    replica: int
    cached_tokens: int = 0
    first_token_s: float = 0.0
    finished_s: float = 0.0


@dataclass(slots=True, eq=False)
class _RunningRequest:
    outcome: SimulatedOutcome
    tracked: TrackedRequest
    call: CallUsage | None
    on_finished: Callable[[], None]
    scheduled_s: float = 0.0


class VirtualEngine:
    """One engine; `publish` delivers its telemetry to the routers."""

    def __init__(
        self, settings: SimulationSettings, timeline: Timeline, publish: Callable[[Update], None]
    ) -> None:
        self._batching = BatchingReplica(settings.engine)
        self._settings = settings
        self._timeline = timeline
        self._publish = publish
        self._requests: dict[SimulatedSequence, _RunningRequest] = {}
        self._queue: dict[SimulatedSequence, None] = {}
        """Sequences that wait for their first step."""
        self._step_start_s = self._step_end_s = 0.0
        self._is_stepping = False
        self._end_number = 0
        """Number of the latest scheduled end of a step; earlier ones are void."""
        self._published_s = -settings.telemetry_every_s
        self._is_publishing = False
        self.tracker = EngineTracker(
            settings.facts, timeline, lambda: len(self._queue), time_of_day=timeline
        )

    def submit(
        self, dispatch: Dispatch, outcome: SimulatedOutcome, on_finished: Callable[[], None]
    ) -> None:
        """Start a request; call `on_finished` at its last token."""
        sequence = simulated_sequence(outcome.request)
        sequence.priority = dispatch.priority if self._settings.is_priority else 0
        call = self.tracker.usage.open_call(dispatch)
        tracked = self.tracker.record_arrival(dispatch, sequence.prompt_tokens, call=call)
        self._requests[sequence] = _RunningRequest(outcome, tracked, call, on_finished)
        self._queue[sequence] = None
        self._batching.submit(sequence)
        if self._is_stepping:
            end_s = self._step_start_s + self._batching.shorten_steps(
                self._timeline() - self._step_start_s
            )
            if end_s < self._step_end_s:
                self._schedule_step_end(end_s)
        else:
            self._begin_step()
        self._schedule_publishing()

    def record_demand(self, demand: Demand) -> None:
        """Record what a router holds back for the engine."""
        self.tracker.record_demand(demand)
        self._schedule_publishing()

    def _begin_step(self) -> None:
        duration_s = self._batching.begin_step(UNLIMITED_STEPS)
        self._is_stepping = duration_s is not None
        if duration_s is None:
            return
        self._step_start_s = self._timeline()
        for sequence in [sequence for sequence in self._queue if sequence.is_running]:
            del self._queue[sequence]
            self._requests[sequence].scheduled_s = self._step_start_s
        self._schedule_step_end(self._step_start_s + duration_s)

    def _schedule_step_end(self, end_s: float) -> None:
        self._end_number += 1
        self._step_end_s = end_s
        self._timeline.call_at(end_s, partial(self._end_step, self._end_number))

    def _end_step(self, number: int) -> None:
        if number != self._end_number:
            return
        now_s = self._timeline()
        result = self._batching.end_step()
        for sequence in result.started:
            request = self._requests[sequence]
            request.outcome.cached_tokens = sequence.cached_tokens
            request.outcome.first_token_s = now_s
            self.tracker.record_first_token(
                request.tracked, sequence.cached_tokens, request.scheduled_s
            )
        for sequence in result.finished:
            request = self._requests.pop(sequence)
            request.outcome.finished_s = now_s
            self.tracker.record_finished(request.tracked, sequence.output_tokens)
            if request.call is not None:
                self.tracker.usage.close_call(request.call)
            request.on_finished()
        self._begin_step()
        self._schedule_publishing()

    def _schedule_publishing(self) -> None:
        if not self._is_publishing:
            self._is_publishing = True
            due_s = self._published_s + self._settings.telemetry_every_s
            self._timeline.call_at(max(self._timeline(), due_s), self._publish_update)

    def _publish_update(self) -> None:
        self._is_publishing = False
        if update := self.tracker.pop_update():
            self._published_s = self._timeline()
            arrives_s = self._published_s + self._settings.telemetry_delay_s
            self._timeline.call_at(arrives_s, partial(self._publish, update))


def simulated_sequence(request: TraceRequest) -> SimulatedSequence:
    """Make the sequence of a request."""
    return SimulatedSequence(request.prompt.keys, request.prompt_tokens, request.output_tokens)

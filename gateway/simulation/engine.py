"""A replica of the lab: a batching engine on the lab's clock, and the telemetry it sends.

Steps that only decode are taken as one, and cut where a request arrives: the result is the same as
step by step, at a small part of the cost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gateway.engine_telemetry.tracked_request import TrackedRequest
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.simulation.batching import BatchingReplica, Run
from gateway.simulation.setting import LabSettings
from gateway.simulation.timeline import Timeline
from gateway.simulation.trace import TraceRequest
from gateway.telemetry import Dispatch, Update

MANY_STEPS = 1 << 30


@dataclass(slots=True, eq=False)
class Outcome:
    """What became of one request."""

    request: TraceRequest
    replica: int
    cached_tokens: int = 0
    first_token_s: float = 0.0
    ended_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Job:
    outcome: Outcome
    tracked: TrackedRequest
    finish: Callable[[], None]
    scheduled_s: float = 0.0


class LabEngine:
    """One replica; `publish` takes its telemetry to the routers."""

    def __init__(
        self, setting: LabSettings, timeline: Timeline, publish: Callable[[Update], None]
    ) -> None:
        self._batching = BatchingReplica(setting.engine)
        self._setting = setting
        self._timeline = timeline
        self._publish = publish
        self._jobs: dict[Run, _Job] = {}
        self._queue: dict[Run, None] = {}
        """Runs that wait for their first step."""
        self._began_s = self._ends_s = 0.0
        self._is_stepping = False
        self._plan = 0
        """Number of the latest planned end of a step; earlier ones are void."""
        self._told_s = -setting.telemetry_every_s
        self._is_telling = False
        self.report = EngineTracker(setting.facts, timeline, lambda: len(self._queue))

    def take(self, dispatch: Dispatch, outcome: Outcome, finish: Callable[[], None]) -> None:
        """Begin to answer a request; calls `finish` with its last token."""
        run = run_of(outcome.request)
        run.priority = dispatch.priority if self._setting.is_priority else 0
        tracked = self.report.arrive(dispatch, run.prompt_tokens)
        self._jobs[run] = _Job(outcome, tracked, finish)
        self._queue[run] = None
        self._batching.submit(run)
        if self._is_stepping:
            end_s = self._began_s + self._batching.cut(self._timeline() - self._began_s)
            if end_s < self._ends_s:
                self._plan_end(end_s)
        else:
            self._begin()
        self._tell_soon()

    def _begin(self) -> None:
        duration_s = self._batching.begin(MANY_STEPS)
        self._is_stepping = duration_s is not None
        if duration_s is None:
            return
        self._began_s = self._timeline()
        for run in [run for run in self._queue if run.is_running]:
            del self._queue[run]
            self._jobs[run].scheduled_s = self._began_s
        self._plan_end(self._began_s + duration_s)

    def _plan_end(self, end_s: float) -> None:
        self._plan += 1
        self._ends_s = end_s
        self._timeline.at(end_s, partial(self._end, self._plan))

    def _end(self, plan: int) -> None:
        if plan != self._plan:
            return
        now_s = self._timeline()
        result = self._batching.end()
        for run in result.started:
            job = self._jobs[run]
            job.outcome.cached_tokens = run.cached_tokens
            job.outcome.first_token_s = now_s
            self.report.start(job.tracked, run.cached_tokens, job.scheduled_s)
        for run in result.ended:
            job = self._jobs.pop(run)
            job.outcome.ended_s = now_s
            self.report.finish(job.tracked, run.output_tokens)
            job.finish()
        self._begin()
        self._tell_soon()

    def _tell_soon(self) -> None:
        if not self._is_telling:
            self._is_telling = True
            due_s = self._told_s + self._setting.telemetry_every_s
            self._timeline.at(max(self._timeline(), due_s), self._tell)

    def _tell(self) -> None:
        self._is_telling = False
        if update := self.report.take():
            self._told_s = self._timeline()
            arrives_s = self._told_s + self._setting.telemetry_delay_s
            self._timeline.at(arrives_s, partial(self._publish, update))


def run_of(request: TraceRequest) -> Run:
    """A request as the batching engine takes it."""
    return Run(request.prompt.keys, request.prompt_tokens, request.output_tokens)

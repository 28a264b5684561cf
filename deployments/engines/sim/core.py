"""Generation in a simulated engine: when the tokens of each completion are ready."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.engine_telemetry.tracked_request import TrackedRequest
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.simulation.batching import (
    BatchingReplica,
    EngineProfile,
    SimulatedSequence,
    StepResult,
)
from gateway.simulation.block_cache import BlockCache

CATCH_UP_STEPS = 32
"""Overdue steps made up for before other tasks of the event loop run."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Clock of a simulation, in seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(slots=True, eq=False)
class GenerationJob:
    """Generation of one completion."""

    run: SimulatedSequence
    tracked: TrackedRequest
    """Its handle in the engine's tracker."""
    completions: Sequence[bytes]
    """Its text, for the tracker, if a later prompt can contain it."""
    scheduled_s: float = 0.0
    """Time of its first step."""
    _awaited_tokens: int = 0
    _waiter: asyncio.Future[None] | None = None

    async def wait_for(self, tokens: int) -> int:
        """Wait for the first `tokens` tokens; the number of tokens by then."""
        while self.run.generated_tokens < tokens:
            self._awaited_tokens = tokens
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.run.generated_tokens

    def notify(self) -> None:
        """Resume `wait_for`, if its tokens are ready."""
        waiter = self._waiter
        if waiter is not None and self.run.generated_tokens >= self._awaited_tokens:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


class GenerationCore(Protocol):
    """Decides when the tokens of a completion are ready, and reports its progress."""

    def submit(self, job: GenerationJob) -> None:
        """Start a job."""

    def abort(self, job: GenerationJob) -> None:
        """Abort a job and free what it holds, unless it is complete."""

    def check(self) -> None:
        """Raise the error that has ended all generation, if any."""

    async def stop(self) -> None:
        """End all generation; incomplete jobs stay incomplete."""


class InstantCore:
    """Core whose tokens are ready at once, to measure everything around the engine.

    The cache fills and hits as usual; only no time passes.
    """

    def __init__(self, profile: EngineProfile, tracker: EngineTracker) -> None:
        self._cache = BlockCache(profile.kv_blocks)
        self._block_size = profile.block_size
        self._tracker = tracker

    def submit(self, job: GenerationJob) -> None:
        """Complete a job."""
        run = job.run
        # The last token of a prompt is always computed.
        whole = run.block_hashes[: (run.prompt_tokens - 1) // self._block_size]
        run.cached_tokens = self._cache.match(whole) * self._block_size
        self._cache.insert([*run.block_hashes, *run.output_block_hashes])
        run.computed_tokens, run.generated_tokens = run.prompt_tokens, run.output_tokens
        run.is_finished = True
        self._tracker.record_first_token(job.tracked, run.cached_tokens)
        self._tracker.record_finished(job.tracked, run.generated_tokens, job.completions)

    def abort(self, job: GenerationJob) -> None:
        """Do nothing: every job is complete."""

    def check(self) -> None:
        """Do nothing: nothing runs that could fail."""

    async def stop(self) -> None:
        """Do nothing: nothing runs."""


class PacedCore:
    """Core that steps a modelled replica, `time_scale` simulated seconds per second of the clock.

    Steps follow each other without a gap, however late this process is scheduled: overdue steps are
    made up for together, and a late one does not delay the next. Without jobs no step runs.
    """

    def __init__(
        self,
        replica: BatchingReplica,
        tracker: EngineTracker,
        clock: Clock,
        time_scale: float = 1.0,
    ) -> None:
        self._replica = replica
        self._tracker = tracker
        self._clock = clock
        self._time_scale = time_scale
        self._jobs: dict[SimulatedSequence, GenerationJob] = {}
        self._decoding: dict[SimulatedSequence, GenerationJob] = {}
        self._has_jobs = asyncio.Event()
        self._steps: asyncio.Task[None] | None = None

    def submit(self, job: GenerationJob) -> None:
        """Submit a job's run to the replica."""
        self._jobs[job.run] = job
        self._replica.submit(job.run)
        self._has_jobs.set()
        if self._steps is None:
            self._steps = asyncio.create_task(self._run_steps(), name="simulated-steps")

    def abort(self, job: GenerationJob) -> None:
        """Abort a job's run in the replica, unless it is complete."""
        if self._jobs.pop(job.run, None) is None:
            return
        self._decoding.pop(job.run, None)
        self._replica.abort(job.run)
        self._tracker.record_finished(job.tracked, job.run.generated_tokens, is_aborted=True)

    def check(self) -> None:
        """Raise the error that has ended the steps, if any."""
        if self._steps is not None and self._steps.done() and not self._steps.cancelled():
            self._steps.result()

    async def stop(self) -> None:
        """Stop the steps."""
        if self._steps is not None:
            self._steps.cancel()
            await asyncio.wait([self._steps])

    async def _run_steps(self) -> None:
        step_ends_s = self._clock.now()
        overdue_steps = 0
        while True:
            duration_s = self._replica.begin_step()
            if duration_s is None:
                self._has_jobs.clear()
                await self._has_jobs.wait()
                step_ends_s = self._clock.now()
                continue
            self._record_admitted(step_ends_s)
            step_ends_s += duration_s / self._time_scale
            delay_s = step_ends_s - self._clock.now()
            overdue_steps = overdue_steps + 1 if delay_s <= 0 else 0
            if delay_s > 0 or overdue_steps % CATCH_UP_STEPS == 0:
                await self._clock.sleep(max(0.0, delay_s))
            self._record_step(self._replica.end_step(), step_ends_s)

    def _record_admitted(self, now_s: float) -> None:
        for run in self._replica.admitted:
            self._jobs[run].scheduled_s = now_s
        if self._replica.admitted:
            self._tracker.record_load_change()

    def _record_step(self, result: StepResult, now_s: float) -> None:
        self._tracker.record_progress()
        for run in result.started:
            job = self._decoding[run] = self._jobs[run]
            self._tracker.record_first_token(job.tracked, run.cached_tokens, job.scheduled_s, now_s)
        for job in self._decoding.values():
            job.notify()
        for run in result.finished:
            job = self._jobs.pop(run)
            del self._decoding[run]
            self._tracker.record_finished(job.tracked, run.generated_tokens, job.completions)

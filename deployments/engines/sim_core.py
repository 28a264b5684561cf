"""When a simulated engine's tokens are ready: a modelled replica, stepped as time passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.engine_telemetry.tracked_request import TrackedRequest
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.simulation.batching import BatchingReplica, EngineSpeeds, Run, StepResult
from gateway.simulation.cache import BlockCache

CATCH_UP_STEPS = 32
"""Overdue steps that are made up for before anybody else has a turn."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as a simulation sees it, in seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(slots=True, eq=False)
class Job:
    """One answer on its way through a core."""

    run: Run
    tracked: TrackedRequest
    """What the engine's report knows it by."""
    reply: Sequence[bytes]
    """What the report has to know of the answer's text."""
    scheduled_s: float = 0.0
    """When it was first part of a step."""
    _awaited_tokens: int = 0
    _news: asyncio.Future[None] | None = None

    async def until(self, tokens: int) -> int:
        """Wait for the answer's first `tokens` tokens; how many of them there are by then."""
        while self.run.made_tokens < tokens:
            self._awaited_tokens = tokens
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        return self.run.made_tokens

    def tell(self) -> None:
        """Wake who waits, if there is what is waited for."""
        news = self._news
        if news is not None and self.run.made_tokens >= self._awaited_tokens:
            self._news = None
            if not news.done():
                news.set_result(None)


class Core(Protocol):
    """Decides when the tokens of an answer are ready, and reports what becomes of it."""

    def submit(self, job: Job) -> None:
        """Begin to work on an answer."""

    def abort(self, job: Job) -> None:
        """End the work on an answer and free what it holds, unless it is complete."""

    def check(self) -> None:
        """Raise when nothing will ever be ready again."""

    async def stop(self) -> None:
        """End all work; what is not complete never will be."""


class InstantCore:
    """Everything is ready at once: what is left to measure is the machinery around it.

    The cache fills and hits as it would; only time does not pass.
    """

    def __init__(self, estimates: EngineSpeeds, report: EngineTracker) -> None:
        self._cache = BlockCache(estimates.kv_blocks)
        self._block_size = estimates.block_size
        self._report = report

    def submit(self, job: Job) -> None:
        """Do all the work."""
        run = job.run
        # The last token of a prompt is always computed.
        whole = run.hashes[: (run.prompt_tokens - 1) // self._block_size]
        run.cached_tokens = self._cache.match(whole) * self._block_size
        self._cache.keep([*run.hashes, *run.answer_hashes])
        run.computed_tokens, run.made_tokens = run.prompt_tokens, run.output_tokens
        run.is_over = True
        self._report.start(job.tracked, run.cached_tokens)
        self._report.finish(job.tracked, run.made_tokens, job.reply)

    def abort(self, job: Job) -> None:
        """Nothing: it is complete."""

    def check(self) -> None:
        """Nothing: there is nothing that could break."""

    async def stop(self) -> None:
        """Nothing: there is nothing under way."""


class PacedCore:
    """Steps a replica on a clock, `time_scale` simulated seconds to each of the clock's.

    Steps follow each other without a gap, however late this process is woken: steps that are
    overdue are made up for together, and nothing that was late delays what comes after. While there
    is nothing to do, nothing is woken.
    """

    def __init__(
        self, replica: BatchingReplica, report: EngineTracker, clock: Clock, time_scale: float = 1.0
    ) -> None:
        self._replica = replica
        self._report = report
        self._clock = clock
        self._time_scale = time_scale
        self._jobs: dict[Run, Job] = {}
        self._decoding: dict[Run, Job] = {}
        self._is_wanted = asyncio.Event()
        self._steps: asyncio.Task[None] | None = None

    def submit(self, job: Job) -> None:
        """Hand an answer's run to the replica."""
        self._jobs[job.run] = job
        self._replica.submit(job.run)
        self._is_wanted.set()
        if self._steps is None:
            self._steps = asyncio.create_task(self._step_on(), name="simulated-steps")

    def abort(self, job: Job) -> None:
        """Take an answer's run out of the replica, unless it is complete."""
        if self._jobs.pop(job.run, None) is None:
            return
        self._decoding.pop(job.run, None)
        self._replica.abort(job.run)
        self._report.finish(job.tracked, job.run.made_tokens, is_aborted=True)

    def check(self) -> None:
        """Raise what has ended the steps."""
        if self._steps is not None and self._steps.done() and not self._steps.cancelled():
            self._steps.result()

    async def stop(self) -> None:
        """Make no more steps."""
        if self._steps is not None:
            self._steps.cancel()
            await asyncio.wait([self._steps])

    async def _step_on(self) -> None:
        step_ends_s = self._clock.now()
        overdue_steps = 0
        while True:
            duration_s = self._replica.begin()
            if duration_s is None:
                self._is_wanted.clear()
                await self._is_wanted.wait()
                step_ends_s = self._clock.now()
                continue
            self._note_admitted(step_ends_s)
            step_ends_s += duration_s / self._time_scale
            delay_s = step_ends_s - self._clock.now()
            overdue_steps = overdue_steps + 1 if delay_s <= 0 else 0
            if delay_s > 0 or overdue_steps % CATCH_UP_STEPS == 0:
                await self._clock.sleep(max(0.0, delay_s))
            self._deliver(self._replica.end(), step_ends_s)

    def _note_admitted(self, now_s: float) -> None:
        for run in self._replica.admitted:
            self._jobs[run].scheduled_s = now_s
        if self._replica.admitted:
            self._report.notify()

    def _deliver(self, result: StepResult, now_s: float) -> None:
        self._report.progress()
        for run in result.started:
            job = self._decoding[run] = self._jobs[run]
            self._report.start(job.tracked, run.cached_tokens, job.scheduled_s, now_s)
        for job in self._decoding.values():
            job.tell()
        for run in result.ended:
            job = self._jobs.pop(run)
            del self._decoding[run]
            self._report.finish(job.tracked, run.made_tokens, job.reply)

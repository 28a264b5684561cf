"""Liveness of an engine whose process answers: whether the engine itself still works.

vLLM's own check only looks at flags. So an engine is pinged: its core answers between two steps. A
ping counts as work that it has, and its answer as progress, like the end of a step. An engine that
makes no progress hangs, unless the step that it computes may take so long: four times the longest
step at its measured speed, or ten times the limit while nothing has been measured.
"""

import asyncio
import contextlib

from deployments.engines.server import RunningEngine
from gateway.serving.stall_limit import LONG_STEPS

PING_PERIOD_S = 5.0
UNMEASURED_FACTOR = 10.0


class EngineHangs(RuntimeError):
    """The engine does not work any more, although its process answers."""


class EngineLiveness:
    """Liveness of one engine, from its start until `stop`; `limit_s` of silence are too much."""

    def __init__(
        self, engine: RunningEngine, limit_s: float, ping_period_s: float = PING_PERIOD_S
    ) -> None:
        self._engine = engine
        self._limit_s = limit_s
        self._ping_period_s = ping_period_s
        self._pinging = asyncio.create_task(self._ping(), name="engine-pings")

    def check(self) -> None:
        """Raise if the engine hangs.

        Raises:
            EngineHangs: it has made no progress for too long.
        """
        tracker, limit_s = self._engine.tracker, self.limit_s
        if tracker.stalled_s > limit_s:
            raise EngineHangs(f"its engine has made no progress for {tracker.stalled_s:.0f} s")

    @property
    def limit_s(self) -> float:
        """Seconds without progress that count as a hang now."""
        tracker = self._engine.tracker
        if not tracker.has_requests:
            return self._limit_s
        if not tracker.meter.has_measured:
            return UNMEASURED_FACTOR * self._limit_s
        step_s = self._engine.facts.step_tokens * tracker.meter.prefill_s
        return max(self._limit_s, LONG_STEPS * step_s)

    async def stop(self) -> None:
        """End the pings."""
        self._pinging.cancel()
        await asyncio.gather(self._pinging, return_exceptions=True)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._ping_period_s)
            self._engine.tracker.record_ping()
            # An error is an answer, too; a dead engine is noticed by its own check.
            with contextlib.suppress(Exception):
                await self._engine.ping()
            self._engine.tracker.record_progress()

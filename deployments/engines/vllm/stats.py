"""Stat loggers of vLLM: scheduler statistics for our telemetry, and vLLM's own metrics for Ray."""

import logging
from collections.abc import Callable

from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats

logger = logging.getLogger(__name__)


class StepStatistics:
    """Statistics of vLLM's schedulers after their latest steps."""

    def __init__(self) -> None:
        self._listener: Callable[[], None] | None = None
        self._waiting: dict[int, int] = {}
        self._used_shares: dict[int, float] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot or for room in the KV cache.

        Deferred requests are not among them: vLLM leaves those aside until something else than room
        is there, for example a compiled grammar, and others pass them.
        """
        return sum(self._waiting.values())

    @property
    def used_share(self) -> float:
        """Share of the KV cache used by running requests: blocks that are only cached are free."""
        shares = self._used_shares
        return sum(shares.values()) / len(shares) if shares else 0.0

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every step."""
        self._listener = listener

    def logger(self, _: VllmConfig, engine: int) -> "_StepLogger":
        """Stat logger for one of vLLM's engines."""
        return _StepLogger(self, engine)

    def record(self, engine: int, stats: SchedulerStats | None) -> None:
        """Record the statistics of an engine's step."""
        if stats is not None:
            self._waiting[engine] = stats.num_waiting_reqs
            self._used_shares[engine] = stats.kv_cache_usage
        if self._listener is not None:
            self._listener()


class _StepLogger(StatLoggerBase):
    """Stat logger that feeds `StepStatistics`; an error would end vLLM's output loop."""

    def __init__(self, statistics: StepStatistics, engine: int) -> None:
        self._statistics = statistics
        self._engine = engine

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        try:
            self._statistics.record(self._engine, scheduler_stats)
        except Exception:
            logger.exception("engine telemetry failed for one step; requests are not affected")

    def log_engine_initialized(self) -> None:
        """Log nothing."""


class RayMetricsLogger(RayPrometheusStatLogger):
    """vLLM's own metrics, exported by Ray; an error of its own would end vLLM's output loop."""

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        """Export the statistics of one step."""
        try:
            super().record(scheduler_stats, iteration_stats, mm_cache_stats, engine_idx)
        except Exception:
            logger.exception("vLLM's metrics failed for one step; requests are not affected")

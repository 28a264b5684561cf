"""Gauges of a router's models, replicas, queues and bodies, published every few seconds.

Values that were counted meanwhile are exported at the same time.
"""

from collections import Counter
from collections.abc import Iterator

from gateway.limits.project_limits import ProjectLimits
from gateway.metrics import (
    AWAITING_START,
    BODY_BYTES,
    BODY_LIMIT_BYTES,
    IN_FLIGHT,
    OUTPUT_TOKENS,
    PREFILL,
    PROJECT_HELD,
    PROJECT_SERVED,
    QUEUED,
    REPLICAS,
    SEQUENCE,
    STEP,
    TOKENS_PER_BYTE,
    Gauge,
    Recorder,
)
from gateway.periodic import Periodic
from gateway.serving.body_budget import BodyBudget
from gateway.serving.limit_gauges import Reading, count_limits, limit_readings
from gateway.serving.pool import ModelPool, ModelPools

PERIOD_S = 5.0

MAX_PROJECTS = 50
"""Projects of a model that have gauges of their own."""
OTHER_PROJECTS = "other"


class Gauges:
    """Gauges of one router, published from `start` to `close`."""

    def __init__(
        self,
        pools: ModelPools,
        bodies: BodyBudget,
        recorder: Recorder,
        limits: ProjectLimits | None = None,
    ) -> None:
        self._pools = pools
        self._limits = limits
        self._bodies = bodies
        self._recorder = recorder
        self._published: set[tuple[Gauge, tuple[str, ...]]] = set()
        self._periodic = Periodic("publishing gauges", PERIOD_S, self._publish)

    def start(self) -> None:
        """Begin to publish."""
        self._periodic.start()

    async def close(self) -> None:
        """Stop publishing, and export the last counts."""
        await self._periodic.close()
        self._recorder.flush()

    def publish(self) -> None:
        """Publish once; gauges of what no longer exists are 0 from now on."""
        readings = [reading for pool in self._pools for reading in _readings(pool)]
        if self._limits is not None:
            readings += limit_readings(self._limits)
            count_limits(self._limits, self._recorder)
        readings.append((BODY_BYTES, (), self._bodies.held_bytes))
        readings.append((BODY_LIMIT_BYTES, (), self._bodies.limit_bytes))
        present = {(gauge, labels) for gauge, labels, _ in readings}
        for gauge, labels, value in readings:
            self._recorder.set(gauge, labels, value)
        for gauge, labels in self._published - present:
            self._recorder.set(gauge, labels, 0.0)
        self._published = present
        self._recorder.flush()

    async def _publish(self) -> None:
        self.publish()


def _readings(pool: ModelPool) -> Iterator[Reading]:
    labels = (pool.model.name,)
    scheduler, admission = pool.scheduler, pool.admission
    yield IN_FLIGHT, labels, scheduler.in_flight
    yield QUEUED, (*labels, "interactive"), admission.queued_interactive
    yield QUEUED, (*labels, "batch"), admission.queued_batch
    yield AWAITING_START, labels, pool.cold_start.waiting
    yield from _project_readings(pool)
    for state, count in scheduler.replicas.health_counts().items():
        yield REPLICAS, (*labels, state), count
    estimates = scheduler.cost_model.estimates
    yield PREFILL, labels, estimates.prefill_s
    yield STEP, labels, estimates.step_s
    yield SEQUENCE, labels, estimates.sequence_s
    yield TOKENS_PER_BYTE, labels, estimates.tokens_per_byte
    yield OUTPUT_TOKENS, labels, estimates.output_tokens


def _project_readings(pool: ModelPool) -> Iterator[Reading]:
    """Gauges of the projects that were served most, and of all others together."""
    fairness = pool.admission.fairness
    served = Counter({project: use.served_s for project, use in fairness.uses.items()})
    named = {project for project, _ in served.most_common(MAX_PROJECTS)}
    held = Counter(fairness.waiting)
    for gauge, values in ((PROJECT_HELD, held), (PROJECT_SERVED, served)):
        rest = sum(value for project, value in values.items() if project not in named)
        for project in named:
            yield gauge, (pool.model.name, project), values[project]
        if rest:
            yield gauge, (pool.model.name, OTHER_PROJECTS), rest

"""How the router's models, replicas and queues stand, told as metrics every few seconds.

What has been counted meanwhile is passed on at the same time.
"""

import asyncio
import logging
from collections.abc import Iterator

from gateway.admission.admissions import Admissions
from gateway.admission.cold_start import ColdStarts
from gateway.metrics import (
    AWAITING_START,
    IN_FLIGHT,
    OUTPUT_TOKENS,
    PREFILL,
    QUEUED,
    REPLICAS,
    SEQUENCE,
    STEP,
    TOKENS_PER_BYTE,
    Gauge,
    Recorder,
)
from gateway.routing.fleet import Fleet, ServedModel
from gateway.routing.schedulers import Schedulers

PERIOD_S = 5.0

Sight = tuple[Gauge, tuple[str, ...], float]
"""A gauge, the values of its labels, and how it stands."""

logger = logging.getLogger(__name__)


class Gauges:
    """Those of one router, told from `start` to `close`."""

    def __init__(
        self,
        fleet: Fleet,
        schedulers: Schedulers,
        admissions: Admissions,
        cold_starts: ColdStarts,
        recorder: Recorder,
    ) -> None:
        self._fleet = fleet
        self._schedulers = schedulers
        self._admissions = admissions
        self._cold_starts = cold_starts
        self._recorder = recorder
        self._told: set[tuple[Gauge, tuple[str, ...]]] = set()
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to tell."""
        self._telling = asyncio.create_task(self._run(), name="gauges")

    async def close(self) -> None:
        """Tell no more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
            self._recorder.flush()

    def tell(self) -> None:
        """Tell once; what is there no more stands at 0 from now on."""
        sights = [sight for model in self._fleet.models for sight in self._sights(model)]
        now = {(gauge, labels) for gauge, labels, _ in sights}
        for gauge, labels, value in sights:
            self._recorder.set(gauge, labels, value)
        for gauge, labels in self._told - now:
            self._recorder.set(gauge, labels, 0.0)
        self._told = now
        self._recorder.flush()

    async def _run(self) -> None:
        while True:
            try:
                self.tell()
            except Exception:
                # A defect of ours: requests go on, and the next time it may work.
                logger.exception("the gauges could not be told")
            await asyncio.sleep(PERIOD_S)

    def _sights(self, model: ServedModel) -> Iterator[Sight]:
        labels = (model.name,)
        scheduler, admission = self._schedulers.of(model), self._admissions.of(model)
        yield IN_FLIGHT, labels, scheduler.in_flight
        yield QUEUED, (*labels, "interactive"), admission.held_interactive
        yield QUEUED, (*labels, "batch"), admission.held_batch
        yield AWAITING_START, labels, self._cold_starts.waiting(model)
        for state, count in scheduler.replicas.health_counts().items():
            yield REPLICAS, (*labels, state), count
        estimates = scheduler.cost_model.estimates
        yield PREFILL, labels, estimates.prefill_s
        yield STEP, labels, estimates.step_s
        yield SEQUENCE, labels, estimates.sequence_s
        yield TOKENS_PER_BYTE, labels, estimates.tokens_per_byte
        yield OUTPUT_TOKENS, labels, estimates.output_tokens

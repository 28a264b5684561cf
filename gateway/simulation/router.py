"""One router of a simulation with queues: the production scheduler and admission, without HTTP."""

import asyncio
import random
from collections.abc import Mapping
from functools import partial

import msgspec

from gateway.admission.admission import Admission
from gateway.admission.demand_reports import REPORT_S, DemandReports
from gateway.admission.eviction import EvictionIndex
from gateway.admission.queued_request import AdmissionRequest, QueuedRequest
from gateway.request.inference_request import InferenceRequest
from gateway.routing.decision import DecisionLog
from gateway.routing.fleet import ServedModel
from gateway.routing.replica_set import ReplicaSet
from gateway.routing.scheduler import Scheduler
from gateway.routing.target import Target
from gateway.simulation.trace import TraceRequest
from gateway.simulation.virtual_engine import SimulatedOutcome, VirtualEngine
from gateway.telemetry.update import Update

REFRESH_S = 1.0
"""How often routers repeat what they hold."""
REPORT_DELAY_S = 0.002
"""Time that a report takes to an engine."""


class SimulatedRouter:
    """One router in front of engines in virtual time; to be made in a running event loop."""

    def __init__(self, name: str, model: ServedModel, engines: Mapping[str, VirtualEngine]) -> None:
        loop = asyncio.get_running_loop()
        rng = random.Random(f"router {name}")  # noqa: S311 - breaks ties, keeps no secret
        self._loop = loop
        self._name = name
        self._model = model
        self._engines = engines
        self._scheduler = Scheduler(model, DecisionLog(), rng, loop.time, name)
        self.admission = Admission(model, self._scheduler, EvictionIndex(), loop.time)
        self.admission.fairness.held.on_change = self._report_soon
        self._reports = DemandReports()
        self._is_reporting = False
        self._reported_s = 0.0
        loop.call_later(REFRESH_S, self._refresh)

    @property
    def replicas(self) -> ReplicaSet:
        """States of all replicas."""
        return self._scheduler.replicas

    async def send(self, traced: TraceRequest, request: InferenceRequest) -> SimulatedOutcome:
        """Have a request answered; `request`: what it has beside its prompt."""
        target = Target(request, self._model, self._model.name, traced.prompt)
        admitted = self.admission.submit(AdmissionRequest(target))
        decision = await admitted.wait() if isinstance(admitted, QueuedRequest) else admitted
        replica = decision.replica.id
        outcome = SimulatedOutcome(traced, int(replica))
        answered: asyncio.Future[None] = self._loop.create_future()
        with self._scheduler.sending(decision, target) as dispatch:
            self._engines[replica].submit(dispatch, outcome, partial(_finish, answered))
            await answered
        return outcome

    def record_update(self, replica: str, update: Update) -> None:
        """Record a frame of an engine's telemetry."""
        self._scheduler.record_update(replica, update)

    def _report_soon(self) -> None:
        if not self._is_reporting:
            self._is_reporting = True
            due_s = max(self._loop.time(), self._reported_s + REPORT_S)
            self._loop.call_at(due_s, self._report_changes)

    def _report_changes(self) -> None:
        self._is_reporting = False
        self._reported_s = self._loop.time()
        self._report(only_changes=True)

    def _refresh(self) -> None:
        self._report(only_changes=False)
        self._loop.call_later(REFRESH_S, self._refresh)

    def _report(self, *, only_changes: bool) -> None:
        for replica, demand in self._reports.due(
            self.admission.demands, only_changes=only_changes
        ).items():
            report = msgspec.structs.replace(demand, router=self._name)
            engine = self._engines[replica.id]
            self._loop.call_later(REPORT_DELAY_S, engine.record_demand, report)


def _finish(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)

"""Simulates projects that flood a model through several routers, and measures each one's share.

Method: as in `simulator`, with queues: each router is the `Scheduler` and the `Admission` of
production, in an event loop whose time is virtual. Engines repeat reservations and held requests to
all routers, in frames. The clients of a project each send one request after the other: all of them
together keep every slot of the fleet busy, so what a project is served depends on fairness alone.
Prefixes are shared within a project only. What counts is the engine's time that requests took,
without what was in a cache: `EngineProfile` has the prices.
"""

import asyncio
import itertools
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from gateway.config.serving_options import ServingOptions
from gateway.errors.limits import Overloaded
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project
from gateway.request.head import RequestHead
from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import Tenant
from gateway.routing.fleet import Replica, ServedModel
from gateway.simulation.router import SimulatedRouter
from gateway.simulation.settings import SimulationSettings
from gateway.simulation.trace import TraceRequest, Workload
from gateway.simulation.virtual_engine import SimulatedOutcome, VirtualEngine
from gateway.simulation.virtual_time import LoopTimeline, run_in_virtual_time
from gateway.telemetry.facts import ReplicaMetadata
from gateway.telemetry.update import Update

MODEL = "simulated"
PATIENT = {"max_wait_s": 3600, "max_requests": 1_000_000}
"""Queue without limits: nobody is rejected, so only fairness decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectLoad:
    """A project that floods the model."""

    name: str
    weight: float = 1.0
    clients: int
    routers: Sequence[int]
    """Routers among which its clients are spread."""
    later_routers: Sequence[int] | None = None
    """The same from half of the time on; None: no change."""
    starts_at: float = 0.0
    """Share of the time during which it is idle first."""


@dataclass(slots=True, eq=False)
class ProjectTotals:
    """What was measured."""

    seconds: float
    work_s: dict[str, float] = field(default_factory=dict)
    """Seconds of the engines' time that each project's requests took."""
    tokens: int = 0
    """Tokens of prompts and answers."""
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that were in the chosen replica's cache."""
        return self.cached_tokens / max(1, self.prompt_tokens)

    @property
    def tokens_per_s(self) -> float:
        """Tokens of prompts and answers a second."""
        return self.tokens / self.seconds

    def share(self, project: str) -> float:
        """Share of a project in all work."""
        return self.work_s.get(project, 0.0) / max(1e-9, sum(self.work_s.values()))


def simulate_projects(
    workload: Workload,
    loads: Sequence[ProjectLoad],
    settings: SimulationSettings,
    seconds: float,
    *,
    is_fair: bool = True,
    measured_from: float = 0.4,
) -> ProjectTotals:
    """Flood a fleet for so long; `is_fair`: as projects, or as clients without any.

    `measured_from`: share of the time, from the start, that is not measured.
    """
    totals = ProjectTotals(seconds * (1 - measured_from))
    flood = _Flood(workload, loads, settings, seconds, is_fair=is_fair)
    run_in_virtual_time(partial(flood.run, totals))
    return totals


class _Flood:
    def __init__(
        self,
        workload: Workload,
        loads: Sequence[ProjectLoad],
        settings: SimulationSettings,
        seconds: float,
        *,
        is_fair: bool,
    ) -> None:
        self._loads = loads
        self._settings = settings
        self._seconds = seconds
        self._is_fair = is_fair
        self._requests = [_requests(workload, number, len(loads)) for number in range(len(loads))]
        self._routers: list[SimulatedRouter] = []

    async def run(self, totals: ProjectTotals) -> None:
        """Run until the time is over."""
        self._start()
        clients = [
            asyncio.create_task(self._client(load, requests, number, totals))
            for number in range(max(load.clients for load in self._loads))
            for load, requests in zip(self._loads, self._requests, strict=True)
            if number < load.clients
        ]
        await asyncio.sleep(self._seconds)
        for client in clients:
            client.cancel()
        for ended in await asyncio.gather(*clients, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    def _start(self) -> None:
        settings, timeline = self._settings, LoopTimeline()
        model = ServedModel(
            MODEL, created_s=0, options=ServingOptions.model_validate({"queue": PATIENT})
        )
        metadata = ReplicaMetadata(model=MODEL, host="", port=0, key="", facts=settings.facts)
        names = [f"{position:04d}" for position in range(settings.replicas)]
        model.replace_replicas(Replica(name, metadata) for name in names)
        engines = {
            name: VirtualEngine(settings, timeline, partial(self._publish, name)) for name in names
        }
        self._routers += [
            SimulatedRouter(str(number), model, engines) for number in range(settings.routers)
        ]
        for name, engine in engines.items():
            self._publish(name, engine.tracker.snapshot())

    def _publish(self, replica: str, update: Update) -> None:
        for router in self._routers:
            router.record_update(replica, update)

    async def _client(
        self,
        load: ProjectLoad,
        requests: Iterator[TraceRequest],
        number: int,
        totals: ProjectTotals,
    ) -> None:
        loop = asyncio.get_running_loop()
        request = self._inference_request(load)
        await asyncio.sleep(load.starts_at * self._seconds)
        while True:
            routers = load.routers
            if load.later_routers is not None and loop.time() >= self._seconds / 2:
                routers = load.later_routers
            router = self._routers[routers[number % len(routers)]]
            try:
                outcome = await router.send(next(requests), request)
            except Overloaded:
                await asyncio.sleep(1.0)
            else:
                self._count(load, outcome, totals)

    def _inference_request(self, load: ProjectLoad) -> InferenceRequest:
        head = RequestHead(MODEL)
        if not self._is_fair:
            return InferenceRequest(head=head)
        identity = ClientIdentity(project=Project(id=load.name, weight=load.weight), key="key")
        return InferenceRequest(
            head=head, identity=identity, tenant=Tenant(load.name.encode(), b"key")
        )

    def _count(self, load: ProjectLoad, outcome: SimulatedOutcome, totals: ProjectTotals) -> None:
        if asyncio.get_running_loop().time() < self._seconds - totals.seconds:
            return
        request, engine = outcome.request, self._settings.engine
        new_tokens = request.prompt_tokens - outcome.cached_tokens
        token_s = engine.step_s_per_sequence + engine.step_s / engine.max_running
        work_s = new_tokens * engine.step_s_per_prefill_token + request.output_tokens * token_s
        totals.work_s[load.name] = totals.work_s.get(load.name, 0.0) + work_s
        totals.tokens += request.prompt_tokens + request.output_tokens
        totals.prompt_tokens += request.prompt_tokens
        totals.cached_tokens += outcome.cached_tokens


def _requests(workload: Workload, number: int, parts: int) -> Iterator[TraceRequest]:
    """The workload's requests, again and again, from another point for each project."""
    requests = workload.requests
    start = number * len(requests) // parts
    for request in itertools.islice(itertools.cycle(requests), start, None):
        keys = array("Q", [key ^ (number << 32) for key in request.prompt.keys])
        yield replace(request, prompt=msgspec.structs.replace(request.prompt, keys=keys))

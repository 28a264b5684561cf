"""A full batch beside interactive clients, with engines in virtual time: clients do not feel it."""

import asyncio
import random
from dataclasses import dataclass, field
from functools import partial

import msgspec
import pytest

from gateway.batch.dispatch_window import IN_USE_S, Pace, dispatch_windows
from gateway.batch.line_feed import LineFeed, LineTry
from gateway.batch.line_plan import LinePlace, LinePlan
from gateway.batch.line_set import LineSet
from gateway.batch.model_rooms import room_of
from gateway.batch.start_budget import StartBudget
from gateway.config.serving_options import ServingOptions
from gateway.request.head import RequestHead
from gateway.request.inference_request import InferenceRequest
from gateway.routing.fleet import Replica, ServedModel
from gateway.simulation.batching import EngineProfile
from gateway.simulation.results import percentile
from gateway.simulation.router import SimulatedRouter
from gateway.simulation.settings import SimulationSettings
from gateway.simulation.trace import BLOCK_TOKENS, TraceRequest, trace_request
from gateway.simulation.virtual_engine import SimulatedOutcome, VirtualEngine
from gateway.simulation.virtual_time import LoopTimeline, run_in_virtual_time
from gateway.telemetry.facts import ReplicaMetadata
from gateway.telemetry.update import Update

SECONDS = 300.0
WARM_S = 20.0
PERIOD_S = 0.1
LINES = 20_000
BYTES_PER_TOKEN = 4
LEAST_LINES = 80
PATIENT = {"max_wait_s": 3600, "batch_max_wait_s": 3600, "max_requests": 1_000_000}
CLIENT = InferenceRequest(head=RequestHead("m"))
LINE = msgspec.structs.replace(CLIENT, tier="flex")
OUTPUT_TOKENS = 100
GROUP = 100
"""Lines that share a prompt's beginning."""


@dataclass
class Shift:
    """Some time of a fleet: what clients and batches were served."""

    settings: SimulationSettings
    clients_per_s: float
    line_tokens: int
    has_batch: bool
    ttfts_s: list[float] = field(default_factory=list)
    lines: int = 0
    cached_tokens: int = 0
    """Of the prompts of lines."""

    async def run(self) -> None:
        """Let clients arrive at random, and keep the window of the batch full."""
        timeline, rng = LoopTimeline(), random.Random(5)  # noqa: S311 - no secret
        options = ServingOptions.model_validate({"queue": PATIENT})
        model = ServedModel("m", created_s=0, options=options)
        facts = self.settings.facts
        metadata = ReplicaMetadata(model="m", host="", port=0, key="", facts=facts)
        names = [f"{position:04d}" for position in range(self.settings.replicas)]
        model.replace_replicas(Replica(name, metadata) for name in names)
        routers: list[SimulatedRouter] = []

        def publish(name: str, update: Update) -> None:
            for router in routers:
                router.record_update(name, update)

        engines = {
            name: VirtualEngine(self.settings, timeline, partial(publish, name)) for name in names
        }
        routers += [SimulatedRouter(str(number), model, engines) for number in range(2)]
        for name, engine in engines.items():
            publish(name, engine.tracker.snapshot())
        tasks = [asyncio.create_task(self._clients(routers[0], rng))]
        if self.has_batch:
            tasks.append(asyncio.create_task(self._batch(routers[1])))
        await asyncio.sleep(SECONDS)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _clients(self, router: SimulatedRouter, rng: random.Random) -> None:
        loop, number = asyncio.get_running_loop(), 0
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(rng.expovariate(self.clients_per_s))
                number += 1
                tokens = rng.randint(200, 2000)
                blocks = range(-number * 10, -number * 10 + tokens // BLOCK_TOKENS)
                request = trace_request(loop.time(), tokens, rng.randint(20, 200), blocks)
                group.create_task(self._client(router, request))

    async def _client(self, router: SimulatedRouter, request: TraceRequest) -> None:
        outcome = await router.send(request, CLIENT)
        if request.arrived_s > WARM_S:
            self.ttfts_s.append(outcome.first_token_s - request.arrived_s)

    async def _batch(self, router: SimulatedRouter) -> None:  # noqa: PLR0915 - a worker's whole loop
        loop = asyncio.get_running_loop()
        under_way: dict[asyncio.Task[SimulatedOutcome], LineTry] = {}
        used_s, budget, waiting = 0.0, StartBudget(), None
        feed = LineFeed(LinePlan.of(map(self._place, range(LINES))), LineSet(LINES))
        feed.use_lanes(self.settings.replicas)
        pace = Pace(left=10**6, time_left_s=10**9)
        async with asyncio.TaskGroup() as group:
            while True:
                replicas = router.replicas
                prefill_s = self.settings.engine.step_s_per_prefill_token
                rooms = [room_of(state, replicas, prefill_s) for state in replicas.all()]
                used_s = loop.time() if any(room.is_used for room in rooms) else used_s
                (window,) = dispatch_windows(
                    rooms,
                    [pace],
                    guaranteed_share=0.5,
                    line_tokens=self.line_tokens + OUTPUT_TOKENS,
                    is_used=loop.time() < used_s + IN_USE_S,
                )
                budget.renew(window)
                while len(under_way) < window.lines:
                    waiting = waiting or feed.next(loop.time())
                    if waiting is None:
                        break
                    tokens = waiting.place.prompt_bytes / BYTES_PER_TOKEN
                    if not budget.may_start(tokens, loop.time()):
                        break
                    budget.record_start(tokens, loop.time())
                    session = b"%d" % waiting.lane
                    request = msgspec.structs.replace(LINE, session=session)
                    line = self._line(waiting.place.number - 1)
                    under_way[group.create_task(router.send(line, request))] = waiting
                    waiting = None
                await asyncio.sleep(PERIOD_S)
                for task in [each for each in under_way if each.done()]:
                    feed.end(under_way.pop(task))
                    self.lines += 1
                    self.cached_tokens += task.result().cached_tokens

    def _place(self, number: int) -> LinePlace:
        shared = self.line_tokens // BLOCK_TOKENS * BLOCK_TOKENS
        new_tokens = self.line_tokens - (shared if number % GROUP else 0)
        return LinePlace(number + 1, 0, 1, new_tokens * BYTES_PER_TOKEN)

    def _line(self, number: int) -> TraceRequest:
        """Of a batch in order: lines after each other share all whole blocks."""
        group = number // GROUP
        blocks = range(group * 100, group * 100 + self.line_tokens // BLOCK_TOKENS)
        return trace_request(0.0, self.line_tokens, OUTPUT_TOKENS, blocks)


@pytest.mark.parametrize(("clients_per_s", "line_tokens"), [(2.0, 100), (6.0, 2148)])
def test_clients_do_not_feel_a_batch(clients_per_s: float, line_tokens: int) -> None:
    """Their p99 time to first token is at most a tenth longer, and the batch goes on."""
    engine = EngineProfile(kv_blocks=600, block_size=BLOCK_TOKENS)
    settings = SimulationSettings(replicas=2, engine=engine, routers=2)
    alone = Shift(settings, clients_per_s, line_tokens, has_batch=False)
    beside = Shift(settings, clients_per_s, line_tokens, has_batch=True)

    for shift in (alone, beside):
        run_in_virtual_time(shift.run)

    p99_alone, p99 = (
        percentile(sorted(alone.ttfts_s), 0.99),
        percentile(sorted(beside.ttfts_s), 0.99),
    )
    report = f"{p99:.3f} s, alone {p99_alone:.3f} s, {beside.lines} lines"
    assert p99 <= 1.1 * p99_alone, f"{report}, {beside.cached_tokens} cached tokens"
    assert beside.lines > LEAST_LINES, report

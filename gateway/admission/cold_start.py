"""Requests that wait for a model of which no engine runs, and the engine that is started for them.

Each model that is waited for has a vigil: it has Serve know that an engine is wanted, looks at the
model every `LOOK_S` seconds, and lets all go on as soon as an engine runs, or none will.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from gateway.admission.eviction import EvictionIndex
from gateway.admission.queue_item import QueueItem
from gateway.errors import ModelUnavailable, Overloaded
from gateway.request.inference_request import InferenceRequest
from gateway.routing.fleet import Fleet, ModelState, ServedModel

LOOK_S = 0.05
LINGER_S = 10.0
"""How long an engine is still wanted when the last client that waited for it has given up."""
GRACE_S = 10.0
"""How long a model that has failed before may take to look as if it was starting."""
WAITING_BYTES = 256 << 20
"""Bytes of bodies that wait for engines to start, of all models together."""
MARGIN_S = 0.02
"""How long before its deadline a request stops waiting, to tell more than that it has passed."""
LEAST_RETRY_S = 1.0
LEAST_PAUSE_S = 60.0
"""After a start that failed, how long no request has another one tried; doubled each time."""
MOST_PAUSE_S = 900.0

Wake = Callable[[ServedModel, int], None]
"""Has Serve know that so many requests wait for an engine of a model; 0: none any more."""


class ColdStarts:
    """Those of one router."""

    def __init__(self, fleet: Fleet, wake: Wake) -> None:
        self._fleet = fleet
        self._wake = wake
        self._cold_starts: dict[ServedModel, _ColdStart] = {}
        self._failures: WeakKeyDictionary[ServedModel, _FailedStart] = WeakKeyDictionary()
        self._stock: EvictionIndex[_Waiting] = EvictionIndex()
        """All that wait, by their bytes."""
        fleet.subscribe(self._forget_failures)

    def waiting(self, model: ServedModel) -> int:
        """How many requests wait for an engine of the model."""
        cold_start = self._cold_starts.get(model)
        return cold_start.crowd.weight if cold_start else 0

    def expected_s(self, model: ServedModel) -> float:
        """What is left of the start, as far as is known; of one that is overdue, all of it."""
        cold_start = self._cold_starts.get(model)
        gone_s = asyncio.get_running_loop().time() - cold_start.since_s if cold_start else 0.0
        left_s = model.start_s - gone_s
        return max(LEAST_RETRY_S, left_s if left_s > 0 else model.start_s)

    async def wait(
        self, model: ServedModel, request: InferenceRequest, due_s: float | None = None
    ) -> None:
        """Have an engine started, and wait until one runs, but not longer than to `due_s`.

        Raises:
            ModelUnavailable: none has come in time, or none will.
            Overloaded: too many wait already.
        """
        self._check_failure(model)
        loop = asyncio.get_running_loop()
        limit_s = model.options.cold_start_timeout_s
        if due_s is not None:
            limit_s = max(0.0, min(limit_s, due_s - loop.time() - MARGIN_S))
        waiting = _Waiting.of(request, self._cold_start(model).crowd)
        self._make_room(model, waiting)
        waiting.crowd.add(waiting)
        self._stock.add(waiting, len(request.body))
        try:
            async with asyncio.timeout(limit_s):
                await waiting.ready
        except TimeoutError:
            reason = f"{model.reason}, for longer than {limit_s:.3g} s"
            raise self._unavailable(model, reason) from None
        finally:
            self._leave(waiting)

    def ask(self, model: ServedModel) -> None:
        """Have an engine started for which no request waits."""
        if self._pause_s(model) > 0:
            return
        cold_start = self._cold_start(model)
        end_s = asyncio.get_running_loop().time() + model.options.cold_start_timeout_s
        cold_start.end_s = max(cold_start.end_s, end_s)

    async def close(self) -> None:
        """Wait for nothing any more."""
        self._fleet.unsubscribe(self._forget_failures)
        tasks = [cold_start.task for cold_start in self._cold_starts.values() if cold_start.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cold_start(self, model: ServedModel) -> "_ColdStart":
        cold_start = self._cold_starts.get(model)
        if cold_start is None:
            now_s = asyncio.get_running_loop().time()
            cold_start = self._cold_starts[model] = _ColdStart(now_s)
            cold_start.task = asyncio.create_task(self._watch(model, cold_start))
        return cold_start

    def _check_failure(self, model: ServedModel) -> None:
        """After a start that failed, none is tried for a while."""
        if (pause_s := self._pause_s(model)) > 0:
            reason = self._failures[model].reason
            message = f"The model `{model.name}` is unhealthy: {reason}"
            raise ModelUnavailable(message, pause_s)

    def _pause_s(self, model: ServedModel) -> float:
        failure = self._failure(model)
        return failure.until_s - asyncio.get_running_loop().time() if failure else 0.0

    def _failure(self, model: ServedModel) -> "_FailedStart | None":
        """The last start that failed, of the model as it is deployed now."""
        failure = self._failures.get(model)
        return failure if failure and failure.deployed_s == model.deployed_s else None

    def _forget_failures(self) -> None:
        for model in [model for model in self._failures if model.replicas]:
            del self._failures[model]

    def _make_room(self, model: ServedModel, newcomer: "_Waiting") -> None:
        """Have others go where too many wait, or too much of them.

        Raises:
            Overloaded: it is the newcomer who has to go.
        """
        most = max(1, model.options.queue.max_requests)
        reason = f"{most} requests are waiting for it to start"
        if not self._clear(newcomer.crowd, newcomer, 1, most):
            raise self._overloaded(model, reason)
        reason = f"{WAITING_BYTES >> 20} MiB of requests are waiting for models to start"
        if not self._clear(self._stock, newcomer, newcomer.size_bytes, WAITING_BYTES):
            raise self._overloaded(model, reason)

    def _clear(
        self, crowd: "EvictionIndex[_Waiting]", newcomer: "_Waiting", weight: int, most: int
    ) -> bool:
        """Have others go until there is room for the newcomer; whether there is."""
        while crowd.weight + weight > most:
            victim = crowd.victim(newcomer, weight)
            if victim is None:
                return False
            self._leave(victim)
            if not victim.ready.done():
                message = "The model is starting, and too many requests are waiting for it."
                victim.ready.set_exception(Overloaded(message, LEAST_RETRY_S))
        return True

    def _leave(self, waiting: "_Waiting") -> None:
        if waiting.is_in:
            waiting.is_in = False
            waiting.crowd.remove(waiting)
            self._stock.remove(waiting)

    def _overloaded(self, model: ServedModel, reason: str) -> Overloaded:
        message = f"The model `{model.name}` is overloaded: {reason}."
        return Overloaded(message, self.expected_s(model))

    async def _watch(self, model: ServedModel, cold_start: "_ColdStart") -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                if cold_start.crowd.weight:
                    cold_start.end_s = max(cold_start.end_s, loop.time() + LINGER_S)
                self._wake(model, max(1, cold_start.crowd.weight))
                if self._settle(model, cold_start) or loop.time() >= cold_start.end_s:
                    return
                await asyncio.sleep(LOOK_S)
        finally:
            del self._cold_starts[model]
            self._wake(model, 0)

    def _settle(self, model: ServedModel, cold_start: "_ColdStart") -> bool:
        """Let all go if an engine runs, or none will; whether that is so."""
        reason = ""
        if not self._fleet.has_model(model.name) or self._fleet.model(model.name) is not model:
            reason = "it has been taken away"
        elif not model.replicas:
            if model.state is not ModelState.UNHEALTHY or self._may_recover(model, cold_start):
                return False
            self._fail(model)
            reason = model.reason
        for waiting in cold_start.crowd:
            if waiting.ready.done():
                continue
            if reason:
                waiting.ready.set_exception(self._unavailable(model, reason))
            else:
                waiting.ready.set_result(None)
        return True

    def _may_recover(self, model: ServedModel, cold_start: "_ColdStart") -> bool:
        """Whether a model that does not look well may be about to try again."""
        age_s = asyncio.get_running_loop().time() - cold_start.since_s
        return self._failure(model) is not None and age_s < GRACE_S

    def _fail(self, model: ServedModel) -> None:
        """Note that a start has failed: the next one has to wait, longer each time."""
        last = self._failure(model)
        pause_s = min(MOST_PAUSE_S, 2 * last.pause_s) if last else LEAST_PAUSE_S
        until_s = asyncio.get_running_loop().time() + pause_s
        self._failures[model] = _FailedStart(model.deployed_s, model.reason, pause_s, until_s)

    def _unavailable(self, model: ServedModel, reason: str) -> ModelUnavailable:
        message = f"The model `{model.name}` is {model.condition}: {reason}"
        pause_s = self._pause_s(model)
        return ModelUnavailable(message, pause_s if pause_s > 0 else self.expected_s(model))


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiting(QueueItem):
    """A request that waits."""

    crowd: EvictionIndex["_Waiting"]
    size_bytes: int
    ready: asyncio.Future[None]
    is_in: bool = True

    @classmethod
    def of(cls, request: InferenceRequest, crowd: EvictionIndex["_Waiting"]) -> "_Waiting":
        """One request, among those who wait for the same model."""
        return cls(
            tenant=request.tenant,
            tokens=0.0,
            due_s=0.0,
            number=0,
            is_batch=request.is_batch,
            crowd=crowd,
            size_bytes=len(request.body),
            ready=asyncio.get_running_loop().create_future(),
        )


class _ColdStart:
    """Those who wait for one model."""

    def __init__(self, since_s: float) -> None:
        self.since_s = self.end_s = since_s
        """When the first of them came, and until when an engine is wanted, by the loop's clock."""
        self.crowd: EvictionIndex[_Waiting] = EvictionIndex()
        self.task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _FailedStart:
    """A start that has failed."""

    deployed_s: float
    """Which deployment of the model it was."""
    reason: str
    pause_s: float
    until_s: float
    """Until when no other start is tried, by the event loop's clock."""

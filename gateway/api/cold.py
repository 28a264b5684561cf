"""Requests that wait for a model of which no engine runs, and the engine that is started for them.

Each model that is waited for has a vigil: it tells Serve how many wait, looks at the model every
`LOOK_S` seconds, and lets all go on as soon as an engine runs, or none will.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from gateway.errors import ModelUnavailable, Overloaded
from gateway.registry.terms import Terms
from gateway.routing.fleet import Fleet, Model, ModelState

LOOK_S = 0.05
LINGER_S = 10.0
"""How long an engine is still wanted when the last client that waited for it has given up."""
WAITING_BYTES = 256 << 20
"""Bytes of bodies that wait for engines to start, of all models together."""
LEAST_RETRY_S = 1.0
LEAST_PAUSE_S = 30.0
"""After a start that failed, how long no request has another one tried; doubled each time."""
MOST_PAUSE_S = 900.0

Wake = Callable[[Model, int], None]
"""Has Serve know that so many requests wait for an engine of a model; 0: none any more."""


class ColdStarts:
    """Those of one router."""

    def __init__(self, fleet: Fleet, wake: Wake) -> None:
        self._fleet = fleet
        self._wake = wake
        self._vigils: dict[Model, _Vigil] = {}
        self._failures: WeakKeyDictionary[Model, _Failure] = WeakKeyDictionary()
        self._asked: set[asyncio.Task[None]] = set()
        self._bytes = 0

    def waiting(self, model: Model) -> int:
        """How many requests wait for an engine of the model."""
        vigil = self._vigils.get(model)
        return len(vigil.waiting) if vigil else 0

    def expected_s(self, model: Model) -> float:
        """What is left of the start, as far as is known."""
        vigil = self._vigils.get(model)
        gone_s = asyncio.get_running_loop().time() - vigil.since_s if vigil else 0.0
        return max(LEAST_RETRY_S, model.start_s - gone_s)

    async def wait(self, model: Model, size_bytes: int) -> None:
        """Have an engine started, and wait until one runs; the request has `size_bytes`.

        Raises:
            ModelUnavailable: none has come in time, or none will.
            Overloaded: too many wait already.
        """
        self._check_failure(model)
        self._check_room(model, size_bytes)
        vigil = self._vigils.get(model)
        if vigil is None:
            vigil = self._vigils[model] = _Vigil(asyncio.get_running_loop().time())
            vigil.task = asyncio.create_task(self._watch(model, vigil))
        ready = asyncio.get_running_loop().create_future()
        vigil.waiting.add(ready)
        self._bytes += size_bytes
        try:
            async with asyncio.timeout(model.terms.cold_start_timeout_s):
                await ready
        except TimeoutError:
            limit_s = model.terms.cold_start_timeout_s
            reason = f"{model.reason}, for longer than {limit_s:g} s"
            raise self._unavailable(model, reason) from None
        finally:
            self._bytes -= size_bytes
            vigil.waiting.discard(ready)

    def ask(self, model: Model) -> None:
        """Have an engine started for which no request waits."""
        if model not in self._vigils:
            task = asyncio.create_task(self._wait_for_nobody(model))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)

    async def close(self) -> None:
        """Wait for nothing any more."""
        tasks = [*self._asked, *(vigil.task for vigil in self._vigils.values() if vigil.task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_for_nobody(self, model: Model) -> None:
        try:
            await self.wait(model, 0)
        except (ModelUnavailable, Overloaded):
            return  # whoever asks next is told

    def _check_failure(self, model: Model) -> None:
        """After a start that failed, none is tried for a while."""
        failure = self._failure(model)
        left_s = failure.until_s - asyncio.get_running_loop().time() if failure else 0.0
        if failure and left_s > 0:
            message = f"The model `{model.name}` is unhealthy: {failure.reason}"
            raise ModelUnavailable(message, left_s)

    def _failure(self, model: Model) -> "_Failure | None":
        """The last start that failed, of the model as it is deployed now."""
        failure = self._failures.get(model)
        return failure if failure and failure.terms is model.terms else None

    def _check_room(self, model: Model, size_bytes: int) -> None:
        most = model.terms.queue.max_requests
        if self.waiting(model) >= max(1, most):
            reason = f"{most} requests are waiting for it to start"
        elif self._bytes + size_bytes > WAITING_BYTES:
            reason = f"{WAITING_BYTES >> 20} MiB of requests are waiting for models to start"
        else:
            return
        message = f"The model `{model.name}` is overloaded: {reason}."
        raise Overloaded(message, self.expected_s(model))

    async def _watch(self, model: Model, vigil: "_Vigil") -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time()
        try:
            while vigil.waiting or loop.time() < end_s:
                if vigil.waiting:
                    end_s = loop.time() + LINGER_S
                self._wake(model, max(1, len(vigil.waiting)))
                if self._settle(model, vigil):
                    return
                await asyncio.sleep(LOOK_S)
        finally:
            del self._vigils[model]
            self._wake(model, 0)

    def _settle(self, model: Model, vigil: "_Vigil") -> bool:
        """Let all go if an engine runs, or none will; whether that is so."""
        reason = ""
        if not self._fleet.has_model(model.name) or self._fleet.model(model.name) is not model:
            reason = "it has been taken away"
        elif model.replicas:
            self._failures.pop(model, None)
        elif model.state is ModelState.UNHEALTHY:
            self._fail(model)
            reason = model.reason
        else:
            return False
        for ready in vigil.waiting:
            if ready.done():
                continue
            if reason:
                ready.set_exception(self._unavailable(model, reason))
            else:
                ready.set_result(None)
        return True

    def _fail(self, model: Model) -> None:
        """Note that a start has failed: the next one has to wait, longer each time."""
        last = self._failure(model)
        pause_s = min(MOST_PAUSE_S, 2 * last.pause_s) if last else LEAST_PAUSE_S
        until_s = asyncio.get_running_loop().time() + pause_s
        self._failures[model] = _Failure(model.terms, model.reason, pause_s, until_s)

    def _unavailable(self, model: Model, reason: str) -> ModelUnavailable:
        message = f"The model `{model.name}` is {model.condition}: {reason}"
        return ModelUnavailable(message, self.expected_s(model))


class _Vigil:
    """Those who wait for one model."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        """When the first of them came, by the event loop's clock."""
        self.waiting: set[asyncio.Future[None]] = set()
        self.task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    """A start that has failed."""

    terms: Terms
    """The model's at that time; others once it is deployed again."""
    reason: str
    pause_s: float
    until_s: float
    """Until when no other start is tried, by the event loop's clock."""

"""Cold start of a model without engines: asks for an engine, and holds requests until one runs.

While a start is wanted, Serve knows how many requests wait for it, and the model is checked every
`CHECK_S` seconds: all requests go on as soon as an engine runs, and fail once none will.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.admission.eviction import EvictionIndex
from gateway.admission.queue_limits import QueueLimits
from gateway.errors.upstream import ModelUnavailable
from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import Tenant
from gateway.routing.fleet import ModelState, ServedModel

CHECK_S = 0.05
"""How often a model is checked while its start is wanted."""
LINGER_S = 10.0
"""How long a start is still wanted after the last client that waited for it has given up."""
RECOVERY_S = 10.0
"""How long a model may look unhealthy from a failed start after another one was requested."""
MARGIN_S = 0.02
"""How long before its deadline a request stops waiting: its error can then say why it waited."""
MIN_RETRY_S = 1.0
MIN_BACKOFF_S = 60.0
"""Pause after a failed start in which no request triggers another one; doubled each time."""
MAX_BACKOFF_S = 900.0

Wake = Callable[[ServedModel, int], None]
"""Tells Serve how many requests wait for an engine of a model; 0: none any more."""


@dataclass(slots=True, eq=False)
class StartingRequest:
    """A request that waits for an engine to start."""

    request: InferenceRequest
    cold_start: "ColdStart"
    ready: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    is_waiting: bool = False

    @property
    def tenant(self) -> Tenant:
        """Tenant that sent the request."""
        return self.request.tenant

    @property
    def is_batch(self) -> bool:
        """Whether it is rejected before all interactive requests."""
        return self.request.is_batch

    @property
    def size_bytes(self) -> int:
        """Bytes of memory that it takes."""
        return len(self.request.body)

    def reject(self, reason: str) -> None:
        """End its wait with an error; `reason` is for the client."""
        self.cold_start.reject(self, reason)


@dataclass(frozen=True, slots=True)
class _FailedStart:
    """The last start, where it has failed."""

    deployed_s: float
    """Deployment of the model that failed."""
    reason: str
    backoff_s: float
    until_s: float
    """Until when no other start is tried, by the event loop's clock."""


class ColdStart:
    """Starts of one model, and the requests that wait for an engine of it.

    `all_starting`: the bytes of all models' requests that wait for a start.
    """

    def __init__(
        self, model: ServedModel, wake: Wake, all_starting: EvictionIndex[StartingRequest]
    ) -> None:
        self._model = model
        self._wake = wake
        self._limits = QueueLimits(model, all_starting, " for an engine to start")
        self._since_s: float | None = None
        """Since when a start is wanted, by the event loop's clock; None while none is."""
        self._until_s = 0.0
        """Until when it is wanted."""
        self._timer: asyncio.Handle | None = None
        self._failure: _FailedStart | None = None
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many requests wait for an engine."""
        return self._limits.waiting.weight

    @property
    def expected_s(self) -> float:
        """Estimated seconds until the start is done; if it is overdue, those of a whole start."""
        since_s = self._since_s
        elapsed_s = 0.0 if since_s is None else asyncio.get_running_loop().time() - since_s
        left_s = self._model.start_s - elapsed_s
        return max(MIN_RETRY_S, left_s if left_s > 0 else self._model.start_s)

    async def wait(
        self, request: InferenceRequest, *, waited_s: float = 0.0, deadline_s: float | None = None
    ) -> None:
        """Ask for an engine, and wait until one runs, but not beyond `deadline_s`.

        `waited_s`: how long the request has waited for earlier starts, which counts.

        Raises:
            ModelUnavailable: no engine has started in time, or none will.
            Overloaded: too many requests wait.
        """
        if self._is_closed:
            raise self._unavailable("it has been taken away")
        self._check_failure()
        now_s = asyncio.get_running_loop().time()
        timeout_s = self._model.options.cold_start_timeout_s
        limit_s = max(0.0, timeout_s - waited_s)
        if deadline_s is not None:
            limit_s = max(0.0, min(limit_s, deadline_s - now_s - MARGIN_S))
        waiting = StartingRequest(request, self)
        self._want_start(now_s)
        self._limits.make_room(
            waiting, max(1, self._model.options.queue.max_requests), self.expected_s
        )
        self._limits.add(waiting)
        waiting.is_waiting = True
        try:
            async with asyncio.timeout(limit_s):
                await waiting.ready
        except TimeoutError:
            reason = f"{self._model.reason}, for longer than {waited_s + limit_s:.3g} s"
            raise self._unavailable(reason) from None
        finally:
            self._remove(waiting)

    def request_start(self) -> None:
        """Ask for an engine that no request waits for."""
        if self._is_closed or self._backoff_s > 0:
            return
        now_s = asyncio.get_running_loop().time()
        self._want_start(now_s)
        self._until_s = max(self._until_s, now_s + self._model.options.cold_start_timeout_s)

    def reject(self, waiting: StartingRequest, reason: str) -> None:
        """End the wait of a request with an error; `reason` is for the client."""
        self._remove(waiting)
        if not waiting.ready.done():
            waiting.ready.set_exception(self._limits.overloaded(reason, self.expected_s))

    def update(self) -> None:
        """Follow a change of the model: a start that has succeeded ends the backoff."""
        if self._model.replicas:
            self._failure = None

    def close(self) -> None:
        """End the wait of all requests: the model has been removed."""
        self._is_closed = True
        self._settle("it has been taken away")
        if self._since_s is not None:
            self._end()

    def _want_start(self, now_s: float) -> None:
        if self._since_s is None:
            self._since_s = self._until_s = now_s
            self._timer = asyncio.get_running_loop().call_soon(self._check)

    def _check(self) -> None:
        """Ask for an engine, and settle the wait if one runs or none will."""
        loop, count = asyncio.get_running_loop(), self.waiting
        if count:
            self._until_s = max(self._until_s, loop.time() + LINGER_S)
        self._timer = loop.call_later(CHECK_S, self._check)
        self._wake(self._model, max(1, count))
        if self._is_over() or loop.time() >= self._until_s:
            self._end()

    def _is_over(self) -> bool:
        """Settle the wait if an engine runs or none will; return whether it is over."""
        model, reason = self._model, ""
        if not model.replicas:
            if model.state is not ModelState.UNHEALTHY or self._may_recover():
                return False
            self._record_failure()
            reason = model.reason
        self._settle(reason)
        return True

    def _settle(self, reason: str) -> None:
        """Let all requests go on; or fail, where there is a reason."""
        for waiting in self._limits.waiting:
            if waiting.ready.done():
                continue
            if reason:
                waiting.ready.set_exception(self._unavailable(reason))
            else:
                waiting.ready.set_result(None)

    def _end(self) -> None:
        """Stop asking for an engine."""
        self._since_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake(self._model, 0)

    def _remove(self, waiting: StartingRequest) -> None:
        if waiting.is_waiting:
            waiting.is_waiting = False
            self._limits.remove(waiting)

    def _may_recover(self) -> bool:
        """Whether a model that looks unhealthy may be about to try again."""
        age_s = asyncio.get_running_loop().time() - (self._since_s or 0.0)
        return self._last_failure is not None and age_s < RECOVERY_S

    @property
    def _last_failure(self) -> _FailedStart | None:
        """The failure of the last start, of the model as it is deployed now."""
        failure = self._failure
        return failure if failure and failure.deployed_s == self._model.deployed_s else None

    @property
    def _backoff_s(self) -> float:
        failure = self._last_failure
        return failure.until_s - asyncio.get_running_loop().time() if failure else 0.0

    def _check_failure(self) -> None:
        """Refuse to start the model for a while after a start that has failed."""
        failure, backoff_s = self._last_failure, self._backoff_s
        if failure and backoff_s > 0:
            message = f"The model `{self._model.name}` is unhealthy: {failure.reason}"
            raise ModelUnavailable(message, backoff_s)

    def _record_failure(self) -> None:
        """Postpone the next start after one that has failed, longer each time."""
        last = self._last_failure
        backoff_s = min(MAX_BACKOFF_S, 2 * last.backoff_s) if last else MIN_BACKOFF_S
        until_s = asyncio.get_running_loop().time() + backoff_s
        self._failure = _FailedStart(self._model.deployed_s, self._model.reason, backoff_s, until_s)

    def _unavailable(self, reason: str) -> ModelUnavailable:
        message = f"The model `{self._model.name}` is {self._model.condition}: {reason}"
        backoff_s = self._backoff_s
        return ModelUnavailable(message, backoff_s if backoff_s > 0 else self.expected_s)

"""Waits of one request for an engine: in a queue, for a start, for a successor, for a return.

All waits of one kind count together, over all attempts, until one of these has brought the client
anything new. No wait goes on beyond the request's deadline, which ends it from outside.
"""

import asyncio

from gateway.admission.queued_request import AdmissionRequest, QueuedRequest
from gateway.errors.upstream import ModelUnavailable, UpstreamFailed
from gateway.routing.decision import Decision
from gateway.routing.target import Target
from gateway.serving.pool import ModelPool
from gateway.serving.timing import QUEUE, Timing

CHECK_S = 0.05
"""How often the model's replicas are checked for one that has not been tried."""


class AttemptWaits:
    """Waits of one request for one model, and the replicas that its attempts are to avoid.

    `deadline_s`: when the answer must be there, by the event loop's clock. `cold_start_s`: how long
    the request has waited for the model to start, where it had to.
    """

    def __init__(
        self,
        target: Target,
        pool: ModelPool,
        timing: Timing,
        *,
        deadline_s: float | None,
        cold_start_s: float | None,
    ) -> None:
        self._target = target
        self._request = target.request
        self._pool = pool
        self._timing = timing
        self._deadline_s = deadline_s
        self._has_started = cold_start_s is not None
        self._starting_s = cold_start_s or 0.0
        """How long the request has waited for the model to start."""
        self._queued_s = 0.0
        """How long it has waited for a replica."""
        self.tried: set[str] = set()
        """Ids of the replicas that the next attempt avoids."""

    def restart(self) -> None:
        """Count from zero again: the waits so far have brought the client something."""
        self._queued_s = self._starting_s = 0.0

    def admission_request(self) -> AdmissionRequest:
        """The request with the limits of its next wait in a queue."""
        now_s = asyncio.get_running_loop().time()
        min_wait_s = 0.0
        if self._has_started:
            started_by_s = self._request.arrived_s + self._target.model.options.cold_start_timeout_s
            min_wait_s = max(0.0, started_by_s - now_s)
        return AdmissionRequest(
            self._target,
            self.tried,
            waited_s=self._queued_s,
            min_wait_s=min_wait_s,
            time_left_s=None if self._deadline_s is None else self._deadline_s - now_s,
        )

    async def in_queue(self, queued: QueuedRequest) -> Decision:
        """Wait until a queued request is admitted."""
        began_s = self._timing.now()
        try:
            with self._timing.step(QUEUE):
                return await queued.wait()
        finally:
            self._queued_s += self._timing.now() - began_s

    async def for_start(self, *, has_alternative: bool) -> None:
        """Wait until the model has an engine, unless another model may answer.

        Raises:
            ModelUnavailable: none has started in time, or another model may answer.
        """
        if self._request.is_copy or has_alternative:
            self._target.model.check_available()
        self._has_started = True
        began_s = self._timing.now()
        try:
            with self._timing.step(QUEUE):
                await self._pool.cold_start.wait(
                    self._request, waited_s=self._starting_s, deadline_s=self._deadline_s
                )
        finally:
            self._starting_s += self._timing.now() - began_s

    async def for_successor(self, *, has_alternative: bool) -> None:
        """Wait for a replica that has not been tried, as long as the request may wait.

        Batch requests wait no longer than interactive ones: a successor comes soon or not at all.

        Raises:
            ModelUnavailable: none has come.
        """
        model, timing = self._target.model, self._timing
        end_s = timing.now() + self._max_wait_s
        while all(replica in self.tried for replica in model.replicas):
            if not model.replicas:
                await self.for_start(has_alternative=has_alternative)
            elif timing.now() >= end_s:
                message = f"The model `{model.name}` has lost its engine; another one has to start."
                raise ModelUnavailable(message, model.start_s)
            else:
                began_s = timing.now()
                await asyncio.sleep(CHECK_S)
                self._queued_s += timing.now() - began_s

    async def for_return(self, replica: str, error: UpstreamFailed) -> None:
        """Wait until a replica is back that fell silent when the request came to it.

        The request may be the cause, so no other replica gets it.

        Raises:
            UpstreamFailed: it is `error`; the replica is not back in time, or is gone.
        """
        model, timing, replicas = self._target.model, self._timing, self._pool.scheduler.replicas
        began_s = timing.now()
        end_s = began_s + self._max_wait_s
        while not replicas.is_healthy(replica):
            if replica not in model.replicas or timing.now() >= end_s:
                error.is_final = True
                raise error
            await asyncio.sleep(CHECK_S)
        self._queued_s += timing.now() - began_s
        self.tried = model.replicas.keys() - {replica}

    @property
    def _max_wait_s(self) -> float:
        max_wait_s = self._pool.admission.max_wait_s(self.admission_request())
        return min(max_wait_s, self._target.model.options.queue.max_wait_s)

"""Requests in admission: those that ask to be admitted, and those that wait."""

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from gateway.admission.queue_item import QueueItem
from gateway.request.tenant import Tenant
from gateway.routing.decision import Decision
from gateway.routing.target import Target
from gateway.telemetry.demand import Demand


@dataclass(slots=True)
class AdmissionRequest:
    """A request that asks to be admitted to its model."""

    target: Target
    avoid: Collection[str] = ()
    """Ids of replicas that others are preferred to."""
    waited_s: float = 0.0
    """Seconds that it has waited before: its model's wait limit holds for all its attempts."""
    min_wait_s: float = 0.0
    """Seconds that it may still wait, whatever that limit: its model had to start for it."""
    time_left_s: float | None = None
    """Seconds until its deadline, at which its caller cancels it."""

    @property
    def tenant(self) -> Tenant:
        """Tenant to whose share of a replica's time the request counts."""
        return self.target.request.tenant

    @property
    def project(self) -> str:
        """Id of its project; empty without authentication."""
        return self.target.request.project

    @property
    def is_batch(self) -> bool:
        """Whether it may wait for all interactive requests."""
        return self.target.request.is_batch

    @property
    def size_bytes(self) -> int:
        """Bytes of memory that it takes while it is queued."""
        return len(self.target.request.body)

    def tokens(self, decision: Decision) -> float:
        """Estimated cost of the request for a replica."""
        head, prompt = self.target.request.head, self.target.prompt
        tokens = decision.prefill_tokens + head.sequences * decision.output_tokens
        if head.prompts_bytes > prompt.size:
            others_bytes = head.prompts_bytes - prompt.size
            tokens += others_bytes * decision.estimates.tokens_per_byte
        return max(1.0, tokens)


class AdmissionQueue(Protocol):
    """The queue in which a request waits, as far as the request uses it."""

    def reject(self, queued: "QueuedRequest", reason: str) -> None:
        """End the wait of a request with an error; `reason` is for the client."""

    def remove(self, queued: "QueuedRequest") -> None:
        """Forget a request whose caller no longer waits for it."""


@dataclass(slots=True, eq=False, kw_only=True)
class QueuedRequest(QueueItem):
    """A request that waits until its replica can start it: a ticket for the caller to await."""

    queue: AdmissionQueue
    request: AdmissionRequest
    decision: Decision
    since_s: float
    limit_s: float
    """How long it may wait: up to its model's limit or its own deadline."""
    admitted: asyncio.Future[Decision] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    timer: asyncio.TimerHandle | None = None
    is_waiting: bool = False
    """It has been queued, and neither released nor rejected."""
    is_released: bool = False
    """It may be sent, and its caller has not taken it yet."""

    @property
    def size_bytes(self) -> int:
        """Bytes of memory that it takes."""
        return self.request.size_bytes

    def reject(self, reason: str) -> None:
        """End the wait with an error; `reason` is for the client."""
        self.queue.reject(self, reason)

    async def wait(self) -> Decision:
        """Wait until the replica can start the request; to be awaited as soon as it is queued.

        The caller sends the request without awaiting anything else before: until then the replica's
        room is kept free only for this turn of the event loop. If cancelled, it leaves the queue.

        Raises:
            Overloaded: it has waited too long, or too many requests wait.
            GatewayError: the error of choosing another replica, where the first one has gone.
        """
        try:
            return await self.admitted
        finally:
            self.queue.remove(self)


def demand(queued: Collection[QueuedRequest]) -> Demand:
    """Load that these requests bring to the engine they wait for."""
    interactive = [each for each in queued if not each.is_batch]
    return Demand(
        requests=sum(each.decision.sequences for each in interactive),
        prefill_tokens=sum(each.decision.prefill_tokens for each in interactive),
        batch_requests=sum(each.decision.sequences for each in queued if each.is_batch),
        projects=Counter(each.project for each in interactive if each.project),
    )

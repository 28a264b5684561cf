"""A request that asks for its admission, and one that is held back."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from gateway.admission.queue_item import QueueItem
from gateway.request.tenant import Tenant
from gateway.routing.decision import Decision
from gateway.routing.target import Target
from gateway.telemetry import Demand


@dataclass(slots=True)
class AdmissionRequest:
    """A request that asks to be admitted to its model."""

    target: Target
    avoid: Collection[str] = ()
    """Ids of replicas to which others are preferred."""
    limit_s: float | None = None
    """Seconds that are left until its deadline; its caller ends it then."""
    patience_s: float = 0.0
    """Seconds that it may wait, where that is more than its model's requests may."""
    held: Callable[[], AbstractContextManager[object]] = nullcontext
    """Makes the context in which it waits, where it has to."""

    @property
    def tenant(self) -> Tenant:
        """Whom its share of a replica's time is counted for."""
        return self.target.request.tenant

    @property
    def is_batch(self) -> bool:
        """Whether it may wait for all interactive requests."""
        return self.target.request.is_batch

    @property
    def size_bytes(self) -> int:
        """Memory that it takes while it is queued."""
        return len(self.target.request.body)

    def tokens(self, decision: Decision) -> float:
        """What it costs a replica, estimated."""
        target = self.target
        tokens = decision.prefill_tokens + target.sequences * decision.output_tokens
        if target.prompts_bytes > target.prompt.size:
            others_bytes = target.prompts_bytes - target.prompt.size
            tokens += others_bytes * decision.estimates.tokens_per_byte
        return max(1.0, tokens)


@dataclass(slots=True, eq=False, kw_only=True)
class QueuedRequest(QueueItem):
    """A request that is held back."""

    reject: Callable[["QueuedRequest", str], None]
    """Turns it away, for a reason that the client is told."""
    request: AdmissionRequest
    decision: Decision
    since_s: float
    limit_s: float
    """How long it may wait, and has any use of it."""
    admitted: asyncio.Future[Decision] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    timer: asyncio.TimerHandle | None = None
    is_waiting: bool = False
    """It has been queued, and neither released nor turned away."""


def demand(held: Collection[QueuedRequest]) -> Demand:
    """What these want of the engine they are held for."""
    others = [each for each in held if not each.is_batch]
    return Demand(
        requests=sum(each.request.target.sequences for each in others),
        prefill_tokens=sum(each.decision.prefill_tokens for each in others),
        batch_requests=sum(each.request.target.sequences for each in held if each.is_batch),
    )

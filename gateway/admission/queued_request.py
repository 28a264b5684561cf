"""A request that asks for its admission, and one that is held back."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from gateway.admission.queue_item import QueueItem
from gateway.kvcache.prefix import Prompt
from gateway.request.tenant import ANONYMOUS, Tenant
from gateway.routing.decision import Decision
from gateway.routing.replica_state import prefill_tokens
from gateway.telemetry import Demand


@dataclass(slots=True)
class AdmissionRequest:
    """What a request wants of its admission."""

    choose: Callable[[], Decision]
    """Chooses its replica; may raise a `GatewayError`, which is the request's end."""
    prompt: Prompt
    tenant: Tenant = ANONYMOUS
    """Among whom a replica's time is shared out."""
    is_batch: bool = False
    size_bytes: int = 0
    """Memory that it takes while it is held."""
    limit_s: float | None = None
    """Seconds that are left to it; the caller ends it then."""
    patience_s: float = 0.0
    """Seconds that it may wait, where that is more than its model's requests may."""
    sequences: int = 1
    """What the engine makes of it: its answers, for each of its prompts."""
    prompts_bytes: int = 0
    """Of all its prompts, where these are a list: `prompt` is the first."""
    held: Callable[[], AbstractContextManager[object]] = nullcontext
    """Makes the context in which it waits, where it has to."""

    def decide(self) -> Decision:
        """Choose a replica for all that is wanted."""
        decision = self.choose()
        decision.is_batch, decision.sequences = self.is_batch, self.sequences
        return decision

    def tokens(self, decision: Decision) -> float:
        """What it costs a replica, estimated."""
        tokens = prefill_tokens(decision) + self.sequences * decision.output_tokens
        if self.prompts_bytes > self.prompt.size:
            others_bytes = self.prompts_bytes - self.prompt.size
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
        requests=sum(each.request.sequences for each in others),
        prefill_tokens=sum(prefill_tokens(each.decision) for each in others),
        batch_requests=sum(each.request.sequences for each in held if each.is_batch),
    )

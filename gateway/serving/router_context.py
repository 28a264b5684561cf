"""Context of requests: the collaborators that all requests of one router share."""

from dataclasses import dataclass, field

from gateway.faults import Faults
from gateway.limits.project_limits import ProjectLimits
from gateway.serving.drain import Drain
from gateway.serving.pool import ModelPools
from gateway.serving.retry_policy import RetryPolicy
from gateway.serving.settlements import Settlements
from gateway.upstream.engine_call import EngineClient


@dataclass(frozen=True, slots=True)
class RouterContext:
    """Collaborators of the requests of one router."""

    engines: EngineClient
    pools: ModelPools
    faults: Faults = field(default_factory=Faults)
    drain: Drain = field(default_factory=Drain)
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    limits: ProjectLimits | None = None
    """Limits of projects; without them, nothing is limited."""
    is_forwarded: bool = False
    """A proxy of the gateway's own names the client in `x-forwarded-for`."""
    settlements: Settlements | None = None
    """What the ledger must hear of attempts; None without a ledger."""

"""Item of a queue: a waiting request, as queues order it."""

from dataclasses import dataclass

from gateway.admission.indexed_heap import Rank
from gateway.request.tenant import Tenant


@dataclass(slots=True, eq=False)
class QueueItem:
    """A waiting request; it is never in two queues."""

    tenant: Tenant
    tokens: float
    """Cost of serving it."""
    priority_s: float
    """When it is due: of a tenant's requests the one due first is served first."""
    number: int
    """Order of arrival, which decides between requests due at the same time."""
    is_batch: bool = False
    """It may wait for all interactive requests."""
    project: str = ""
    """Id of its verified project; empty without authentication."""
    weight: float = 1.0
    """Share of a busy model's time that its project has for it, relative to others."""
    cost_s: float = 0.0
    """Seconds of the engine's time that it is expected to take."""

    @property
    def rank(self) -> Rank:
        """Key by which a tenant's requests are ordered."""
        return self.priority_s, self.number

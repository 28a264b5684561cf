"""A request's place in a queue."""

from dataclasses import dataclass

from gateway.admission.indexed_heap import Rank
from gateway.request.tenant import Tenant


@dataclass(slots=True, eq=False)
class QueueItem:
    """Of one request; none stands in two queues."""

    tenant: Tenant
    tokens: float
    """What it costs to serve."""
    due_s: float
    """The least goes first among those of the tenant."""
    number: int
    """Counts arrivals: of those due at the same time the first to come goes first."""
    is_batch: bool = False
    """It may wait for all that are not."""

    @property
    def rank(self) -> Rank:
        """What orders a tenant's requests."""
        return self.due_s, self.number

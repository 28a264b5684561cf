"""Check that HAProxy accepts as many connections as routers and engines hold requests."""

import logging

from gateway.cluster.connections import advice_for
from gateway.routing.fleet import Fleet, ServedModel

logger = logging.getLogger(__name__)


class ConnectionCheck:
    """Warns once for each set of models that needs more connections than HAProxy accepts."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._warned: frozenset[str] = frozenset()
        """Models of the last warning."""

    def check(self, limit: int, routers: int) -> None:
        """Warn if HAProxy accepts only `limit` connections, of all clients of `routers` routers."""
        if not self._fleet.is_settled:
            return
        held = sum(_held(model, routers) for model in self._fleet.models)
        names = frozenset(model.name for model in self._fleet.models)
        if limit >= held or names == self._warned:
            return
        self._warned = names
        logger.warning(
            "HAProxy accepts %d connections, and queues and engines hold up to %d requests: some"
            " clients get 503 too_many_connections though there is room for them; %s",
            *(limit, held, advice_for(held)),
        )


def _held(model: ServedModel, routers: int) -> int:
    """Requests that a model's queues, and its engines that run now, hold at the same time."""
    slots = sum(replica.metadata.facts.max_sequences for replica in model.replicas.values())
    return model.options.queue.max_requests * routers + slots

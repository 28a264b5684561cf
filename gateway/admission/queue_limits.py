"""How much may wait, and who is turned away where it is too much."""

from gateway.admission.eviction import EvictionIndex
from gateway.admission.queued_request import QueuedRequest
from gateway.errors import Overloaded
from gateway.request.tenant import Tenant
from gateway.routing.fleet import ServedModel

QUEUE_BYTES = 256 << 20
"""Bytes of bodies that one router holds back at the same time, of all models together."""
FORESEEN = 0.8
"""Of its limit, how long a wait may be foretold: that errs, and late rejections waited in vain."""
RETRY_S = 1.0
"""When a client may come again, where nothing has been measured."""


class QueueLimits:
    """One model's. `stock`: all bodies that this router holds."""

    def __init__(self, model: ServedModel, stock: EvictionIndex[QueuedRequest]) -> None:
        self._model = model
        self._stock = stock
        self._crowd: EvictionIndex[QueuedRequest] = EvictionIndex()

    def wait_s(self, *, is_batch: bool) -> float:
        """How long a request may wait."""
        queue = self._model.options.queue
        return queue.batch_max_wait_s if is_batch else queue.max_wait_s

    def held(self, *, is_batch: bool) -> int:
        """How many requests of a priority wait."""
        return self._crowd.weight_of(is_batch=is_batch)

    def has(self, tenant: Tenant) -> bool:
        """Whether anything interactive of a tenant's waits."""
        return self._crowd.has(tenant, is_batch=False)

    def add(self, held: QueuedRequest) -> None:
        """One more waits."""
        self._crowd.add(held)
        self._stock.add(held, held.request.size_bytes)

    def remove(self, held: QueuedRequest) -> None:
        """It waits no more."""
        self._crowd.remove(held)
        self._stock.remove(held)

    def make_room(self, held: QueuedRequest, wait_s: float | None) -> None:
        """Check all limits, and have others go where they have to.

        `wait_s`: how long it would wait, where that can be told.

        Raises:
            Overloaded: it is `held` who has to go.
        """
        if wait_s is not None and wait_s > FORESEEN * held.limit_s:
            raise self.overloaded(too_long(held.limit_s), wait_s)
        most = self._model.options.queue.max_requests
        reason = f"{most} requests are waiting" if most else "no request may wait for it"
        if not _clear(self._crowd, held, 1, most, reason):
            raise self.overloaded(reason, wait_s)
        reason = f"{QUEUE_BYTES >> 20} MiB of requests are waiting"
        if not _clear(self._stock, held, held.request.size_bytes, QUEUE_BYTES, reason):
            raise self.overloaded(reason, wait_s)

    def overloaded(self, reason: str, wait_s: float | None) -> Overloaded:
        """What a client is told that is turned away."""
        message = f"The model `{self._model.name}` is overloaded: {reason}."
        return Overloaded(message, wait_s or RETRY_S)


def too_long(limit_s: float) -> str:
    """The reason of which a request is turned away that waits for so long."""
    return f"the request waits longer than {round(limit_s, 2):g} s"


def _clear(
    crowd: EvictionIndex[QueuedRequest], held: QueuedRequest, weight: int, most: int, reason: str
) -> bool:
    """Have others go until there is room for `held`; whether there is."""
    while crowd.weight + weight > most:
        victim = crowd.victim(held, weight)
        if victim is None:
            return False
        victim.reject(victim, reason)
    return True

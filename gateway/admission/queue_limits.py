"""Limits on the requests that wait for a model: rejects some where there are too many."""

from typing import Generic, Protocol, TypeVar

from gateway.admission.eviction import Evictable, EvictionIndex
from gateway.errors.limits import Overloaded
from gateway.request.tenant import Tenant
from gateway.routing.fleet import ServedModel

WAITING_BYTES = 256 << 20
"""Bytes of bodies that wait in one router for the same thing, of all models together."""


class SizedRequest(Evictable, Protocol):
    """A waiting request with the size of its body."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its body."""


W = TypeVar("W", bound=SizedRequest)


class QueueLimits(Generic[W]):
    """Requests that wait for one model, bounded in number, and in bytes with other models'.

    `all_waiting`: the bytes of all models' requests that wait for the same thing. `purpose`: what
    they wait for, at the end of a sentence for clients.
    """

    def __init__(
        self, model: ServedModel, all_waiting: EvictionIndex[W], purpose: str = ""
    ) -> None:
        self._model = model
        self._all_waiting = all_waiting
        self._purpose = purpose
        self._waiting: EvictionIndex[W] = EvictionIndex()

    @property
    def waiting(self) -> EvictionIndex[W]:
        """Requests that wait for this model, each of weight 1."""
        return self._waiting

    def has(self, tenant: Tenant) -> bool:
        """Whether an interactive request of the tenant waits."""
        return self._waiting.has(tenant, is_batch=False)

    def add(self, request: W) -> None:
        """Count a request that waits from now on."""
        self._waiting.add(request)
        self._all_waiting.add(request, request.size_bytes)

    def remove(self, request: W) -> None:
        """Stop counting a request that no longer waits."""
        self._waiting.remove(request)
        self._all_waiting.remove(request)

    def make_room(self, newcomer: W, max_requests: int, retry_after_s: float) -> None:
        """Reject waiting requests until the newcomer fits.

        Raises:
            Overloaded: the newcomer itself has to be rejected; it may retry after that time.
        """
        reason = (
            f"{max_requests} requests are waiting{self._purpose}"
            if max_requests
            else "no request may wait for it"
        )
        if not self._waiting.make_room(newcomer, 1, max_requests, reason):
            raise self.overloaded(reason, retry_after_s)
        reason = f"{WAITING_BYTES >> 20} MiB of requests are waiting{self._purpose}"
        if not self._all_waiting.make_room(newcomer, newcomer.size_bytes, WAITING_BYTES, reason):
            raise self.overloaded(reason, retry_after_s)

    def overloaded(self, reason: str, retry_after_s: float) -> Overloaded:
        """The error for a client whose request is rejected."""
        message = f"The model `{self._model.name}` is overloaded: {reason}."
        return Overloaded(message, retry_after_s)

"""Index of waiting requests by address (or project) and key, to find the one to reject first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from gateway.request.tenant import Tenant


class Evictable(Protocol):
    """A waiting request that may be rejected to make room for another one."""

    @property
    def tenant(self) -> Tenant:
        """Tenant that sent the request."""

    @property
    def is_batch(self) -> bool:
        """Whether it is rejected before all interactive requests."""

    def reject(self, reason: str) -> None:
        """End its wait with an error; `reason` is for the client. It leaves the index at once."""


E = TypeVar("E", bound=Evictable)


@dataclass(slots=True, eq=False)
class _Key(Generic[E]):
    """Requests of one key at one address, of one priority."""

    weights: dict[E, int] = field(default_factory=dict)
    """In order of arrival."""
    weight: int = 0


@dataclass(slots=True, eq=False)
class _Address(Generic[E]):
    """Requests of one address, of one priority."""

    keys: dict[bytes, _Key[E]] = field(default_factory=dict)
    """By key."""
    weight: int = 0


@dataclass(slots=True, eq=False)
class _Priority(Generic[E]):
    """All requests of one priority."""

    addresses: dict[bytes, _Address[E]] = field(default_factory=dict)
    """By address."""
    weight: int = 0

    def add(self, request: E, weight: int) -> None:
        address_entry = self.addresses.setdefault(request.tenant.owner, _Address())
        key_entry = address_entry.keys.setdefault(request.tenant.key, _Key())
        key_entry.weights[request] = weight
        self._count(address_entry, key_entry, weight)

    def remove(self, request: E) -> None:
        address, key = request.tenant
        address_entry = self.addresses[address]
        key_entry = address_entry.keys[key]
        self._count(address_entry, key_entry, -key_entry.weights.pop(request))
        if not key_entry.weights:
            del address_entry.keys[key]
        if not address_entry.keys:
            del self.addresses[address]

    def _count(self, address_entry: _Address[E], key_entry: _Key[E], weight: int) -> None:
        self.weight += weight
        address_entry.weight += weight
        key_entry.weight += weight


class EvictionIndex(Generic[E]):
    """Waiting requests with weights: 1 each to bound their number, bytes to bound memory."""

    def __init__(self) -> None:
        self._interactive: _Priority[E] = _Priority()
        self._batch: _Priority[E] = _Priority()

    @property
    def weight(self) -> int:
        """Weight of all requests."""
        return self._interactive.weight + self._batch.weight

    def weight_of(self, *, is_batch: bool) -> int:
        """Weight of all requests of one priority."""
        return self._priority(is_batch=is_batch).weight

    def __iter__(self) -> Iterator[E]:
        """All requests that wait now; the index may change during the iteration."""
        addresses = [*self._interactive.addresses.values(), *self._batch.addresses.values()]
        keys = [
            key_entry for address_entry in addresses for key_entry in address_entry.keys.values()
        ]
        return iter([request for key_entry in keys for request in key_entry.weights])

    def add(self, request: E, weight: int = 1) -> None:
        """Add a request that waits from now on."""
        self._priority(is_batch=request.is_batch).add(request, weight)

    def remove(self, request: E) -> None:
        """Remove a request that no longer waits."""
        self._priority(is_batch=request.is_batch).remove(request)

    def has(self, tenant: Tenant, *, is_batch: bool) -> bool:
        """Whether the tenant has a request of this priority waiting."""
        address_entry = self._priority(is_batch=is_batch).addresses.get(tenant.owner)
        return address_entry is not None and tenant.key in address_entry.keys

    def make_room(self, newcomer: E, weight: int, limit: int, reason: str) -> bool:
        """Reject requests, for `reason`, until a newcomer of that weight fits within `limit`.

        Returns False where the newcomer itself has to be rejected.
        """
        while self.weight + weight > limit:
            victim = self.victim(newcomer, weight)
            if victim is None:
                return False
            victim.reject(reason)
        return True

    def victim(self, newcomer: E, weight: int = 1) -> E | None:
        """The request to reject for `newcomer`: the newest of the largest share, batch first.

        The largest share is that of the address with the most weight, and there of the key with the
        most. None where the newcomer's own share would then be the largest.
        """
        if self._batch.addresses and not newcomer.is_batch:
            return _newest(_largest(self._batch.addresses.values()))
        address, key = newcomer.tenant
        addresses = self._priority(is_batch=newcomer.is_batch).addresses
        own = addresses.get(address)
        wanted = weight + (own.weight if own else 0)
        if largest := _largest(
            address_entry for address_entry in addresses.values() if address_entry.weight >= wanted
        ):
            return _newest(largest)
        if own is None:
            return None
        wanted = weight + (own.keys[key].weight if key in own.keys else 0)
        return _last(
            _largest(key_entry for key_entry in own.keys.values() if key_entry.weight >= wanted)
        )

    def _priority(self, *, is_batch: bool) -> _Priority[E]:
        return self._batch if is_batch else self._interactive


G = TypeVar("G", _Key, _Address)  # type: ignore[type-arg]


def _largest(keys: Iterable[G]) -> G | None:
    return max(keys, key=lambda key_entry: key_entry.weight, default=None)


def _newest(address_entry: _Address[E] | None) -> E | None:
    return _last(_largest(address_entry.keys.values())) if address_entry else None


def _last(key_entry: _Key[E] | None) -> E | None:
    return next(reversed(key_entry.weights)) if key_entry else None

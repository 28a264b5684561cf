"""Index of waiting requests by address and key, to find the one to reject first."""

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

    groups: dict[bytes, _Key[E]] = field(default_factory=dict)
    """By key."""
    weight: int = 0


@dataclass(slots=True, eq=False)
class _Priority(Generic[E]):
    """All requests of one priority."""

    sites: dict[bytes, _Address[E]] = field(default_factory=dict)
    """By address."""
    weight: int = 0

    def add(self, request: E, weight: int) -> None:
        site = self.sites.setdefault(request.tenant.address, _Address())
        group = site.groups.setdefault(request.tenant.key, _Key())
        group.weights[request] = weight
        self._count(site, group, weight)

    def remove(self, request: E) -> None:
        address, key = request.tenant
        site = self.sites[address]
        group = site.groups[key]
        self._count(site, group, -group.weights.pop(request))
        if not group.weights:
            del site.groups[key]
        if not site.groups:
            del self.sites[address]

    def _count(self, site: _Address[E], group: _Key[E], weight: int) -> None:
        self.weight += weight
        site.weight += weight
        group.weight += weight


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
        return self._side(is_batch=is_batch).weight

    def __iter__(self) -> Iterator[E]:
        """All requests that wait now; the index may change during the iteration."""
        sites = [*self._interactive.sites.values(), *self._batch.sites.values()]
        groups = [group for site in sites for group in site.groups.values()]
        return iter([request for group in groups for request in group.weights])

    def add(self, request: E, weight: int = 1) -> None:
        """Add a request that waits from now on."""
        self._side(is_batch=request.is_batch).add(request, weight)

    def remove(self, request: E) -> None:
        """Remove a request that no longer waits."""
        self._side(is_batch=request.is_batch).remove(request)

    def has(self, tenant: Tenant, *, is_batch: bool) -> bool:
        """Whether the tenant has a request of this priority waiting."""
        site = self._side(is_batch=is_batch).sites.get(tenant.address)
        return site is not None and tenant.key in site.groups

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
        if self._batch.sites and not newcomer.is_batch:
            return _newest(_largest(self._batch.sites.values()))
        address, key = newcomer.tenant
        sites = self._side(is_batch=newcomer.is_batch).sites
        own = sites.get(address)
        wanted = weight + (own.weight if own else 0)
        if largest := _largest(site for site in sites.values() if site.weight >= wanted):
            return _newest(largest)
        if own is None:
            return None
        wanted = weight + (own.groups[key].weight if key in own.groups else 0)
        return _last(_largest(group for group in own.groups.values() if group.weight >= wanted))

    def _side(self, *, is_batch: bool) -> _Priority[E]:
        return self._batch if is_batch else self._interactive


G = TypeVar("G", _Key, _Address)  # type: ignore[type-arg]


def _largest(groups: Iterable[G]) -> G | None:
    return max(groups, key=lambda group: group.weight, default=None)


def _newest(site: _Address[E] | None) -> E | None:
    return _last(_largest(site.groups.values())) if site else None


def _last(group: _Key[E] | None) -> E | None:
    return next(reversed(group.weights)) if group else None

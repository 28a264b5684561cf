"""Who waits, by address and key, and who has to go when there is too much of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gateway.admission.queue_item import QueueItem
from gateway.request.tenant import Tenant

P = TypeVar("P", bound=QueueItem)


@dataclass(slots=True, eq=False)
class _Group(Generic[P]):
    """One tenant's, of one priority."""

    weights: dict[P, int] = field(default_factory=dict)
    """In the order in which they came."""
    weight: int = 0


@dataclass(slots=True, eq=False)
class _Site(Generic[P]):
    """One address's, of one priority."""

    groups: dict[bytes, _Group[P]] = field(default_factory=dict)
    """By their keys."""
    weight: int = 0


@dataclass(slots=True, eq=False)
class _Side(Generic[P]):
    """All of one priority."""

    sites: dict[bytes, _Site[P]] = field(default_factory=dict)
    """By their addresses."""
    weight: int = 0

    def add(self, place: P, weight: int) -> None:
        site = self.sites.setdefault(place.tenant.address, _Site())
        group = site.groups.setdefault(place.tenant.key, _Group())
        group.weights[place] = weight
        self._count(site, group, weight)

    def remove(self, place: P) -> None:
        address, key = place.tenant
        site = self.sites[address]
        group = site.groups[key]
        self._count(site, group, -group.weights.pop(place))
        if not group.weights:
            del site.groups[key]
        if not site.groups:
            del self.sites[address]

    def _count(self, site: _Site[P], group: _Group[P], weight: int) -> None:
        self.weight += weight
        site.weight += weight
        group.weight += weight


class EvictionIndex(Generic[P]):
    """All that wait, each with a weight: 1 to count them, their bytes to bound memory."""

    def __init__(self) -> None:
        self._interactive: _Side[P] = _Side()
        self._batch: _Side[P] = _Side()

    @property
    def weight(self) -> int:
        """Of all."""
        return self._interactive.weight + self._batch.weight

    def weight_of(self, *, is_batch: bool) -> int:
        """Of all of one priority."""
        return self._side(is_batch=is_batch).weight

    def __iter__(self) -> Iterator[P]:
        """All that wait, as they are now."""
        sites = [*self._interactive.sites.values(), *self._batch.sites.values()]
        groups = [group for site in sites for group in site.groups.values()]
        return iter([place for group in groups for place in group.weights])

    def add(self, place: P, weight: int = 1) -> None:
        """One more waits."""
        self._side(is_batch=place.is_batch).add(place, weight)

    def remove(self, place: P) -> None:
        """It waits no more."""
        self._side(is_batch=place.is_batch).remove(place)

    def has(self, tenant: Tenant, *, is_batch: bool) -> bool:
        """Whether anything of a tenant's waits."""
        site = self._side(is_batch=is_batch).sites.get(tenant.address)
        return site is not None and tenant.key in site.groups

    def victim(self, newcomer: P, weight: int = 1) -> P | None:
        """Who makes room for `newcomer`: the newest of the most, batch first.

        That is: of the address that has the most, and there of the key that has the most. None
        where the newcomer's own would then be these: it has no better right.
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

    def _side(self, *, is_batch: bool) -> _Side[P]:
        return self._batch if is_batch else self._interactive


G = TypeVar("G", _Group, _Site)  # type: ignore[type-arg]


def _largest(groups: Iterable[G]) -> G | None:
    return max(groups, key=lambda group: group.weight, default=None)


def _newest(site: _Site[P] | None) -> P | None:
    return _last(_largest(site.groups.values())) if site else None


def _last(group: _Group[P] | None) -> P | None:
    return next(reversed(group.weights)) if group else None

"""Who waits, by tenant, and who has to go when there is too much of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gateway.admission.fair_queue import Place

P = TypeVar("P", bound=Place)


@dataclass(slots=True, eq=False)
class _Group(Generic[P]):
    """One tenant's, of one priority."""

    weights: dict[P, int] = field(default_factory=dict)
    """In the order in which they came."""
    weight: int = 0


class Crowd(Generic[P]):
    """All that wait, each with a weight: 1 to count them, their bytes to bound memory."""

    def __init__(self) -> None:
        self._interactive: dict[bytes, _Group[P]] = {}
        self._batch: dict[bytes, _Group[P]] = {}
        self.weight = 0
        """Of all."""

    def add(self, place: P, weight: int = 1) -> None:
        """One more waits."""
        group = self._groups(is_batch=place.is_batch).setdefault(place.tenant, _Group())
        group.weights[place] = weight
        group.weight += weight
        self.weight += weight

    def remove(self, place: P) -> None:
        """It waits no more."""
        groups = self._groups(is_batch=place.is_batch)
        group = groups[place.tenant]
        weight = group.weights.pop(place)
        group.weight -= weight
        self.weight -= weight
        if not group.weights:
            del groups[place.tenant]

    def has(self, tenant: bytes, *, is_batch: bool) -> bool:
        """Whether anything of a tenant's waits."""
        return tenant in self._groups(is_batch=is_batch)

    def victim(self, newcomer: P, weight: int = 1) -> P | None:
        """Who makes room for `newcomer`: the newest of the tenant with the most, batch first.

        None where the newcomer's own tenant would then have the most: it has no better right.
        """
        if self._batch and not newcomer.is_batch:
            return _newest(self._batch.values())
        groups = self._groups(is_batch=newcomer.is_batch)
        own = groups.get(newcomer.tenant)
        wanted = weight + (own.weight if own else 0)
        return _newest(group for group in groups.values() if group.weight >= wanted)

    def _groups(self, *, is_batch: bool) -> dict[bytes, _Group[P]]:
        return self._batch if is_batch else self._interactive


def _newest(groups: Iterable[_Group[P]]) -> P | None:
    largest = max(groups, key=lambda group: group.weight, default=None)
    return next(reversed(largest.weights)) if largest else None

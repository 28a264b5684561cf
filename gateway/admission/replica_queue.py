"""Requests held back for one replica: interactive ones before batch ones, each fairly."""

from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.admission.bypass_queue import BypassQueue
from gateway.admission.drain_rate import DrainRate
from gateway.admission.queue_item import QueueItem

P = TypeVar("P", bound=QueueItem)


class ReplicaQueue(Generic[P]):
    """One replica's; `now` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._interactive: BypassQueue[P] = BypassQueue()
        self._batch: BypassQueue[P] = BypassQueue()
        self._rate = DrainRate(now)

    def __len__(self) -> int:
        """How many it holds."""
        return len(self._interactive) + len(self._batch)

    def is_free(self, *, is_batch: bool) -> bool:
        """Whether nobody is held who goes before a newcomer."""
        return not self._interactive and not (is_batch and self._batch)

    def add(self, place: P) -> None:
        """Hold one more."""
        if not self:
            self._rate.begin()
        self._line(is_batch=place.is_batch).add(place)

    def take(self, fits: Callable[[P], bool], can_wait: Callable[[P], bool]) -> P | None:
        """Take out the next one that is started: one that fits, and all before it can wait."""
        place = (self._interactive or self._batch).take(fits, can_wait)
        if place is not None:
            self._rate.start()
            self._rest()
        return place

    def remove(self, place: P) -> None:
        """Take out one that is not started."""
        self._line(is_batch=place.is_batch).remove(place)
        self._rest()

    def wait_s(self, place: P) -> float | None:
        """How long `place` would wait from now on; None where it cannot be told."""
        per_s = self._rate.per_s
        if per_s is None:
            return None
        ahead = self._line(is_batch=place.is_batch).ahead(place)
        return (ahead + len(self._interactive) * place.is_batch) / per_s

    def clear_s(self, *, is_batch: bool) -> float | None:
        """How long until all of that priority are started; None where it cannot be told; O(1)."""
        per_s = self._rate.per_s
        count = len(self) if is_batch else len(self._interactive)
        return None if per_s is None else count / per_s

    def _line(self, *, is_batch: bool) -> BypassQueue[P]:
        return self._batch if is_batch else self._interactive

    def _rest(self) -> None:
        if not self:
            self._rate.rest()

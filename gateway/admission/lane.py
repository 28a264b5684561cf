"""Requests held back for one replica: interactive ones before batch ones, each fairly."""

from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.admission.fair_queue import FairQueue, Place
from gateway.admission.rate import DrainRate

P = TypeVar("P", bound=Place)


class Lane(Generic[P]):
    """One replica's; `now` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._interactive: FairQueue[P] = FairQueue()
        self._batch: FairQueue[P] = FairQueue()
        self._rate = DrainRate(now)

    def __len__(self) -> int:
        """How many it holds."""
        return len(self._interactive) + len(self._batch)

    @property
    def first(self) -> P | None:
        """Who is served next."""
        return self._interactive.first or self._batch.first

    def is_free(self, *, is_batch: bool) -> bool:
        """Whether nobody is held who goes before a newcomer."""
        return not self._interactive and not (is_batch and self._batch)

    def add(self, place: P) -> None:
        """Hold one more."""
        if not self:
            self._rate.begin()
        self._queue(is_batch=place.is_batch).add(place)

    def serve(self) -> P:
        """Take the first one out, of a lane that has one: it is started."""
        place = (self._interactive or self._batch).serve()
        self._rate.start()
        self._rest()
        return place

    def remove(self, place: P) -> None:
        """Take out one that is not started."""
        self._queue(is_batch=place.is_batch).remove(place)
        self._rest()

    def wait_s(self, place: P) -> float | None:
        """How long `place` would wait from now on; None where it cannot be told."""
        per_s = self._rate.per_s
        if per_s is None:
            return None
        ahead = self._queue(is_batch=place.is_batch).ahead(place)
        return (ahead + len(self._interactive) * place.is_batch) / per_s

    def _queue(self, *, is_batch: bool) -> FairQueue[P]:
        return self._batch if is_batch else self._interactive

    def _rest(self) -> None:
        if not self:
            self._rate.rest()

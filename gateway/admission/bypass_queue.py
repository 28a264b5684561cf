"""Requests of one priority held back for one replica: fair, and no large one idles it.

Method: who is first and does not fit, though a smaller one would, steps aside, at its cost, and is
looked at before all others from then on. Those behind pass it as long as it can wait; then they
wait, too, and what ends makes room for it.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.admission.fair_queue import FairQueue
from gateway.admission.queue_item import QueueItem

ASIDE = 16
"""How many may stand aside: each of them is looked at whenever there may be more room."""

P = TypeVar("P", bound=QueueItem)


class BypassQueue(Generic[P]):
    """Those that wait, none of them twice."""

    def __init__(self) -> None:
        self._queue: FairQueue[P] = FairQueue()
        self._aside: dict[P, None] = {}
        """In the order in which they were first."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue) + len(self._aside)

    def add(self, place: P) -> None:
        """One more waits."""
        self._queue.add(place)

    def remove(self, place: P) -> None:
        """Take out one that is not started."""
        if place in self._aside:
            del self._aside[place]
        else:
            self._queue.remove(place)

    def take(self, fits: Callable[[P], bool], can_wait: Callable[[P], bool]) -> P | None:
        """Take out who is started next: the first that fits and whom all before it let pass."""
        for place in self._aside:
            if fits(place):
                del self._aside[place]
                return place
            if not can_wait(place):
                return None
        while (first := self._queue.first) is not None:
            if fits(first):
                return self._queue.serve()
            if len(self._aside) == ASIDE or not can_wait(first):
                return None
            self._aside[self._queue.serve()] = None
        return None

    def ahead(self, place: P) -> int:
        """About how many would be started before `place`, which may be in the line or not yet."""
        if place in self._aside:
            return list(self._aside).index(place)
        return len(self._aside) + self._queue.ahead(place).requests

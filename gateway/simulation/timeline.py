"""Virtual time: what happens when, one event after the other."""

import heapq
import itertools
from collections.abc import Callable


class Timeline:
    """A clock that jumps from event to event; called, it gives its time in seconds."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def __call__(self) -> float:
        """The time now."""
        return self._now_s

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        """Let something happen; events of one time happen in the order they were given."""
        heapq.heappush(self._events, (time_s, next(self._order), event))

    def run(self) -> None:
        """Let everything happen, until nothing is left."""
        while self._events:
            self._now_s, _, event = heapq.heappop(self._events)
            event()

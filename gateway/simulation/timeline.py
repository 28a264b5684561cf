"""Virtual time: events that happen one after the other, without waiting."""

import heapq
import itertools
from collections.abc import Callable


class Timeline:
    """Clock that jumps from event to event; calling it returns its time in seconds."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._serial = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def __call__(self) -> float:
        """Return the current time."""
        return self._now_s

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        """Schedule an event; events of the same time run in the order of these calls."""
        heapq.heappush(self._events, (time_s, next(self._serial), event))

    def run(self) -> None:
        """Run all events, also those that events schedule, until none is left."""
        while self._events:
            self._now_s, _, event = heapq.heappop(self._events)
            event()

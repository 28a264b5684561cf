"""Queue of one priority for one replica in which a large request does not idle the replica.

Method: the first request, where it does not fit though a smaller one would, steps aside. It pays
its cost, and is checked before all others from then on. Requests behind it pass it for as long as
it lets them; then they wait, too, and requests that end make room for it. While it only leaves room
to what other routers hold, it keeps nobody from starting.
"""

import enum
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.admission.fair_queue import FairQueue, QueueDiscipline
from gateway.admission.queue_item import QueueItem

MAX_ASIDE = 16
"""Requests that may stand aside: each of them is checked whenever there may be more room."""

Q = TypeVar("Q", bound=QueueItem)


class StartVerdict(enum.Enum):
    """What becomes of a request that is checked."""

    START = enum.auto()
    STEP_ASIDE = enum.auto()
    """It does not fit, and smaller ones pass it."""
    YIELD = enum.auto()
    """It fits, and leaves the room to what other routers hold; so do all that come after it."""
    WAIT = enum.auto()
    """It does not fit, and nothing passes it."""


class BypassQueue(Generic[Q]):
    """Waiting requests, none of them twice; `queue`: an empty one, which orders them."""

    def __init__(self, queue: QueueDiscipline[Q] | None = None) -> None:
        self._queue: QueueDiscipline[Q] = FairQueue() if queue is None else queue
        self._aside: dict[Q, None] = {}
        """In the order in which they were first."""

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._queue) + len(self._aside)

    def add(self, item: Q) -> None:
        """Add a request."""
        self._queue.add(item)

    def remove(self, item: Q) -> None:
        """Take out a request that is not started."""
        if item in self._aside:
            del self._aside[item]
        else:
            self._queue.remove(item)

    def pop(self, check: Callable[[Q], StartVerdict]) -> Q | None:
        """Take out the request to start next: the first that may, where all before let it pass."""
        for item in self._aside:
            verdict = check(item)
            if verdict is StartVerdict.START:
                del self._aside[item]
                return item
            if verdict is StartVerdict.WAIT:
                return None
        while (first := self._queue.first) is not None:
            verdict = check(first)
            if verdict is StartVerdict.START:
                return self._queue.serve()
            if verdict is not StartVerdict.STEP_ASIDE or len(self._aside) == MAX_ASIDE:
                return None
            self._aside[self._queue.serve()] = None
        return None

    def ahead(self, item: Q) -> int:
        """About how many would be started before `item`, which need not be in the queue yet."""
        if item in self._aside:
            return list(self._aside).index(item)
        return len(self._aside) + self._queue.ahead(item).requests

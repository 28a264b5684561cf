"""Things in the order of their ranks, of which any may be taken out.

Method: a heap in which what has been taken out stays until it comes up, or is the larger part; a
dictionary knows what is there. Cost: O(log things), amortised, for one that comes or goes.
"""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")
Rank = tuple[float, int]
"""What orders things, and a number that no two have in common."""
SLACK = 8
"""Dead entries that are never worth a sweep."""


class IndexedHeap(Generic[T]):
    """Things that can be told apart, the least rank first."""

    def __init__(self) -> None:
        self.ranks: dict[T, Rank] = {}
        """Of all that are there; not to be changed."""
        self._heap: list[tuple[Rank, T]] = []

    def __len__(self) -> int:
        """How many are there."""
        return len(self.ranks)

    @property
    def first(self) -> T | None:
        """The one with the least rank."""
        return self._heap[0][1] if self._heap else None

    def add(self, thing: T, rank: Rank) -> None:
        """One more, that is not there yet."""
        self.ranks[thing] = rank
        heapq.heappush(self._heap, (rank, thing))

    def remove(self, thing: T) -> None:
        """Take out one that is there."""
        del self.ranks[thing]
        if len(self._heap) > 2 * len(self.ranks) + SLACK:
            self._heap = [(rank, other) for other, rank in self.ranks.items()]
            heapq.heapify(self._heap)
        while self._heap and self.ranks.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)

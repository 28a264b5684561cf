"""Heap from which any item can be removed.

Method: a heap in which removed items stay until they come up, or are the larger part; a dictionary
knows what is there. Cost: O(log items), amortised, for each item added or removed.
"""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")
Rank = tuple[float, int]
"""Key that orders items, with a number that no two items have in common."""
SLACK = 8
"""Removed items that are never worth a sweep."""


class IndexedHeap(Generic[T]):
    """Distinct items, the least rank first."""

    def __init__(self) -> None:
        self.ranks: dict[T, Rank] = {}
        """Ranks of all items; read only."""
        self._heap: list[tuple[Rank, T]] = []

    def __len__(self) -> int:
        """How many items there are."""
        return len(self.ranks)

    @property
    def first(self) -> T | None:
        """The item with the least rank."""
        return self._heap[0][1] if self._heap else None

    def add(self, item: T, rank: Rank) -> None:
        """Add an item that is not there yet."""
        self.ranks[item] = rank
        heapq.heappush(self._heap, (rank, item))

    def remove(self, item: T) -> None:
        """Remove an item that is there."""
        del self.ranks[item]
        if len(self._heap) > 2 * len(self.ranks) + SLACK:
            self._heap = [(rank, other) for other, rank in self.ranks.items()]
            heapq.heapify(self._heap)
        while self._heap and self.ranks.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)

"""KV cache of a simulated replica: shared blocks with content hashes and LRU eviction.

As in vLLM, blocks of running sequences are pinned, and unused blocks stay until their room is
needed. A sequence's blocks are unpinned last block first, so that the beginning of a prompt
outlives its end. O(1) per block.
"""

from collections import OrderedDict
from collections.abc import Sequence


class BlockCache:
    """Cache of `capacity` blocks."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._pin_counts: dict[int, int] = {}
        """Number of sequences that use each pinned block."""
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Unused blocks, least recently used first."""
        self._unhashed = 0
        """Number of pinned blocks without a hash: partly filled ones, and room for answers."""

    @property
    def used(self) -> int:
        """Number of blocks that are pinned or hold cached content."""
        return len(self._pin_counts) + self._unhashed + len(self._idle)

    @property
    def free(self) -> int:
        """Number of blocks that could be pinned now."""
        return self.capacity - len(self._pin_counts) - self._unhashed

    def match(self, hashes: Sequence[int]) -> int:
        """Return how many of the first blocks are cached."""
        for count, block in enumerate(hashes):
            if block not in self._pin_counts and block not in self._idle:
                return count
        return len(hashes)

    def match_pinned(self, hashes: Sequence[int]) -> int:
        """Return how many of the first blocks are pinned."""
        for count, block in enumerate(hashes):
            if block not in self._pin_counts:
                return count
        return len(hashes)

    def pin(self, hashes: Sequence[int]) -> None:
        """Pin blocks, both cached ones and ones about to be computed."""
        for block in hashes:
            self._idle.pop(block, None)
            self._pin_counts[block] = self._pin_counts.get(block, 0) + 1
        self._evict()

    def reserve(self, blocks: int) -> None:
        """Pin `blocks` blocks without a hash; a negative number unpins them."""
        self._unhashed += blocks
        self._evict()

    def keep(self, hashes: Sequence[int]) -> None:
        """Add unused blocks, as if just unpinned, as far as there is room."""
        for block in reversed(hashes):
            if block not in self._pin_counts:
                self._idle[block] = None
                self._idle.move_to_end(block)
        self._evict()

    def unpin(self, hashes: Sequence[int]) -> None:
        """Unpin blocks; they stay cached until their room is needed."""
        for block in reversed(hashes):
            users = self._pin_counts.get(block, 0) - 1
            if users > 0:
                self._pin_counts[block] = users
            else:
                self._pin_counts.pop(block, None)
                self._idle[block] = None

    def _evict(self) -> None:
        while self._idle and self.used > self.capacity:
            self._idle.popitem(last=False)

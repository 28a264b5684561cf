"""The KV cache of a simulated replica: blocks with a content hash, shared, least recently used out.

As in vLLM: blocks of running sequences are pinned, blocks nobody uses stay until their room is
wanted, and a sequence's blocks are given back last block first, so that the beginning of a prompt
outlives its end. O(1) a block.
"""

from collections import OrderedDict
from collections.abc import Sequence


class BlockCache:
    """A cache of `capacity` blocks."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._pins: dict[int, int] = {}
        """How many sequences use a block."""
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Blocks nobody uses, least recently used first."""
        self._unnamed = 0
        """Pinned blocks without a hash: partly filled ones, and room for an answer."""

    @property
    def used(self) -> int:
        """Blocks with something in them, or taken for it."""
        return len(self._pins) + self._unnamed + len(self._idle)

    @property
    def free(self) -> int:
        """Blocks that could be taken now."""
        return self.capacity - len(self._pins) - self._unnamed

    def match(self, hashes: Sequence[int]) -> int:
        """How many of the first blocks are here."""
        for count, block in enumerate(hashes):
            if block not in self._pins and block not in self._idle:
                return count
        return len(hashes)

    def pinned(self, hashes: Sequence[int]) -> int:
        """How many of the first blocks are in use."""
        for count, block in enumerate(hashes):
            if block not in self._pins:
                return count
        return len(hashes)

    def pin(self, hashes: Sequence[int]) -> None:
        """Use blocks, those here and those about to be computed."""
        for block in hashes:
            self._idle.pop(block, None)
            self._pins[block] = self._pins.get(block, 0) + 1
        self._make_room()

    def reserve(self, blocks: int) -> None:
        """Use `blocks` blocks without a hash; negative: give them back."""
        self._unnamed += blocks
        self._make_room()

    def keep(self, hashes: Sequence[int]) -> None:
        """Have blocks that nobody uses, as if just given back, as far as there is room."""
        for block in reversed(hashes):
            if block not in self._pins:
                self._idle[block] = None
                self._idle.move_to_end(block)
        self._make_room()

    def unpin(self, hashes: Sequence[int]) -> None:
        """Give blocks back; they stay until their room is wanted."""
        for block in reversed(hashes):
            left = self._pins.get(block, 0) - 1
            if left > 0:
                self._pins[block] = left
            else:
                self._pins.pop(block, None)
                self._idle[block] = None

    def _make_room(self) -> None:
        while self._idle and self.used > self.capacity:
            self._idle.popitem(last=False)

"""Order of the lines of a batch: depth-first in the tree of their prompts.

Method: prompts that share their first n blocks share their first n prefix keys. Sorted by their
chains of keys, the prompts of one subtree stand together: what they share is computed once, and
used by the last of them before anything else evicts it. Of a chain, the keys at some depths are
enough, `DEPTHS`, each at most a quarter deeper than the one before: two prompts that share n blocks
stand together as far as the last of these depths before n. Four bytes of each key are enough, too:
if they collide, two groups are mixed up, and nothing is wrong.

Cost: at most `len(DEPTHS) * 4` bytes for each line.
"""

from collections.abc import Sequence
from struct import Struct

from gateway.kvcache.prefix import MAX_KEYS

GROWTH = 1.25
KEY_BYTES = 4
_WORD = Struct(">I")
_MASK = 0xFFFF_FFFF


def _depths() -> tuple[int, ...]:
    found = [1]
    while (depth := max(found[-1] + 1, int(found[-1] * GROWTH))) <= MAX_KEYS:
        found.append(depth)
    return tuple(found)


DEPTHS = _depths()
"""Numbers of blocks after which a prompt's key counts for its place."""


def order_key(keys: Sequence[int]) -> bytes:
    """The place of a prompt with these prefix keys: smaller ones come first."""
    count = len(keys)
    return b"".join([_WORD.pack(keys[depth - 1] & _MASK) for depth in DEPTHS if depth <= count])


def shared_depth(first: bytes, second: bytes) -> int:
    """Blocks that two prompts share, given their places, as far as these tell."""
    depth = 0
    for index, blocks in enumerate(DEPTHS):
        start, end = index * KEY_BYTES, (index + 1) * KEY_BYTES
        if len(first) < end or first[start:end] != second[start:end]:
            break
        depth = blocks
    return depth

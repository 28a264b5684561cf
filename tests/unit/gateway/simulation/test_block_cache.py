"""Block cache of a simulated replica, compared with a plain list."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from gateway.simulation.cache import BlockCache

CAPACITY = 6
CHAINS = [(1, 2, 3), (1, 2, 4, 5), (6, 7), (8,)]
"""Blocks of prompts; some begin alike."""

Action = tuple[str, int]
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["pin", "unpin", "reserve", "release", "keep"]), st.integers(0, 3))
)


@dataclass
class Oracle:
    """Expected contents of the cache: all blocks, least recently used first."""

    blocks: list[int] = field(default_factory=list)
    pinned_chains: list[tuple[int, ...]] = field(default_factory=list)
    """Pinned chains, one entry per user."""
    reserved: int = 0

    @property
    def pinned(self) -> set[int]:
        """Blocks that are pinned."""
        return {block for chain in self.pinned_chains for block in chain}

    @property
    def free(self) -> int:
        """Number of blocks that could be pinned."""
        return CAPACITY - len(self.pinned) - self.reserved

    def touch(self, chain: tuple[int, ...]) -> None:
        """Use blocks, the last one first, then evict."""
        for block in reversed(chain):
            if block in self.blocks:
                self.blocks.remove(block)
            self.blocks.append(block)
        self.evict()

    def evict(self) -> None:
        """Drop the least recently used blocks that are not pinned."""
        while len(self.blocks) + self.reserved > CAPACITY:
            self.blocks.remove(next(block for block in self.blocks if block not in self.pinned))


def perform(action: Action, cache: BlockCache, oracle: Oracle) -> None:
    """Apply an action to both, if a replica could do it."""
    kind, choice = action
    chain = CHAINS[choice]
    if kind == "pin" and len(set(chain) - oracle.pinned) <= oracle.free:
        cache.pin(chain)
        oracle.pinned_chains.append(chain)
        oracle.touch(chain)
    elif kind == "unpin" and chain in oracle.pinned_chains:
        cache.unpin(chain)
        oracle.pinned_chains.remove(chain)
        oracle.touch(tuple(block for block in chain if block not in oracle.pinned))
    elif kind == "reserve" and choice <= oracle.free:
        cache.reserve(choice)
        oracle.reserved += choice
        oracle.evict()
    elif kind == "release" and choice <= oracle.reserved:
        cache.reserve(-choice)
        oracle.reserved -= choice
    elif kind == "keep":
        cache.keep(chain)
        oracle.touch(tuple(block for block in chain if block not in oracle.pinned))


@given(actions=ACTIONS)
def test_the_cache_holds_pinned_and_recently_used_blocks(actions: list[Action]) -> None:
    """It holds all pinned blocks, and the latest used of the others that fit."""
    cache, oracle = BlockCache(CAPACITY), Oracle()
    for action in actions:
        perform(action, cache, oracle)
        cached = {block for block in range(9) if cache.match([block])}
        assert cached == set(oracle.blocks)
        assert cache.used == len(cached) + oracle.reserved <= CAPACITY
        assert cache.free == oracle.free
        assert {block for block in range(9) if cache.match_pinned([block])} == oracle.pinned


def test_a_match_ends_at_the_first_missing_block() -> None:
    """Blocks after a gap do not count, pinned or not."""
    cache = BlockCache(9)
    cache.pin([1, 2, 4])
    cache.keep([5])
    assert (cache.match([1, 2, 3, 4]), cache.match_pinned([1, 2, 3, 4])) == (2, 2)
    assert (cache.match([4, 5, 6]), cache.match_pinned([4, 5, 6])) == (2, 1)
    assert cache.match([]) == cache.match_pinned([]) == 0


def test_the_beginning_of_a_prompt_outlives_its_end() -> None:
    """The last blocks of an unpinned prompt are evicted first."""
    cache = BlockCache(4)
    cache.pin([1, 2, 3, 4])
    cache.unpin([1, 2, 3, 4])
    cache.reserve(2)
    assert cache.match([1, 2, 3, 4]) == 2


def test_a_block_is_pinned_until_its_last_user_unpins_it() -> None:
    """Two users of a block take the room of one."""
    cache = BlockCache(2)
    cache.pin([1])
    cache.pin([1])
    assert cache.free == 1
    cache.unpin([1])
    assert (cache.free, cache.match_pinned([1])) == (1, 1)
    cache.unpin([1])
    assert (cache.free, cache.match_pinned([1]), cache.match([1])) == (2, 0, 1)

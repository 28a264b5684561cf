"""The block cache of a simulated replica, against a list that is searched from end to end."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from gateway.simulation.cache import BlockCache

CAPACITY = 6
CHAINS = [(1, 2, 3), (1, 2, 4, 5), (6, 7), (8,)]
"""Blocks as prompts have them: some begin alike."""

Action = tuple[str, int]
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["pin", "unpin", "reserve", "release", "keep"]), st.integers(0, 3))
)


@dataclass
class Oracle:
    """What the cache should hold: every block with its users, least recently used first."""

    blocks: list[int] = field(default_factory=list)
    held: list[tuple[int, ...]] = field(default_factory=list)
    """Chains in use, one for each user."""
    reserved: int = 0

    @property
    def in_use(self) -> set[int]:
        """Blocks that somebody uses."""
        return {block for chain in self.held for block in chain}

    @property
    def free(self) -> int:
        """Blocks that nobody uses."""
        return CAPACITY - len(self.in_use) - self.reserved

    def touch(self, chain: tuple[int, ...]) -> None:
        """Use blocks now, the last one first, and evict what there is no room for."""
        for block in reversed(chain):
            if block in self.blocks:
                self.blocks.remove(block)
            self.blocks.append(block)
        self.evict()

    def evict(self) -> None:
        """Drop the least recently used blocks that nobody uses."""
        while len(self.blocks) + self.reserved > CAPACITY:
            self.blocks.remove(next(block for block in self.blocks if block not in self.in_use))


def perform(action: Action, cache: BlockCache, oracle: Oracle) -> None:
    """Do the same to both, if a replica could do it."""
    kind, choice = action
    chain = CHAINS[choice]
    if kind == "pin" and len(set(chain) - oracle.in_use) <= oracle.free:
        cache.pin(chain)
        oracle.held.append(chain)
        oracle.touch(chain)
    elif kind == "unpin" and chain in oracle.held:
        cache.unpin(chain)
        oracle.held.remove(chain)
        oracle.touch(tuple(block for block in chain if block not in oracle.in_use))
    elif kind == "reserve" and choice <= oracle.free:
        cache.reserve(choice)
        oracle.reserved += choice
        oracle.evict()
    elif kind == "release" and choice <= oracle.reserved:
        cache.reserve(-choice)
        oracle.reserved -= choice
    elif kind == "keep":
        cache.keep(chain)
        oracle.touch(tuple(block for block in chain if block not in oracle.in_use))


@given(actions=ACTIONS)
def test_it_holds_what_was_used_last(actions: list[Action]) -> None:
    """Whatever happens, no more than fits, all that is in use, and of the rest the latest used."""
    cache, oracle = BlockCache(CAPACITY), Oracle()
    for action in actions:
        perform(action, cache, oracle)
        held = {block for block in range(9) if cache.match([block])}
        assert held == set(oracle.blocks)
        assert cache.used == len(held) + oracle.reserved <= CAPACITY
        assert cache.free == oracle.free
        assert {block for block in range(9) if cache.pinned([block])} == oracle.in_use


def test_a_match_ends_at_the_first_missing_block() -> None:
    """What comes after a gap does not count, in use or not."""
    cache = BlockCache(9)
    cache.pin([1, 2, 4])
    cache.keep([5])
    assert (cache.match([1, 2, 3, 4]), cache.pinned([1, 2, 3, 4])) == (2, 2)
    assert (cache.match([4, 5, 6]), cache.pinned([4, 5, 6])) == (2, 1)
    assert cache.match([]) == cache.pinned([]) == 0


def test_the_beginning_of_a_prompt_outlives_its_end() -> None:
    """When room is wanted, the last blocks of what was given back go first."""
    cache = BlockCache(4)
    cache.pin([1, 2, 3, 4])
    cache.unpin([1, 2, 3, 4])
    cache.reserve(2)
    assert cache.match([1, 2, 3, 4]) == 2


def test_a_block_is_in_use_until_the_last_user_gives_it_back() -> None:
    """Two users of a block take the room of one, for as long as either is there."""
    cache = BlockCache(2)
    cache.pin([1])
    cache.pin([1])
    assert cache.free == 1
    cache.unpin([1])
    assert (cache.free, cache.pinned([1])) == (1, 1)
    cache.unpin([1])
    assert (cache.free, cache.pinned([1]), cache.match([1])) == (2, 0, 1)

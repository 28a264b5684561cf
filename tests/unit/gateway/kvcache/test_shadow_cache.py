"""The shadow of an engine's KV cache, against the cache it stands for."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.kvcache.prefix import Prompt
from gateway.kvcache.shadow_cache import BELIEVED, CachedAnswer, CachedPrompt, ShadowCache

KEY_BYTES = 64
KEY_TOKENS = 16
"""Tokens of every block in these tests: four bytes a token."""


def prompt(keys: Sequence[int], rest_bytes: int = 0) -> Prompt:
    """A prompt of whole blocks and a rest."""
    size = len(keys) * KEY_BYTES + rest_bytes
    return Prompt(array("Q", keys), size, key_bytes=KEY_BYTES)


def begin(ledger: ShadowCache, *keys: int) -> CachedPrompt:
    """A request arrives."""
    return ledger.begin(prompt(keys), len(keys) * KEY_TOKENS)


def serve(ledger: ShadowCache, *keys: int) -> None:
    """A request comes and goes."""
    ledger.end(begin(ledger, *keys))


def held(ledger: ShadowCache) -> set[int]:
    """The keys held."""
    return set(ledger.held)


def answer(*keys: int, start_tokens: float = 0) -> CachedAnswer:
    """What an answer adds."""
    return CachedAnswer(keys, start_tokens, KEY_TOKENS)


class ShadowedCache(RuleBasedStateMachine):
    """A ledger beside the simplest exact LRU cache of blocks, and a listener to its changes."""

    capacity = 8

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ShadowCache(self.capacity * KEY_TOKENS)
        self.order: list[int] = []
        """Blocks, least recently used first."""
        self.running: list[tuple[CachedPrompt, tuple[int, ...]]] = []
        self.computed: set[int] = set()
        self.heard: dict[int, int] = {}

    def use(self, keys: Sequence[int]) -> None:
        """Touch blocks, the deepest first."""
        for key in reversed(keys):
            if key in self.order:
                self.order.remove(key)
            self.order.append(key)

    def evict(self) -> None:
        """Give up what has to go and may."""
        pinned = {key for _, keys in self.running for key in keys}
        for key in list(self.order):
            if len(self.order) > self.capacity and key not in pinned:
                self.lose(key)

    def lose(self, key: int) -> None:
        """A block goes."""
        self.order.remove(key)
        self.computed.discard(key)

    @rule(branch=st.integers(0, 5), length=st.integers(1, 6), shared=st.integers(0, 6))
    def arrive(self, branch: int, length: int, shared: int) -> None:
        """A request comes, its prompt's beginning shared with that of others."""
        keys = tuple(i if i < shared else 100 * (branch + 1) + i for i in range(length))
        self.use(keys)
        self.running.append((begin(self.ledger, *keys), keys))
        self.evict()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), answers=st.lists(st.integers(1000, 1010), max_size=3, unique=True))
    def end(self, data: st.DataObject, answers: list[int]) -> None:
        """A request ends with an answer."""
        holding, keys = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.use(answers)
        self.use(keys)
        self.computed.update(keys, answers)
        self.ledger.end(holding, [answer(*answers)])
        self.evict()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A request goes before it has been started."""
        holding, keys = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        pinned = {key for _, others in self.running for key in others}
        for key in keys:
            if key not in pinned | self.computed:
                self.lose(key)
        self.ledger.cancel(holding)
        self.evict()

    @rule()
    def clear(self) -> None:
        """The cache is emptied."""
        pinned = {key for _, keys in self.running for key in keys}
        for key in set(self.order) - pinned:
            self.lose(key)
        self.ledger.clear()

    @rule()
    def hear(self) -> None:
        """The listener takes what has changed."""
        added, dropped = self.ledger.take_changes()
        assert not added.keys() & set(dropped)
        assert not added.keys() & self.heard.keys()
        assert set(dropped) <= self.heard.keys()
        self.heard.update(added)
        for key in dropped:
            del self.heard[key]
        assert self.heard.keys() == self.ledger.held.keys()

    @invariant()
    def holds_what_the_cache_has(self) -> None:
        """The same keys in the same order, and no more than fits beside what runs."""
        assert list(self.ledger.held) == self.order
        assert len(self.ledger) == len(self.order)
        assert self.ledger.tokens == len(self.order) * KEY_TOKENS


TestShadowedCache = ShadowedCache.TestCase


@dataclass
class Lru:
    """Sequential requests on an exact LRU cache whose true capacity nobody knows."""

    capacity: int
    blocks: list[int] = field(default_factory=list)

    def serve(self, keys: Sequence[int]) -> int:
        """Take a request; how many of its first blocks were here."""
        cached = 0
        while cached < len(keys) and keys[cached] in self.blocks:
            cached += 1
        for key in reversed(keys):
            if key in self.blocks:
                self.blocks.remove(key)
            self.blocks.append(key)
        del self.blocks[: max(0, len(self.blocks) - self.capacity)]
        return cached


@given(st.lists(st.integers(0, 11), max_size=80))
def test_settling_never_loses_what_a_smaller_cache_holds(prompts: list[int]) -> None:
    """Where the engine has room for less than the ledger thinks, corrections drop no true key."""
    engine, ledger = Lru(capacity=18), ShadowCache(24 * KEY_TOKENS)
    for name in prompts:
        keys = [10 * name, 10 * name + 1, 10 * name + 2]
        cached = engine.serve(keys)
        holding = begin(ledger, *keys)
        ledger.settle(holding, cached * KEY_TOKENS, slack=0)
        ledger.end(holding)
        assert set(engine.blocks) <= held(ledger)


def test_a_missing_key_takes_along_what_is_older() -> None:
    """When the engine lacks a key, everything used before that key is gone as well."""
    ledger = ShadowCache(24 * KEY_TOKENS)
    serve(ledger, 1, 2)
    serve(ledger, 10, 11)
    serve(ledger, 20, 21)

    holding = begin(ledger, 10, 11)
    ledger.settle(holding, cached_tokens=0, slack=0)
    ledger.end(holding)

    assert held(ledger) == {10, 11, 20, 21}


def test_a_key_missing_from_the_middle_proves_nothing() -> None:
    """A prompt tokenized in another way does not cost the others their keys."""
    ledger = ShadowCache(8 * KEY_TOKENS)
    serve(ledger, 1, 2, 3)
    serve(ledger, 10, 11)
    assert BELIEVED * 8 < 3

    ledger.settle(begin(ledger, 10, 11), cached_tokens=0, slack=0)

    assert held(ledger) == {1, 2, 3, 10, 11}


def test_keys_on_their_way_prove_nothing() -> None:
    """Two equal prompts at once: that the second finds none cached is no eviction."""
    ledger = ShadowCache(100 * KEY_TOKENS)
    serve(ledger, 1, 2)
    first, second = begin(ledger, 10, 11, 12), begin(ledger, 10, 11, 12)
    assert second.matched_tokens == 3 * KEY_TOKENS

    ledger.settle(first, cached_tokens=0, slack=0)
    ledger.settle(second, cached_tokens=0, slack=0)

    assert held(ledger) == {1, 2, 10, 11, 12}


def test_an_engine_may_round_down_to_its_blocks() -> None:
    """Within the slack, fewer cached tokens are what was expected."""
    ledger = ShadowCache(100 * KEY_TOKENS)
    serve(ledger, 1, 2)
    serve(ledger, *range(10, 20))

    holding = begin(ledger, *range(10, 20))
    ledger.settle(holding, cached_tokens=10 * KEY_TOKENS - 100, slack=100)
    assert held(ledger) >= {1, 2}
    ledger.settle(holding, cached_tokens=0, slack=100)
    assert not held(ledger) & {1, 2}


def test_running_requests_keep_their_keys() -> None:
    """Keys in use stay, even where they are more than fit; they go when nobody uses them."""
    ledger = ShadowCache(2 * KEY_TOKENS)
    first, second = begin(ledger, 1, 2), begin(ledger, 10, 11)
    assert held(ledger) == {1, 2, 10, 11}
    ledger.end(first)
    assert held(ledger) == {10, 11}
    ledger.end(second)
    assert held(ledger) == {10, 11}


def test_keys_know_the_tokens_before_their_end() -> None:
    """Tokens spread over the prompt by its bytes; an answer's keys go on from where it starts."""
    ledger = ShadowCache(1000)
    holding = ledger.begin(prompt([1, 2], rest_bytes=KEY_BYTES), prompt_tokens=30)
    ledger.end(holding, [CachedAnswer([3, 4], 25, 5), CachedAnswer([5], 26, 4)])
    assert ledger.held == {1: 10, 2: 20, 3: 30, 4: 35, 5: 30}


def test_no_capacity_holds_nothing() -> None:
    """An engine without a prefix cache has nothing to tell of it."""
    ledger = ShadowCache(0)
    holding = begin(ledger, 1, 2)
    ledger.settle(holding, cached_tokens=0, slack=1)
    assert not held(ledger)
    ledger.end(holding, [answer(3)])
    ledger.cancel(begin(ledger, 1, 2))
    assert not held(ledger)
    assert ledger.take_changes() == ({}, [])


def test_a_prompt_without_tokens_leaves_nothing() -> None:
    """Keys that would weigh nothing could never be evicted; they are not kept."""
    ledger = ShadowCache(1000)
    ledger.end(ledger.begin(prompt([1, 2]), prompt_tokens=0), [CachedAnswer([3], 0, 0)])
    assert not held(ledger)

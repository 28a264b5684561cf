"""Tests of the shadow of an engine's KV cache, against the cache that it shadows."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.kvcache.prefix import Prompt
from gateway.kvcache.shadow_cache import MAX_CORRECTION, CachedAnswer, CachedPrompt, ShadowCache

KEY_BYTES = 64
KEY_TOKENS = 16
"""Tokens of every block in these tests: four bytes a token."""


def prompt(keys: Sequence[int], rest_bytes: int = 0) -> Prompt:
    """A prompt of whole blocks and some bytes after them."""
    size = len(keys) * KEY_BYTES + rest_bytes
    return Prompt(array("Q", keys), size, key_bytes=KEY_BYTES)


def arrive(shadow: ShadowCache, *keys: int) -> CachedPrompt:
    """Let a request arrive."""
    return shadow.record_arrival(prompt(keys), len(keys) * KEY_TOKENS)


def serve(shadow: ShadowCache, *keys: int) -> None:
    """Let a request arrive and end."""
    shadow.record_end(arrive(shadow, *keys))


def held(shadow: ShadowCache) -> set[int]:
    """Return the keys held."""
    return set(shadow.held)


def answer(*keys: int, start_tokens: float = 0) -> CachedAnswer:
    """Keys that an answer adds."""
    return CachedAnswer(keys, start_tokens, KEY_TOKENS)


class ShadowedCache(RuleBasedStateMachine):
    """A shadow, the simplest exact LRU cache of blocks, and a listener to the shadow's changes."""

    capacity = 8

    def __init__(self) -> None:
        super().__init__()
        self.shadow = ShadowCache(self.capacity * KEY_TOKENS)
        self.order: list[int] = []
        """Blocks, least recently used first."""
        self.running: list[tuple[CachedPrompt, tuple[int, ...]]] = []
        self.computed: set[int] = set()
        self.reported: dict[int, int] = {}

    def use(self, keys: Sequence[int]) -> None:
        """Touch blocks, the deepest first."""
        for key in reversed(keys):
            if key in self.order:
                self.order.remove(key)
            self.order.append(key)

    def evict(self) -> None:
        """Evict blocks that exceed the capacity and are not in use."""
        pinned = {key for _, keys in self.running for key in keys}
        for key in list(self.order):
            if len(self.order) > self.capacity and key not in pinned:
                self.lose(key)

    def lose(self, key: int) -> None:
        """Lose a block."""
        self.order.remove(key)
        self.computed.discard(key)

    @rule(branch=st.integers(0, 5), length=st.integers(1, 6), shared=st.integers(0, 6))
    def arrive(self, branch: int, length: int, shared: int) -> None:
        """Let a request arrive whose prompt may begin like those of others."""
        keys = tuple(i if i < shared else 100 * (branch + 1) + i for i in range(length))
        self.use(keys)
        self.running.append((arrive(self.shadow, *keys), keys))
        self.evict()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), answers=st.lists(st.integers(1000, 1010), max_size=3, unique=True))
    def end(self, data: st.DataObject, answers: list[int]) -> None:
        """Let a request end with an answer."""
        cached_prompt, keys = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.use(answers)
        self.use(keys)
        self.computed.update(keys, answers)
        self.shadow.record_end(cached_prompt, [answer(*answers)])
        self.evict()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a request before it has started."""
        cached_prompt, keys = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        pinned = {key for _, others in self.running for key in others}
        for key in keys:
            if key not in pinned | self.computed:
                self.lose(key)
        self.shadow.record_cancellation(cached_prompt)
        self.evict()

    @rule()
    def clear(self) -> None:
        """Empty the cache."""
        pinned = {key for _, keys in self.running for key in keys}
        for key in set(self.order) - pinned:
            self.lose(key)
        self.shadow.clear()

    @rule()
    def report(self) -> None:
        """Take the changes: they lead from the keys reported last to the keys held."""
        added, dropped = self.shadow.take_changes()
        assert not added.keys() & set(dropped)
        assert not added.keys() & self.reported.keys()
        assert set(dropped) <= self.reported.keys()
        self.reported.update(added)
        for key in dropped:
            del self.reported[key]
        assert self.reported.keys() == self.shadow.held.keys()

    @invariant()
    def holds_what_the_cache_has(self) -> None:
        """The shadow holds the same keys as the cache, in the same order."""
        assert list(self.shadow.held) == self.order
        assert len(self.shadow) == len(self.order)
        assert self.shadow.tokens == len(self.order) * KEY_TOKENS


TestShadowedCache = ShadowedCache.TestCase


@dataclass
class Lru:
    """An exact LRU cache whose true capacity the shadow does not know."""

    capacity: int
    blocks: list[int] = field(default_factory=list)

    def serve(self, keys: Sequence[int]) -> int:
        """Serve a request, and return how many of its first blocks were cached."""
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
def test_corrections_never_evict_what_a_smaller_cache_holds(prompts: list[int]) -> None:
    """If the engine has less capacity than the shadow assumes, no held key is evicted."""
    engine, shadow = Lru(capacity=18), ShadowCache(24 * KEY_TOKENS)
    for name in prompts:
        keys = [10 * name, 10 * name + 1, 10 * name + 2]
        cached = engine.serve(keys)
        cached_prompt = arrive(shadow, *keys)
        shadow.record_prefill(cached_prompt, cached * KEY_TOKENS, slack=0)
        shadow.record_end(cached_prompt)
        assert set(engine.blocks) <= held(shadow)


def test_a_missing_key_evicts_everything_older() -> None:
    """When the engine lacks a key, everything used before that key has been evicted too."""
    shadow = ShadowCache(24 * KEY_TOKENS)
    serve(shadow, 1, 2)
    serve(shadow, 10, 11)
    serve(shadow, 20, 21)

    cached_prompt = arrive(shadow, 10, 11)
    shadow.record_prefill(cached_prompt, cached_tokens=0, slack=0)
    shadow.record_end(cached_prompt)

    assert held(shadow) == {10, 11, 20, 21}


def test_a_key_missing_from_the_middle_evicts_nothing() -> None:
    """A prompt that was tokenized differently does not evict the keys of other prompts."""
    shadow = ShadowCache(8 * KEY_TOKENS)
    serve(shadow, 1, 2, 3)
    serve(shadow, 10, 11)
    assert MAX_CORRECTION * 8 < 3

    shadow.record_prefill(arrive(shadow, 10, 11), cached_tokens=0, slack=0)

    assert held(shadow) == {1, 2, 3, 10, 11}


def test_expected_keys_that_are_not_cached_evict_nothing() -> None:
    """Of two equal prompts at once, the second finds nothing cached, without any eviction."""
    shadow = ShadowCache(100 * KEY_TOKENS)
    serve(shadow, 1, 2)
    first, second = arrive(shadow, 10, 11, 12), arrive(shadow, 10, 11, 12)
    assert second.matched_tokens == 3 * KEY_TOKENS

    shadow.record_prefill(first, cached_tokens=0, slack=0)
    shadow.record_prefill(second, cached_tokens=0, slack=0)

    assert held(shadow) == {1, 2, 10, 11, 12}


def test_an_engine_may_round_cached_tokens_down_to_blocks() -> None:
    """Fewer cached tokens within the slack change nothing."""
    shadow = ShadowCache(100 * KEY_TOKENS)
    serve(shadow, 1, 2)
    serve(shadow, *range(10, 20))

    cached_prompt = arrive(shadow, *range(10, 20))
    shadow.record_prefill(cached_prompt, cached_tokens=10 * KEY_TOKENS - 100, slack=100)
    assert held(shadow) >= {1, 2}
    shadow.record_prefill(cached_prompt, cached_tokens=0, slack=100)
    assert not held(shadow) & {1, 2}


def test_running_requests_keep_their_keys() -> None:
    """Keys in use stay even if they exceed the capacity; they are evicted once unused."""
    shadow = ShadowCache(2 * KEY_TOKENS)
    first, second = arrive(shadow, 1, 2), arrive(shadow, 10, 11)
    assert held(shadow) == {1, 2, 10, 11}
    shadow.record_end(first)
    assert held(shadow) == {10, 11}
    shadow.record_end(second)
    assert held(shadow) == {10, 11}


def test_each_key_has_the_tokens_up_to_its_end() -> None:
    """Tokens are spread over a prompt by its bytes; an answer's keys continue from its start."""
    shadow = ShadowCache(1000)
    cached_prompt = shadow.record_arrival(prompt([1, 2], rest_bytes=KEY_BYTES), prompt_tokens=30)
    shadow.record_end(cached_prompt, [CachedAnswer([3, 4], 25, 5), CachedAnswer([5], 26, 4)])
    assert shadow.held == {1: 10, 2: 20, 3: 30, 4: 35, 5: 30}


def test_a_shadow_without_capacity_holds_nothing() -> None:
    """An engine without a prefix cache never reports keys."""
    shadow = ShadowCache(0)
    cached_prompt = arrive(shadow, 1, 2)
    shadow.record_prefill(cached_prompt, cached_tokens=0, slack=1)
    assert not held(shadow)
    shadow.record_end(cached_prompt, [answer(3)])
    shadow.record_cancellation(arrive(shadow, 1, 2))
    assert not held(shadow)
    assert shadow.take_changes() == ({}, [])


def test_a_prompt_without_tokens_leaves_no_keys() -> None:
    """Keys without weight could never be evicted, so they are not kept."""
    shadow = ShadowCache(1000)
    shadow.record_end(
        shadow.record_arrival(prompt([1, 2]), prompt_tokens=0), [CachedAnswer([3], 0, 0)]
    )
    assert not held(shadow)

"""Shadow of an engine's LRU KV cache, in prefix keys.

Method: a request's keys are touched when it arrives and again when it ends, deepest first, in the
order in which engines free blocks. When the keys exceed the engine's capacity in tokens, the least
recently touched keys are evicted, except those of running requests. An engine's report on a started
request corrects the shadow: where the engine found less cached than the shadow held, the first
missing key was evicted, and since the cache is LRU, so was everything touched before that key. The
correction is applied only if it evicts little: engines evict at the old end, so a key that is
missing from the middle means that the text was tokenized differently this time (an answer whose
reasoning the chat template leaves out, for example), which says nothing about other prompts.

Cost: O(keys of the request) a call, plus the evicted keys; about 150 bytes a key.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.kvcache.prefix import Prompt

MIN_KEY_TOKENS = 16.0
"""Tokens that a key counts for at least: clients can send thousands of keys with few tokens."""
MAX_CORRECTION = 0.25
"""Share of the capacity that one missing key can prove to have been evicted."""


@dataclass(slots=True)
class _CachedKey:
    """One key in the cache."""

    tokens: float
    """Prompt tokens up to the end of the key."""
    weight: float
    """Tokens that the key itself stands for."""
    touched: int = 0
    pins: int = 0
    """Number of running requests that use the key."""
    is_computed: bool = False
    """Whether a request that brought the key has started; until then the key is only expected."""


@dataclass(slots=True, eq=False)
class CachedPrompt:
    """Keys of one request in a shadow cache, from its arrival to its end."""

    keys: Sequence[int]
    matched_tokens: float
    """Prompt tokens up to the last of the first keys that were held or expected at arrival."""
    tokens_per_key: float
    computed_tokens: list[float]
    """Prompt tokens up to the end of each of the first keys that were computed at arrival."""
    last_touched: list[int]
    """When each of those keys had been touched before."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """Keys that an answer adds after its prompt."""

    keys: Sequence[int]
    start_tokens: float
    """Tokens before the first key."""
    tokens_per_key: float


class ShadowCache:
    """Shadow of a cache with room for `capacity` tokens; with no capacity it stays empty.

    Changes accumulate until `take_changes` is called.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tokens = 0.0
        self._clock = 0
        self._entries: dict[int, _CachedKey] = {}
        """Least recently touched first."""
        self._added: dict[int, None] = {}
        self._evicted: dict[int, None] = {}

    def __len__(self) -> int:
        """Number of keys held."""
        return len(self._entries)

    @property
    def tokens(self) -> float:
        """Tokens that all held keys stand for."""
        return self._tokens

    @property
    def held(self) -> dict[int, int]:
        """All held keys, each with the prompt tokens up to its end."""
        return {key: round(entry.tokens) for key, entry in self._entries.items()}

    def take_changes(self) -> tuple[dict[int, int], list[int]]:
        """Return keys added (with the tokens up to their ends) and evicted since the last call."""
        added = {key: round(self._entries[key].tokens) for key in self._added}
        evicted = list(self._evicted)
        self._added.clear()
        self._evicted.clear()
        return added, evicted

    def record_arrival(self, prompt: Prompt, prompt_tokens: int) -> CachedPrompt:
        """Hold the keys of a request that has arrived, and pin them until the request ends."""
        per_key = prompt_tokens * prompt.key_bytes / prompt.size if prompt.size else 0.0
        keys = prompt.keys if self._capacity > 0 and per_key > 0 else ()
        cached = CachedPrompt(keys, 0.0, per_key, [], [])
        is_computed = True
        for key in keys:
            entry = self._entries.get(key)
            if entry is None:
                break
            cached.matched_tokens = entry.tokens
            is_computed = is_computed and entry.is_computed
            if is_computed:
                cached.computed_tokens.append(entry.tokens)
                cached.last_touched.append(entry.touched)
        self._touch(keys, 0.0, per_key)
        for key in keys:
            self._entries[key].pins += 1
        self._evict_surplus()
        return cached

    def record_prefill(self, cached: CachedPrompt, cached_tokens: int, slack: int) -> None:
        """Correct the shadow by what the engine found cached when it computed a prompt.

        `cached_tokens`: prompt tokens that the engine found cached. `slack`: tokens by which the
        shadow may differ without being wrong, because engines round down to whole blocks.
        """
        for key in cached.keys:
            self._entries[key].is_computed = True
        plausible = cached_tokens + slack + cached.tokens_per_key
        if not cached.computed_tokens or cached.computed_tokens[-1] <= plausible:
            return
        first_missing = next(
            position for position, end in enumerate(cached.computed_tokens) if end > cached_tokens
        )
        self._evict_older(cached.last_touched[first_missing], MAX_CORRECTION * self._capacity)

    def record_end(self, cached: CachedPrompt, answers: Iterable[CachedAnswer] = ()) -> None:
        """Unpin the keys of a request that has ended, and hold the keys of its answers too."""
        for answer in answers:
            if self._capacity <= 0 or answer.tokens_per_key <= 0:
                continue
            self._touch(answer.keys, answer.start_tokens, answer.tokens_per_key)
            for key in answer.keys:
                self._entries[key].is_computed = True
        self._touch(cached.keys, 0.0, cached.tokens_per_key)
        for key in cached.keys:
            entry = self._entries[key]
            entry.pins -= 1
            entry.is_computed = True
        self._evict_surplus()

    def record_cancellation(self, cached: CachedPrompt) -> None:
        """Unpin the keys of a request that was cancelled before it started.

        Keys that only this request would have brought are removed.
        """
        for key in cached.keys:
            entry = self._entries[key]
            entry.pins -= 1
            if not (entry.pins or entry.is_computed):
                self._evict(key)
        self._evict_surplus()

    def clear(self) -> None:
        """Evict all keys except those of running requests."""
        self._evict_older(self._clock, math.inf)

    def _touch(self, keys: Sequence[int], start_tokens: float, per_key: float) -> None:
        self._clock += 1
        entries = self._entries
        for position in range(len(keys) - 1, -1, -1):
            key = keys[position]
            entry = entries.pop(key, None)
            if entry is None:
                end_tokens = start_tokens + (position + 1) * per_key
                entry = _CachedKey(end_tokens, max(per_key, MIN_KEY_TOKENS))
                self._tokens += entry.weight
                if self._evicted.pop(key, key) is not None:
                    self._added[key] = None
            entry.touched = self._clock
            entries[key] = entry

    def _evict_surplus(self) -> None:
        surplus = self._tokens - self._capacity
        victims = []
        for key, entry in self._entries.items():
            if surplus <= 0:
                break
            if not entry.pins:
                victims.append(key)
                surplus -= entry.weight
        for key in victims:
            self._evict(key)

    def _evict_older(self, touched: int, max_tokens: float) -> None:
        """Evict keys touched no later than `touched`, unless they exceed `max_tokens` in total."""
        victims = []
        for key, entry in self._entries.items():
            if entry.touched > touched:
                break
            if not entry.pins:
                victims.append(key)
                max_tokens -= entry.weight
            if max_tokens < 0:
                return
        for key in victims:
            self._evict(key)

    def _evict(self, key: int) -> None:
        self._tokens -= self._entries.pop(key).weight
        if self._added.pop(key, key) is not None:
            self._evicted[key] = None

"""What one replica's KV cache holds, in prefix keys: a shadow of the engine's own LRU cache.

Method: keys are touched when a request arrives and again when it ends, deepest first, as engines
give their blocks back; the least recently touched are dropped where the engine's capacity in tokens
is exceeded, those of running requests excepted. What an engine reports of a started request
corrects the shadow: where it found less in its cache than the shadow had, the first missing key was
evicted, and with it, the cache being LRU, everything that was touched before that key. That is
believed only where it is little: an engine evicts at the old end of its cache, and a key missing
from the middle tells of a text that was tokenized in another way this time (an answer whose
reasoning the chat template leaves out, say), which is no news of any other prompt.

Cost: O(keys of the request) a call, beside the keys dropped; about 150 bytes a key.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.kvcache.prefix import Prompt

LEAST_WEIGHT = 16.0
"""Tokens that a key counts for at least: clients can have thousands of keys on a few tokens."""
BELIEVED = 0.25
"""The part of the capacity that one missing key can prove to have been evicted."""


@dataclass(slots=True)
class _Entry:
    tokens: float
    """Of the prompt, up to this key's end."""
    weight: float
    """Tokens that the key itself stands for."""
    touched: int = 0
    pins: int = 0
    is_computed: bool = False
    """A request that brought it has been started; until then it is only on its way."""


@dataclass(slots=True, eq=False)
class CachedPrompt:
    """A request's part in a ledger, from its arrival to its end."""

    keys: Sequence[int]
    matched_tokens: float
    """Prompt tokens up to the last of its first keys that were held, or on their way."""
    tokens_per_key: float
    computed_tokens: list[float]
    """Prompt tokens to the end of each of its first keys that were computed when it arrived."""
    last_touched: list[int]
    """When each of those had been touched before."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """What an answer adds to the prompt before it."""

    keys: Sequence[int]
    start_tokens: float
    """Tokens before its first key."""
    tokens_per_key: float


class ShadowCache:
    """The shadow of a cache of `capacity` tokens; changes are collected until they are taken.

    One of no capacity holds nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tokens = 0.0
        self._clock = 0
        self._entries: dict[int, _Entry] = {}
        """Least recently touched first."""
        self._added: dict[int, None] = {}
        self._dropped: dict[int, None] = {}

    def __len__(self) -> int:
        """How many keys are held."""
        return len(self._entries)

    @property
    def tokens(self) -> float:
        """What the keys held stand for."""
        return self._tokens

    @property
    def held(self) -> dict[int, int]:
        """All keys, each with the prompt tokens up to its end."""
        return {key: round(entry.tokens) for key, entry in self._entries.items()}

    def take_changes(self) -> tuple[dict[int, int], list[int]]:
        """Keys added (with the prompt tokens up to their ends) and dropped since the last call."""
        added = {key: round(self._entries[key].tokens) for key in self._added}
        dropped = list(self._dropped)
        self._added.clear()
        self._dropped.clear()
        return added, dropped

    def begin(self, prompt: Prompt, prompt_tokens: int) -> CachedPrompt:
        """A request has arrived: its keys count as held until it ends, and after."""
        per_key = prompt_tokens * prompt.key_bytes / prompt.size if prompt.size else 0.0
        keys = prompt.keys if self._capacity > 0 and per_key > 0 else ()
        holding = CachedPrompt(keys, 0.0, per_key, [], [])
        is_computed = True
        for key in keys:
            entry = self._entries.get(key)
            if entry is None:
                break
            holding.matched_tokens = entry.tokens
            is_computed = is_computed and entry.is_computed
            if is_computed:
                holding.computed_tokens.append(entry.tokens)
                holding.last_touched.append(entry.touched)
        self._touch(keys, 0.0, per_key)
        for key in keys:
            self._entries[key].pins += 1
        self._make_room()
        return holding

    def settle(self, holding: CachedPrompt, cached_tokens: int, slack: int) -> None:
        """The engine has computed a prompt, `cached_tokens` of which it had: correct the shadow.

        `slack`: tokens by which the two may differ, because an engine rounds down to its blocks.
        """
        for key in holding.keys:
            self._entries[key].is_computed = True
        known = cached_tokens + slack + holding.tokens_per_key
        if not holding.computed_tokens or holding.computed_tokens[-1] <= known:
            return
        first_missing = next(
            position for position, end in enumerate(holding.computed_tokens) if end > cached_tokens
        )
        self._drop_older(holding.last_touched[first_missing], BELIEVED * self._capacity)

    def end(self, holding: CachedPrompt, answers: Iterable[CachedAnswer] = ()) -> None:
        """A request has ended; the keys of its answers are in the cache too."""
        for answer in answers:
            if self._capacity <= 0 or answer.tokens_per_key <= 0:
                continue
            self._touch(answer.keys, answer.start_tokens, answer.tokens_per_key)
            for key in answer.keys:
                self._entries[key].is_computed = True
        self._touch(holding.keys, 0.0, holding.tokens_per_key)
        for key in holding.keys:
            entry = self._entries[key]
            entry.pins -= 1
            entry.is_computed = True
        self._make_room()

    def cancel(self, holding: CachedPrompt) -> None:
        """A request went before the engine began it: what only it was to bring is not there."""
        for key in holding.keys:
            entry = self._entries[key]
            entry.pins -= 1
            if not (entry.pins or entry.is_computed):
                self._drop(key)
        self._make_room()

    def clear(self) -> None:
        """The engine's cache was emptied; keys of running requests stay."""
        self._drop_older(self._clock, math.inf)

    def _touch(self, keys: Sequence[int], start_tokens: float, per_key: float) -> None:
        self._clock += 1
        entries = self._entries
        for position in range(len(keys) - 1, -1, -1):
            key = keys[position]
            entry = entries.pop(key, None)
            if entry is None:
                entry = _Entry(start_tokens + (position + 1) * per_key, max(per_key, LEAST_WEIGHT))
                self._tokens += entry.weight
                if self._dropped.pop(key, key) is not None:
                    self._added[key] = None
            entry.touched = self._clock
            entries[key] = entry

    def _make_room(self) -> None:
        surplus = self._tokens - self._capacity
        victims = []
        for key, entry in self._entries.items():
            if surplus <= 0:
                break
            if not entry.pins:
                victims.append(key)
                surplus -= entry.weight
        for key in victims:
            self._drop(key)

    def _drop_older(self, touched: int, most_tokens: float) -> None:
        """Drop what was touched no later than `touched`, unless it is more than `most_tokens`."""
        victims = []
        for key, entry in self._entries.items():
            if entry.touched > touched:
                break
            if not entry.pins:
                victims.append(key)
                most_tokens -= entry.weight
            if most_tokens < 0:
                return
        for key in victims:
            self._drop(key)

    def _drop(self, key: int) -> None:
        self._tokens -= self._entries.pop(key).weight
        if self._added.pop(key, key) is not None:
            self._dropped[key] = None

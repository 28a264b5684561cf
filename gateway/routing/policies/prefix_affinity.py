"""Prefix affinity as Ray Serve LLM has it, to compare with: no word from engines, hardly any load.

Method: the replicas that were sent the longest part of the prompt before; where that is less than
`match_rate_threshold` of it, those that were sent the least text so far; among several, the one
with the fewest requests. Where the longest queue exceeds the shortest by more than
`imbalance_threshold`, the shorter queue of two random replicas instead.

Parameters and defaults: `imbalance_threshold` infinity (never), `match_rate_threshold` 0.1,
`eviction_threshold_bytes` and `eviction_target_bytes` (of a replica's record, when forgetting
begins and ends) none. Ray counts characters, here a key stands for `key_bytes` of them; where Ray's
default lets its tree grow for ever, here a record ends at `MOST_BYTES`, more than caches hold. Ray
evicts every 10 s, here it is done at once (its values, when switched on: 400,000 and 360,000).

Source: `PrefixCacheAffinityRouter` of Ray 2.60 (ray.llm, Apache-2.0), written anew.
Cost: O(keys + candidates) a choice.
"""

import math
import random
from collections.abc import Iterable, Sequence

from gateway.routing.cost_model import CostEstimates
from gateway.routing.policies.policy import Candidate, PolicyChoice, RequestProfile
from gateway.routing.policies.sent_prefixes import SentPrefixes

MOST_BYTES = 1 << 26


class PrefixAffinity:
    """Sends like to like; costs are keys to compute, keys on record, or requests."""

    name = "prefix-affinity"

    def __init__(
        self,
        rng: random.Random,
        *,
        imbalance_threshold: float = math.inf,
        match_rate_threshold: float = 0.1,
        eviction_threshold_bytes: int = MOST_BYTES,
        eviction_target_bytes: int = MOST_BYTES,
    ) -> None:
        self._rng = rng
        self._imbalance_threshold = imbalance_threshold
        self._match_rate_threshold = match_rate_threshold
        self._eviction_threshold_bytes = eviction_threshold_bytes
        self._eviction_target_bytes = eviction_target_bytes
        self._routed = SentPrefixes()

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """The replica with the most of the prompt, or with the least of all."""
        prompt, names = request.prompt, [candidate.replica.id for candidate in candidates]
        self._routed.follow(names)
        queues = [candidate.requests for candidate in candidates]
        if max(queues) - min(queues) > self._imbalance_threshold:
            costs = queues
            index = self._least(self._two(len(queues)), queues)
        else:
            costs = self._affinities(prompt.keys, names)
            least = min(costs)
            index = self._least([i for i, cost in enumerate(costs) if cost == least], queues)
        self._note(names[index], prompt.keys, prompt.key_bytes)
        return PolicyChoice(index, costs)

    def _affinities(self, keys: Sequence[int], names: Sequence[str]) -> list[int]:
        matches = self._routed.match(keys)
        longest = max(matches.values(), default=0)
        if longest and longest >= self._match_rate_threshold * len(keys):
            return [len(keys) - matches.get(name, 0) for name in names]
        return [self._routed.size(name) for name in names]

    def _two(self, count: int) -> list[int]:
        return self._rng.sample(range(count), min(2, count))

    def _least(self, indexes: Iterable[int], queues: Sequence[int]) -> int:
        return min(indexes, key=lambda index: (queues[index], self._rng.random()))

    def _note(self, name: str, keys: Sequence[int], key_bytes: int) -> None:
        self._routed.add(name, keys)
        if self._routed.size(name) * key_bytes > self._eviction_threshold_bytes:
            self._routed.shrink(name, self._eviction_target_bytes // key_bytes)

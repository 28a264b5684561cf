"""Ray Serve LLM's prefix affinity, to compare with: no telemetry from engines, hardly any load.

Method: the replicas that were sent the longest part of the prompt before; if that is less than
`match_rate_threshold` of the prompt, the replicas that were sent the least text so far; of several,
the one with the fewest requests. If the longest queue exceeds the shortest by more than
`imbalance_threshold`, the shorter queue of two random replicas instead.

Parameters and defaults: `imbalance_threshold` infinity (never), `match_rate_threshold` 0.1,
`eviction_threshold_bytes` and `eviction_target_bytes` (size of a replica's record at which eviction
begins, and size to which it evicts) none. Ray counts characters; here a key stands for `key_bytes`
of them. Ray's tree grows without limit by default; here a record ends at `MAX_BYTES`, which is more
than caches hold. Ray evicts every 10 s; here it is done at once (Ray's values, when switched on:
400,000 and 360,000).

Source: `PrefixCacheAffinityRouter` of Ray 2.60 (ray.llm, Apache-2.0), reimplemented.
Cost: O(keys + candidates) a choice.
"""

import math
import random
from collections.abc import Iterable, Sequence

from gateway.routing.cost_model import CostEstimates
from gateway.routing.policy import Candidate, PolicyChoice, RequestProfile
from gateway.routing.sent_prefixes import SentPrefixes

MAX_BYTES = 1 << 26


class PrefixAffinity:
    """Chooses by affinity; costs are keys to compute, keys in the record, or requests."""

    name = "prefix-affinity"

    def __init__(
        self,
        rng: random.Random,
        *,
        imbalance_threshold: float = math.inf,
        match_rate_threshold: float = 0.1,
        eviction_threshold_bytes: int = MAX_BYTES,
        eviction_target_bytes: int = MAX_BYTES,
    ) -> None:
        self._rng = rng
        self._imbalance_threshold = imbalance_threshold
        self._match_rate_threshold = match_rate_threshold
        self._eviction_threshold_bytes = eviction_threshold_bytes
        self._eviction_target_bytes = eviction_target_bytes
        self._sent = SentPrefixes()

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """Choose the most of the prompt, or the least text sent so far."""
        prompt, names = request.prompt, [candidate.replica.id for candidate in candidates]
        self._sent.set_replicas(names)
        queues = [candidate.requests for candidate in candidates]
        if max(queues) - min(queues) > self._imbalance_threshold:
            costs = queues
            index = self._shortest(self._two_random(len(queues)), queues)
        else:
            costs = self._affinities(prompt.keys, names)
            least = min(costs)
            index = self._shortest([i for i, cost in enumerate(costs) if cost == least], queues)
        self._record_sent(names[index], prompt.keys, prompt.key_bytes)
        return PolicyChoice(index, costs)

    def _affinities(self, keys: Sequence[int], names: Sequence[str]) -> list[int]:
        matches = self._sent.match(keys)
        longest = max(matches.values(), default=0)
        if longest and longest >= self._match_rate_threshold * len(keys):
            return [len(keys) - matches.get(name, 0) for name in names]
        return [self._sent.size(name) for name in names]

    def _two_random(self, count: int) -> list[int]:
        return self._rng.sample(range(count), min(2, count))

    def _shortest(self, indexes: Iterable[int], queues: Sequence[int]) -> int:
        return min(indexes, key=lambda index: (queues[index], self._rng.random()))

    def _record_sent(self, name: str, keys: Sequence[int], key_bytes: int) -> None:
        self._sent.add(name, keys)
        if self._sent.size(name) * key_bytes > self._eviction_threshold_bytes:
            self._sent.shrink(name, self._eviction_target_bytes // key_bytes)

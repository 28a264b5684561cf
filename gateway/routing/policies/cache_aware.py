"""SGLang's cache-aware policy, to compare with: affinity while the load is balanced, else load.

Method: the load is imbalanced if the most loaded replica has more than `balance_abs_threshold`
requests above, and more than `balance_rel_threshold` times, those of the least loaded one; then
the least loaded one is chosen. Otherwise, if some replica was sent more than `cache_threshold` of
the prompt before, the one that was sent the longest part is chosen (of several, the one that was
sent it last); if not, the one that was sent the least text so far. The first of equals wins. Every
prompt is added to the record of the replica that was chosen.

Parameters and defaults: `cache_threshold` 0.3, `balance_abs_threshold` 64, `balance_rel_threshold`
1.5, `max_tree_bytes` 2**26 for the record of each replica, beyond which its least recently used
part is evicted. SGLang counts characters; here a key stands for `key_bytes` of them. SGLang evicts
every 120 s; here it is done at once.

Source: policy `cache_aware` of SGLang's router (sgl-router, now sgl-model-gateway; Apache-2.0) with
the defaults of its command line, reimplemented. Cost: O(keys + candidates) a choice.
"""

import random
from collections.abc import Sequence

from gateway.routing.cost_model import CostEstimates
from gateway.routing.policy import Candidate, PolicyChoice, RequestProfile
from gateway.routing.sent_prefixes import SentPrefixes


class CacheAware:
    """Chooses by affinity or load; costs are keys to compute, keys in the record, or requests."""

    name = "cache-aware"

    def __init__(
        self,
        rng: random.Random,
        *,
        cache_threshold: float = 0.3,
        balance_abs_threshold: int = 64,
        balance_rel_threshold: float = 1.5,
        max_tree_bytes: int = 1 << 26,
    ) -> None:
        self._cache_threshold = cache_threshold
        self._balance_abs_threshold = balance_abs_threshold
        self._balance_rel_threshold = balance_rel_threshold
        self._max_tree_bytes = max_tree_bytes
        self._sent = SentPrefixes()

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """Choose the fewest requests, the most of the prompt, or the least text sent so far."""
        keys, names = request.prompt.keys, [candidate.replica.id for candidate in candidates]
        self._sent.set_replicas(names)
        queues = [candidate.requests for candidate in candidates]
        choice = (
            self._least(queues) if self._is_imbalanced(queues) else self._by_affinity(keys, names)
        )
        self._record_sent(names[choice.index], keys, request.prompt.key_bytes)
        return choice

    def _by_affinity(self, keys: Sequence[int], names: Sequence[str]) -> PolicyChoice:
        matches = self._sent.match(keys)
        longest = max(matches.values(), default=0)
        if longest <= self._cache_threshold * len(keys):
            return self._least([self._sent.size(name) for name in names])
        holders = [name for name in names if matches.get(name) == longest]
        last = max(holders, key=lambda name: self._sent.last_used(name, keys[longest - 1]))
        return PolicyChoice(names.index(last), [len(keys) - matches.get(name, 0) for name in names])

    def _least(self, weights: Sequence[int]) -> PolicyChoice:
        return PolicyChoice(weights.index(min(weights)), weights)

    def _record_sent(self, name: str, keys: Sequence[int], key_bytes: int) -> None:
        self._sent.add(name, keys)
        self._sent.shrink(name, self._max_tree_bytes // key_bytes)

    def _is_imbalanced(self, queues: Sequence[int]) -> bool:
        most, fewest = max(queues), min(queues)
        return (
            most - fewest > self._balance_abs_threshold
            and most > fewest * self._balance_rel_threshold
        )

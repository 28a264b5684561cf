"""SGLang's cache-aware policy, to compare with: affinity while the load is balanced, else load.

Method: the load is imbalanced where the replica with the most requests has more than
`balance_abs_threshold` above, and more than `balance_rel_threshold` times, those of the one with
the fewest: then the latter is chosen. Otherwise the replica that was sent the longest part of the
prompt before (of several, the one it was sent to last) where that is more than `cache_threshold`
of the prompt, and the one that was sent the least text so far where it is not. First come, first
chosen among equals. Every prompt is entered in the record of the replica that got it.

Parameters and defaults: `cache_threshold` 0.3, `balance_abs_threshold` 64, `balance_rel_threshold`
1.5, `max_tree_bytes` 2**26 for each replica's record, beyond which the least recently used is
forgotten. SGLang counts characters, here a key stands for `key_bytes` of them; SGLang forgets every
120 s, here it is done at once.

Source: policy `cache_aware` of SGLang's router (sgl-router, now sgl-model-gateway; Apache-2.0) with
the defaults of its command line, written anew. Cost: O(keys + candidates) a choice.
"""

from collections.abc import Sequence

from gateway.routing.cost_model import CostEstimates
from gateway.routing.policies.policy import Candidate, PolicyChoice, RequestProfile
from gateway.routing.policies.sent_prefixes import SentPrefixes


class CacheAware:
    """Affinity or load; costs are keys to compute, keys on record, or requests."""

    name = "cache-aware"

    def __init__(
        self,
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
        self._routed = SentPrefixes()

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """The replica with the fewest requests, the most of the prompt, or the least of all."""
        keys, names = request.prompt.keys, [candidate.replica.id for candidate in candidates]
        self._routed.follow(names)
        queues = [candidate.requests for candidate in candidates]
        choice = self._lightest(queues) if self._is_imbalanced(queues) else self._like(keys, names)
        self._note(names[choice.index], keys, request.prompt.key_bytes)
        return choice

    def _like(self, keys: Sequence[int], names: Sequence[str]) -> PolicyChoice:
        matches = self._routed.match(keys)
        longest = max(matches.values(), default=0)
        if longest <= self._cache_threshold * len(keys):
            return self._lightest([self._routed.size(name) for name in names])
        holders = [name for name in names if matches.get(name) == longest]
        last = max(holders, key=lambda name: self._routed.last_used(name, keys[longest - 1]))
        return PolicyChoice(names.index(last), [len(keys) - matches.get(name, 0) for name in names])

    def _lightest(self, weights: Sequence[int]) -> PolicyChoice:
        return PolicyChoice(weights.index(min(weights)), weights)

    def _note(self, name: str, keys: Sequence[int], key_bytes: int) -> None:
        self._routed.add(name, keys)
        self._routed.shrink(name, self._max_tree_bytes // key_bytes)

    def _is_imbalanced(self, queues: Sequence[int]) -> bool:
        most, fewest = max(queues), min(queues)
        return (
            most - fewest > self._balance_abs_threshold
            and most > fewest * self._balance_rel_threshold
        )

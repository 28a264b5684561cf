"""The default policy: the replica where a request costs least, itself and the others there.

    new  = prompt tokens - tokens cached there
    cost = load + (pending + new) * prefill_s                           its own time to first token
         + WEIGHT * requests
           * (load + new * prefill_s + output * sequence_s)             the delay it adds to theirs

All terms are seconds; `load` is what loading its adapter takes, during which an engine stands
still; `prefill_s` and `sequence_s` are learned (`gateway.routing.cost_model`). How it
compares with other policies, and what else was tried: docs/routing.md. O(candidates).
"""

import random
from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

from gateway.routing.cost_model import CostEstimates
from gateway.routing.policies.policy import Candidate, PolicyChoice, RequestProfile

WEIGHT = 0.5
"""How much the others' delay counts beside one's own."""
SESSION_SHARE = 0.1
"""Of the prompt's whole prefill: what leaving its session's replica is taken to cost."""


class Marginal:
    """Chooses the least marginal cost; ties go to the fewest requests, then at random."""

    name = "marginal"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """The least cost, in seconds."""
        decode_s = request.output_tokens * estimates.sequence_s
        costs = []
        for candidate in candidates:
            new_s = (request.prompt_tokens - candidate.cached_tokens) * estimates.prefill_s
            own_s = candidate.load_s + new_s
            others_s = candidate.requests * (own_s + decode_s)
            costs.append(candidate.pending_tokens * estimates.prefill_s + own_s + WEIGHT * others_s)
        if request.session:
            home = _home(request.session, candidates)
            away_s = SESSION_SHARE * request.prompt_tokens * estimates.prefill_s
            costs = [cost if i == home else cost + away_s for i, cost in enumerate(costs)]
        least = min(costs)
        best = [i for i, cost in enumerate(costs) if cost == least]
        if len(best) > 1:
            fewest = min(candidates[i].requests for i in best)
            best = [i for i in best if candidates[i].requests == fewest]
        return PolicyChoice(best[0] if len(best) == 1 else self._rng.choice(best), costs)


def _home(session: bytes, candidates: Sequence[Candidate]) -> int:
    """The session's replica, the same for every router: rendezvous hashing."""
    seed = xxh3_64_intdigest(session)
    return max(
        range(len(candidates)),
        key=lambda i: xxh3_64_intdigest(candidates[i].replica.id.encode(), seed),
    )

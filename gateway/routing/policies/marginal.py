"""Default policy: the replica where a request's own time and the delay of others are least.

    new  = prompt tokens - tokens cached at the replica
    cost = load + (pending + new) * prefill_s                           own time to first token
         + OTHERS_WEIGHT * requests
           * (load + new * prefill_s + output * sequence_s)             delay of the others there

All terms are seconds. `load` is the time to load the request's adapter, during which an engine
stands still; `prefill_s` and `sequence_s` are learned (`gateway.routing.cost_model`). Comparison
with other policies, and variants that were tried: docs/routing.md.

Cost: O(candidates).
"""

import random
from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

from gateway.routing.cost_model import CostEstimates
from gateway.routing.policy import Candidate, PolicyChoice, RequestProfile

OTHERS_WEIGHT = 0.5
"""Weight of the others' delay against the request's own time."""
SESSION_SHARE = 0.1
"""Cost of leaving a session's replica, as a share of the whole prompt's prefill."""


class Marginal:
    """Chooses the least marginal cost; ties go to the fewest requests, then at random."""

    name = "marginal"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """Choose the candidate with the least cost; costs are seconds."""
        decode_s = request.output_tokens * estimates.sequence_s
        costs = []
        for candidate in candidates:
            new_s = (request.prompt_tokens - candidate.cached_tokens) * estimates.prefill_s
            own_s = candidate.adapter_load_s + new_s
            others_s = candidate.requests * (own_s + decode_s)
            pending_s = candidate.pending_tokens * estimates.prefill_s
            costs.append(pending_s + own_s + OTHERS_WEIGHT * others_s)
        if request.session:
            home = _session_home(request.session, candidates)
            away_s = SESSION_SHARE * request.prompt_tokens * estimates.prefill_s
            costs = [cost if i == home else cost + away_s for i, cost in enumerate(costs)]
        least = min(costs)
        best = [i for i, cost in enumerate(costs) if cost == least]
        if len(best) > 1:
            fewest = min(candidates[i].requests for i in best)
            best = [i for i in best if candidates[i].requests == fewest]
        return PolicyChoice(best[0] if len(best) == 1 else self._rng.choice(best), costs)


def _session_home(session: bytes, candidates: Sequence[Candidate]) -> int:
    """Index of the session's replica, the same for every router: rendezvous hashing."""
    seed = xxh3_64_intdigest(session)
    return max(
        range(len(candidates)),
        key=lambda i: xxh3_64_intdigest(candidates[i].replica.id.encode(), seed),
    )

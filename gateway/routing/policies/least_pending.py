"""Policy by load alone, to compare with: the replica with the fewest tokens still to be computed.

Method: cost = pending prompt tokens + requests * expected answer length + the prompt tokens that
could be computed while the request's adapter is loaded. Ties are broken at random.

Source: the least-outstanding-work rule of load balancers, in tokens. Cost: O(candidates).
"""

import random
from collections.abc import Sequence

from gateway.routing.cost_model import CostEstimates
from gateway.routing.policy import Candidate, PolicyChoice, RequestProfile


class LeastPending:
    """Chooses the least load; costs are tokens, answers counted at their expected length."""

    name = "least-pending"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """Choose the candidate with the fewest tokens to compute."""
        costs = [
            candidate.pending_tokens
            + candidate.requests * request.output_tokens
            + (candidate.adapter_load_s / estimates.prefill_s if candidate.adapter_load_s else 0.0)
            for candidate in candidates
        ]
        least = min(costs)
        return PolicyChoice(
            self._rng.choice([i for i, cost in enumerate(costs) if cost == least]), costs
        )

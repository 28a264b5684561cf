"""Policies that look at load alone, or at nothing, to compare with."""

import itertools
import random
from collections.abc import Sequence

from gateway.routing.cost_model import CostEstimates
from gateway.routing.policies.policy import Candidate, PolicyChoice, RequestProfile


class LeastPending:
    """The replica with the fewest tokens to come: prompts to compute, and answers as expected."""

    name = "least-pending"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """The least load; costs are tokens to compute, with answers at their expected length.

        Loading an adapter counts as the prompt tokens that could be computed meanwhile.
        """
        costs = [
            candidate.pending_tokens
            + candidate.requests * request.output_tokens
            + (candidate.load_s / estimates.prefill_s if candidate.load_s else 0.0)
            for candidate in candidates
        ]
        least = min(costs)
        return PolicyChoice(
            self._rng.choice([i for i, cost in enumerate(costs) if cost == least]), costs
        )


class RoundRobin:
    """One after the other."""

    name = "round-robin"

    def __init__(self) -> None:
        self._turn = itertools.count()

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """The next one."""
        return PolicyChoice(next(self._turn) % len(candidates), [0.0] * len(candidates))

"""Policies that look at load alone, or at nothing, to compare with."""

import itertools
import random
from collections.abc import Sequence

from gateway.routing.latency import Figures
from gateway.routing.policy import Candidate, Choice, Request


class LeastPending:
    """The replica with the fewest tokens to come: prompts to compute, and answers as expected."""

    name = "least-pending"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, request: Request, candidates: Sequence[Candidate], figures: Figures) -> Choice:
        """The least load; costs are tokens to compute, with answers at their expected length.

        Loading an adapter counts as the prompt tokens that could be computed meanwhile.
        """
        costs = [
            candidate.pending_tokens
            + candidate.requests * request.output_tokens
            + (candidate.load_s / figures.prefill_s if candidate.load_s else 0.0)
            for candidate in candidates
        ]
        least = min(costs)
        return Choice(self._rng.choice([i for i, cost in enumerate(costs) if cost == least]), costs)


class RoundRobin:
    """One after the other."""

    name = "round-robin"

    def __init__(self) -> None:
        self._turn = itertools.count()

    def choose(self, request: Request, candidates: Sequence[Candidate], figures: Figures) -> Choice:
        """The next one."""
        return Choice(next(self._turn) % len(candidates), [0.0] * len(candidates))

"""Policy that chooses the candidates in turn, whatever their state, to compare with.

Cost: O(candidates).
"""

import itertools
import random
from collections.abc import Sequence

from gateway.routing.cost_model import CostEstimates
from gateway.routing.policy import Candidate, PolicyChoice, RequestProfile


class RoundRobin:
    """Chooses one candidate after the other; all costs are 0."""

    name = "round-robin"

    def __init__(self, rng: random.Random) -> None:
        self._counter = itertools.count()

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """Choose the next candidate."""
        return PolicyChoice(next(self._counter) % len(candidates), [0.0] * len(candidates))

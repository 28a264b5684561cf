"""A bit of everything, as a platform with many users has it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.workloads.turn import Session, Workload


@dataclass(frozen=True, slots=True)
class Mixed:
    """Conversations of several workloads, in proportion to their weights."""

    workloads: Sequence[Workload]
    weights: Sequence[float]

    def session(self, rng: random.Random) -> Session:
        """A conversation of one of them."""
        return rng.choices(self.workloads, self.weights)[0].session(rng)

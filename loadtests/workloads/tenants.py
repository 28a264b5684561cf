"""Questions to assistants: each tenant has a long system prompt, a few tenants send most."""

import random
from dataclasses import dataclass

from gateway.simulation.trace import BLOCK_TOKENS
from gateway.simulation.workloads import PREFIX_BLOCKS, TENANTS
from loadtests.workloads.history import History
from loadtests.workloads.prose import novel, prose
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.turn import Message, Session

QUESTION = (400.0, 0.8, 4000)
ANSWER = (260.0, 0.7, 2000)
MEAN_PAUSE_S = 10.0
WEIGHTS = [1 / (10 + rank) for rank in range(TENANTS)]


@dataclass(frozen=True, slots=True)
class Tenants:
    """Single questions; those to one tenant share its system prompt."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One question to one tenant's assistant."""
        sizes = self.sizes
        tenant = rng.choices(range(TENANTS), WEIGHTS)[0]
        shared_tokens = sizes.shared_tokens(PREFIX_BLOCKS * BLOCK_TOKENS)
        system = prose(f"{self.seed} tenant {tenant}", shared_tokens)
        history = History(sizes, Message("system", system))
        history.add(Message("user", novel(rng, sizes.tokens(rng, QUESTION))))
        answer_tokens = sizes.answer_tokens(rng, ANSWER)
        yield history.turn(answer_tokens, sizes.pause_s(rng, MEAN_PAUSE_S))

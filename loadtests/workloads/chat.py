"""People talk: each prompt is the whole conversation so far, and they think in between."""

import random
from dataclasses import dataclass

from gateway.simulation.trace import BLOCK_TOKENS
from gateway.simulation.workloads import LONGEST_TOKENS, TALK
from loadtests.workloads.history import History
from loadtests.workloads.prose import novel, prose
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.turn import Message, Session

OPENING = (5500.0, 1.1, LONGEST_TOKENS)
GO_ON = 0.6
"""How likely somebody is to say one thing more: two and a half turns on average."""


@dataclass(frozen=True, slots=True)
class Chat:
    """Conversations that share a system prompt and nothing else."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One conversation, as long as there is something, and room, to say."""
        sizes = self.sizes
        system = prose(f"{self.seed} system", sizes.shared_tokens(BLOCK_TOKENS))
        history = History(sizes, Message("system", system))
        said_tokens = sizes.tokens(rng, OPENING)
        while True:
            history.add(Message("user", novel(rng, said_tokens)))
            answer_tokens = sizes.answer_tokens(rng, TALK.answer)
            pause_s = sizes.pause_s(rng, TALK.mean_pause_s, TALK.least_pause_s)
            history.add(Message("assistant", (yield history.turn(answer_tokens, pause_s))))
            said_tokens = sizes.tokens(rng, TALK.addition)
            if rng.random() >= GO_ON or said_tokens > history.room_tokens:
                return

"""Work on documents: questions about passages that were found, summaries, jobs that can wait."""

import random
from dataclasses import dataclass, replace

from gateway.simulation.trace import BLOCK_TOKENS
from loadtests.workloads.history import History
from loadtests.workloads.prose import novel, prose
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.turn import Message, Session

PASSAGES = 2000
PASSAGES_A_PROMPT = (6, 12)
PASSAGE = (800.0, 0.4, 2000)
WEIGHTS = [1 / (20 + rank) for rank in range(PASSAGES)]
QUESTION_TOKENS = 60
DOCUMENT = (2500.0, 0.9, 30_000)
ANSWER = (250.0, 0.7, 2000)
MEAN_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class Rag:
    """Questions behind passages of a library: prompts share these, but seldom their beginning."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One question."""
        sizes = self.sizes
        system = prose(f"{self.seed} librarian", sizes.shared_tokens(BLOCK_TOKENS // 2))
        found = rng.choices(range(PASSAGES), WEIGHTS, k=rng.randint(*PASSAGES_A_PROMPT))
        question = novel(rng, sizes.scaled(QUESTION_TOKENS))
        passages = [self._passage(number) for number in dict.fromkeys(found)]
        history = History(sizes, Message("system", system))
        history.add(Message("user", "\n".join([*passages, question])))
        answer_tokens = sizes.answer_tokens(rng, ANSWER)
        yield history.turn(answer_tokens, sizes.pause_s(rng, MEAN_PAUSE_S))

    def _passage(self, number: int) -> str:
        name = f"{self.seed} passage {number}"
        rng = random.Random(name)  # noqa: S311 - a passage is always equally long
        return prose(name, self.sizes.tokens(rng, PASSAGE))


@dataclass(frozen=True, slots=True)
class Unshared:
    """Documents that have nothing in common."""

    sizes: Sizes

    def session(self, rng: random.Random) -> Session:
        """One document."""
        sizes = self.sizes
        history = History(sizes)
        history.add(Message("user", novel(rng, sizes.tokens(rng, DOCUMENT))))
        answer_tokens = sizes.answer_tokens(rng, ANSWER)
        yield history.turn(answer_tokens, sizes.pause_s(rng, MEAN_PAUSE_S))


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents that go behind one instruction, one after the other, at batch priority."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One document."""
        sizes = self.sizes
        instruction = prose(f"{self.seed} instruction", sizes.shared_tokens(BLOCK_TOKENS))
        history = History(sizes, Message("system", instruction))
        history.add(Message("user", novel(rng, sizes.tokens(rng, DOCUMENT))))
        yield replace(history.turn(sizes.answer_tokens(rng, ANSWER)), is_batch=True)

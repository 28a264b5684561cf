"""Workloads of load tests: conversations of several kinds, and the dialogue of one user."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from gateway.simulation.trace import BLOCK_TOKENS
from gateway.simulation.workloads import (
    CHAT_PROFILE,
    MAX_PROMPT_TOKENS,
    PREFIX_BLOCKS,
    TENANT_COUNT,
    TOOL_USE_PROFILE,
)
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.texts import text_of, unique_text
from loadtests.workloads.turn import (
    ConversationSource,
    DialogueMessage,
    Function,
    History,
    Session,
    ToolCall,
    Turn,
)

OPENING = (5500.0, 1.1, MAX_PROMPT_TOKENS)
CONTINUE_PROBABILITY = 0.6
"""Probability of another turn in a chat: two and a half turns on average."""

AGENT_KINDS = 4
INSTRUCTION_BLOCKS = 8
"""Instructions and tools of an agent: 4k tokens."""
TASK = (1500.0, 0.6, 8000)
AGENT_TURNS = (5, 25)
TOOLS = ("read_file", "search", "run_command", "edit_file")

TENANT_QUESTION = (400.0, 0.8, 4000)
TENANT_ANSWER = (260.0, 0.7, 2000)
TENANT_WEIGHTS = [1 / (10 + rank) for rank in range(TENANT_COUNT)]

PASSAGES = 2000
PASSAGES_A_PROMPT = (6, 12)
PASSAGE = (800.0, 0.4, 2000)
PASSAGE_WEIGHTS = [1 / (20 + rank) for rank in range(PASSAGES)]
QUESTION_TOKENS = 60
DOCUMENT = (2500.0, 0.9, 30_000)
ANSWER = (250.0, 0.7, 2000)
MEAN_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class Chat:
    """People talking: each prompt is the whole conversation; only a system prompt is shared."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One conversation, as long as there is room."""
        sizes = self.sizes
        system = text_of(f"{self.seed} system", sizes.shared_tokens(BLOCK_TOKENS))
        history = History(sizes, DialogueMessage("system", system))
        said_tokens = sizes.tokens(rng, OPENING)
        while True:
            history.add(DialogueMessage("user", unique_text(rng, said_tokens)))
            answer_tokens = sizes.answer_tokens(rng, CHAT_PROFILE.answer_tokens)
            pause_s = sizes.pause_s(rng, CHAT_PROFILE.mean_pause_s, CHAT_PROFILE.min_pause_s)
            history.add(DialogueMessage("assistant", (yield history.turn(answer_tokens, pause_s))))
            said_tokens = sizes.tokens(rng, CHAT_PROFILE.added_tokens)
            if rng.random() >= CONTINUE_PROBABILITY or said_tokens > history.room_tokens:
                return


@dataclass(frozen=True, slots=True)
class Agents:
    """Tool-calling loops with short answers; agents of one kind share their instructions."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One task, from its wording to its last step."""
        sizes = self.sizes
        kind = rng.randrange(AGENT_KINDS)
        shared_tokens = sizes.shared_tokens(INSTRUCTION_BLOCKS * BLOCK_TOKENS)
        instructions = DialogueMessage(
            "system", text_of(f"{self.seed} agent {kind}", shared_tokens)
        )
        history = History(sizes, instructions)
        history.add(DialogueMessage("user", unique_text(rng, sizes.tokens(rng, TASK))))
        for _ in range(rng.randint(*AGENT_TURNS)):
            answer_tokens = sizes.answer_tokens(rng, TOOL_USE_PROFILE.answer_tokens)
            pause_s = sizes.pause_s(
                rng, TOOL_USE_PROFILE.mean_pause_s, TOOL_USE_PROFILE.min_pause_s
            )
            answer = yield history.turn(answer_tokens, pause_s)
            call = _tool_call(rng)
            history.add(DialogueMessage("assistant", answer, (call,)))
            result_tokens = sizes.tokens(rng, TOOL_USE_PROFILE.added_tokens)
            if result_tokens > history.room_tokens:
                return
            history.add(
                DialogueMessage("tool", unique_text(rng, result_tokens), tool_call_id=call.id)
            )


def _tool_call(rng: random.Random) -> ToolCall:
    arguments = msgspec.json.encode({"about": unique_text(rng, 8)}).decode()
    return ToolCall(f"call_{rng.getrandbits(48):012x}", Function(rng.choice(TOOLS), arguments))


@dataclass(frozen=True, slots=True)
class Tenants:
    """Single questions; those to one tenant share its long system prompt, a few send most."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One question to one tenant's assistant."""
        tenant = rng.choices(range(TENANT_COUNT), TENANT_WEIGHTS)[0]
        shared_tokens = self.sizes.shared_tokens(PREFIX_BLOCKS * BLOCK_TOKENS)
        system = text_of(f"{self.seed} tenant {tenant}", shared_tokens)
        question = unique_text(rng, self.sizes.tokens(rng, TENANT_QUESTION))
        yield _single(self.sizes, rng, TENANT_ANSWER, system, question)


@dataclass(frozen=True, slots=True)
class Rag:
    """Questions behind passages of a library: prompts share passages, seldom their beginning."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One question."""
        sizes = self.sizes
        system = text_of(f"{self.seed} librarian", sizes.shared_tokens(BLOCK_TOKENS // 2))
        found = rng.choices(range(PASSAGES), PASSAGE_WEIGHTS, k=rng.randint(*PASSAGES_A_PROMPT))
        question = unique_text(rng, sizes.scaled(QUESTION_TOKENS))
        passages = [self._passage(number) for number in dict.fromkeys(found)]
        yield _single(sizes, rng, ANSWER, system, "\n".join([*passages, question]))

    def _passage(self, number: int) -> str:
        name = f"{self.seed} passage {number}"
        rng = random.Random(name)  # noqa: S311 - a passage always has the same length
        return text_of(name, self.sizes.tokens(rng, PASSAGE))


@dataclass(frozen=True, slots=True)
class Unshared:
    """Documents that have nothing in common."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One document."""
        document = unique_text(rng, self.sizes.tokens(rng, DOCUMENT))
        yield _single(self.sizes, rng, ANSWER, "", document)


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents behind one instruction, at batch priority and without pauses."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One document."""
        instruction = text_of(f"{self.seed} instruction", self.sizes.shared_tokens(BLOCK_TOKENS))
        document = unique_text(rng, self.sizes.tokens(rng, DOCUMENT))
        turn = _single(self.sizes, rng, ANSWER, instruction, document)
        yield replace(turn, is_batch=True, pause_s=0.0)


def _single(
    sizes: Sizes, rng: random.Random, answer: tuple[float, float, int], system: str, user: str
) -> Turn:
    """A conversation's only turn."""
    history = History(sizes, *([DialogueMessage("system", system)] if system else []))
    history.add(DialogueMessage("user", user))
    answer_tokens = sizes.answer_tokens(rng, answer)
    return history.turn(answer_tokens, sizes.pause_s(rng, MEAN_PAUSE_S))


@dataclass(frozen=True, slots=True)
class Mixed:
    """Conversations of several workloads, in proportion to their weights."""

    workloads: Sequence[ConversationSource]
    weights: Sequence[float]

    def session(self, rng: random.Random) -> Session:
        """A conversation of one of them."""
        return rng.choices(self.workloads, self.weights)[0].session(rng)


def mixed(sizes: Sizes, seed: str) -> Mixed:
    """Half of it chats, as on a platform with many users."""
    workloads = [kind(sizes, seed) for kind in (Chat, Tenants, Agents, Rag)]
    return Mixed(workloads, (5, 2, 2, 1))


MIXED = "mixed"
TEAMS = "teams"
"""Chats of several projects, each with a key of its own."""
TRACE = "trace"
"""A trace replay: not a source of conversations."""
WORKLOADS: Mapping[str, Callable[[Sizes, str], ConversationSource]] = {
    "chat": Chat,
    "tenants": Tenants,
    "agents": Agents,
    "rag": Rag,
    "none": Unshared,
    "batch": Batch,
    MIXED: mixed,
    TEAMS: Chat,
}
"""Workloads by name, made from sizes and from a seed that determines all text."""


class Dialogue:
    """Conversations of one user, one after the other, each with one of several models.

    `models` begins with the most popular: the second is asked half as often, the third a third.
    """

    def __init__(
        self, workload: ConversationSource, models: Sequence[str], rng: random.Random
    ) -> None:
        self._workload = workload
        self._models = models
        self._weights = [1 / rank for rank in range(1, len(models) + 1)]
        self._rng = rng
        self._session: Session
        self.model: str
        """The model to ask next."""
        self.turn: Turn
        """The turn to send next."""
        self._start()

    def advance(self, answer: str) -> None:
        """Go on to the next turn, the last one having been answered."""
        try:
            self.turn = self._session.send(answer)
        except StopIteration:
            self._start()

    def abandon(self) -> None:
        """Start another conversation, the last turn having failed."""
        self._session.close()
        self._start()

    def _start(self) -> None:
        self.model = self._rng.choices(self._models, self._weights)[0]
        self._session = self._workload.session(self._rng)
        self.turn = next(self._session)

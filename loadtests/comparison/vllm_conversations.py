"""Workload of the vLLM comparison: conversations that share a few long system prompts."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from loadtests.launch import HOST
from loadtests.loadgen.client import CHAT_PATH, Client, chat_body
from loadtests.loadgen.outcome import RequestOutcome

TOPICS = ("gardens", "ships", "bridges", "stars")
ASPECTS = ("history", "repair", "cost", "colour", "safety", "names", "builders", "weather")
RULES = 40
"""Sentences of a system prompt: some 25 tokens each with the demo model's tokenizer."""
ANSWER_TOKENS = 24
REQUEST_TIMEOUT_S = 60
NOT_SENT = "not asked: the answer before it had failed"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A system prompt and questions, each sent after the answer to the one before."""

    system: str
    questions: tuple[str, ...]


def conversations(count: int, turns: int, seed: int) -> list[Conversation]:
    """Conversations in random order; no two seeds share a prefix."""
    rng = random.Random(seed)  # noqa: S311 - a workload is no secret
    systems = [_system(topic, seed, rng) for topic in TOPICS]
    return [
        Conversation(
            system=rng.choice(systems),
            questions=tuple(
                f"Question {turn + 1} of guest {number}: what should I know about the"
                f" {rng.choice(ASPECTS)} and the {rng.choice(ASPECTS)}?"
                for turn in range(turns)
            ),
        )
        for number in range(count)
    ]


def _system(topic: str, seed: int, rng: random.Random) -> str:
    rules = (
        f"Rule {number + 1}: a guest who asks about the {rng.choice(ASPECTS)} of {topic} hears of"
        f" the {rng.choice(ASPECTS)} first."
        for number in range(RULES)
    )
    # The difference comes first, so that no cache holds any part of it from an earlier round.
    return f"House {seed} guides guests through {topic}. {' '.join(rules)}"


class MeasuredRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the report keeps it."""

    ttft_s: float = 0
    e2e_s: float = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    failure: str = ""

    @classmethod
    def of(cls, outcome: RequestOutcome) -> "MeasuredRequest":
        """A request that was sent."""
        is_whole = outcome.is_answered and outcome.prompt_tokens and outcome.ttft_s is not None
        if not is_whole:
            return cls(failure=outcome.reason or "the stream ended before its end")
        return cls(
            ttft_s=outcome.ttft_s or 0,
            e2e_s=outcome.e2e_s,
            prompt_tokens=outcome.prompt_tokens,
            cached_tokens=outcome.cached_tokens,
        )


class RoundResult(msgspec.Struct, frozen=True):
    """All requests of one contender in one round."""

    elapsed_s: float
    asked: list[MeasuredRequest]

    def __str__(self) -> str:
        """The round in a few words."""
        failed = sum(bool(request.failure) for request in self.asked)
        return f"{len(self.asked)} requests in {self.elapsed_s:.0f} s, {failed} failed"


async def run_conversations(
    port: int, model: str, scripts: Sequence[Conversation], concurrency: int
) -> RoundResult:
    """Run all conversations, `concurrency` at a time."""
    waiting = iter(scripts)
    requests: list[MeasuredRequest] = []
    start_s = time.monotonic()
    async with Client(HOST, port, timeout_s=REQUEST_TIMEOUT_S) as client:

        async def user() -> None:
            for conversation in waiting:
                requests.extend(await _run(client, model, conversation))

        await asyncio.gather(*(user() for _ in range(concurrency)))
    return RoundResult(time.monotonic() - start_s, requests)


async def _run(client: Client, model: str, conversation: Conversation) -> list[MeasuredRequest]:
    """One conversation; after a failure its remaining requests count as failed, too."""
    messages: list[Mapping[str, str]] = [{"role": "system", "content": conversation.system}]
    found: list[MeasuredRequest] = []
    for question in conversation.questions:
        messages.append({"role": "user", "content": question})
        body = chat_body(model, messages, ANSWER_TOKENS, temperature=0, ignore_eos=True)
        outcome, text = await client.chat(client.encoded(CHAT_PATH, body))
        found.append(MeasuredRequest.of(outcome))
        if found[-1].failure:
            break
        messages.append({"role": "assistant", "content": text})
    return found + [MeasuredRequest(failure=NOT_SENT)] * (len(conversation.questions) - len(found))

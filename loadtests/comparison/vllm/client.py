"""Holds conversations with a model, several at a time, and notes what came of each request."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp
import msgspec

from loadtests.comparison.vllm.conversations import Conversation
from loadtests.launch import HOST, ROUTE
from loadtests.users.answer import Answer, Broken, reason_of

ANSWER_TOKENS = 24
REQUEST_TIMEOUT_S = 60
UNASKED = "not asked: the answer before it had failed"
Message = Mapping[str, str]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request, and what came back."""

    ttft_s: float = 0
    e2e_s: float = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    failure: str = ""


class Talk(msgspec.Struct, frozen=True):
    """All requests of one turn of a contender."""

    elapsed_s: float
    asked: list[Asked]


async def talk(port: int, model: str, held: Sequence[Conversation], at_a_time: int) -> Talk:
    """Hold all conversations, so many at a time, each turn as soon as the last one is answered."""
    waiting = iter(held)
    asked: list[Asked] = []
    began_s = time.perf_counter()
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(
        f"http://{HOST}:{port}", connector=connector, timeout=timeout
    ) as session:

        async def guest() -> None:
            for conversation in waiting:
                asked.extend([each async for each in _converse(session, model, conversation)])

        await asyncio.gather(*(guest() for _ in range(at_a_time)))
    return Talk(time.perf_counter() - began_s, asked)


async def _converse(
    session: aiohttp.ClientSession, model: str, conversation: Conversation
) -> AsyncIterator[Asked]:
    """Ask one question after the other; after a failure the rest cannot be asked, and fails too."""
    messages: list[Message] = [{"role": "system", "content": conversation.system}]
    for number, question in enumerate(conversation.questions):
        messages.append({"role": "user", "content": question})
        try:
            outcome, text = await _ask(session, model, messages)
        except (aiohttp.ClientError, TimeoutError, Broken) as error:
            yield Asked(failure=f"{type(error).__name__}: {error}"[:300])
            for _ in conversation.questions[number + 1 :]:
                yield Asked(failure=UNASKED)
            return
        yield outcome
        messages.append({"role": "assistant", "content": text})


async def _ask(
    session: aiohttp.ClientSession, model: str, messages: Sequence[Message]
) -> tuple[Asked, str]:
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = Answer()
    sent_s = time.perf_counter()
    async with session.post(ROUTE, json=body) as response:
        if response.status != 200:
            raise Broken(f"{response.status}: {reason_of(await response.read())}")
        async for line in response.content:
            answer.read(line, time.perf_counter())
    if not answer.is_done or not answer.usage.prompt_tokens or answer.first_s is None:
        raise Broken("the stream ended before its end")
    outcome = Asked(
        ttft_s=answer.first_s - sent_s,
        e2e_s=time.perf_counter() - sent_s,
        prompt_tokens=answer.usage.prompt_tokens,
        cached_tokens=answer.usage.cached_tokens,
    )
    return outcome, answer.text

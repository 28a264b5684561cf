"""Holds conversations with a model, several at a time, and notes what came of each request."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp
import msgspec

from loadtests.comparison.conversations import Conversation
from loadtests.launch import HOST, ROUTE

ANSWER_TOKENS = 24
REQUEST_TIMEOUT_S = 60
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


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int
    prompt_tokens_details: _CachedTokens | None = None


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: object = None


class BrokenAnswer(Exception):
    """Something other than a whole answer came back."""


class Reading:
    """An answer as it arrives: server-sent events, put together."""

    def __init__(self) -> None:
        self.text = ""
        self.usage: _Usage | None = None
        self.is_done = False

    def take(self, line: bytes) -> bool:
        """Take a line of the stream; whether it brought text.

        Raises:
            BrokenAnswer: it is an error event.
        """
        if not line.startswith(b"data: "):
            return False
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            self.is_done = True
            return False
        event = msgspec.json.decode(data, type=_Event)
        if event.error is not None:
            raise BrokenAnswer(str(event.error)[:200])
        self.usage = event.usage or self.usage
        text = "".join(choice.delta.content or "" for choice in event.choices)
        self.text += text
        return bool(text)


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
    """Ask one question after the other; a failure ends the conversation."""
    messages: list[Message] = [{"role": "system", "content": conversation.system}]
    for question in conversation.questions:
        messages.append({"role": "user", "content": question})
        try:
            outcome, text = await _ask(session, model, messages)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, BrokenAnswer) as error:
            yield Asked(failure=f"{type(error).__name__}: {error}"[:300])
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
    reading = Reading()
    sent_s = time.perf_counter()
    first_s = 0.0
    async with session.post(ROUTE, json=body) as response:
        if response.status != 200:
            raise BrokenAnswer(f"{response.status}: {(await response.text())[:200]}")
        async for line in response.content:
            if reading.take(line) and not first_s:
                first_s = time.perf_counter()
    if not reading.is_done or reading.usage is None or not first_s:
        raise BrokenAnswer("the stream ended before its end")
    details = reading.usage.prompt_tokens_details
    outcome = Asked(
        ttft_s=first_s - sent_s,
        e2e_s=time.perf_counter() - sent_s,
        prompt_tokens=reading.usage.prompt_tokens,
        cached_tokens=(details.cached_tokens or 0) if details else 0,
    )
    return outcome, reading.text

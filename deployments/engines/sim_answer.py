"""Sends what a simulated engine generates, token by token or in one piece."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from deployments.engines.asgi import send_json
from deployments.engines.sim_core import Core
from deployments.engines.sim_replies import Reply, Usage
from deployments.engines.sim_requests import Sequence
from deployments.engines.sim_words import words
from gateway.relay.asgi import Send

MARK = (b"x-simulated", b"1")
"""On every response, errors included."""

_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), MARK]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request: its sequences, run by `core`, worded by `reply`."""

    core: Core
    sequences: list[Sequence]
    reply: Reply
    usage: Usage

    async def send_whole(self, send: Send) -> None:
        """Send everything once it is there."""
        await self._for_each(self._exhaust)
        choices = [
            self.reply.style.whole(
                sequence.index,
                "".join(itertools.islice(words(sequence.seed), sequence.output_tokens)),
                sequence.finish_reason,
            )
            for sequence in self.sequences
        ]
        await send_json(send, 200, self.reply.whole(choices, self.usage), [MARK])

    async def stream(self, send: Send) -> None:
        """Send every token when it is ready, each as a write of its own, as an engine does."""
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        await self._for_each(lambda sequence: self._stream_one(sequence, send))
        await send({"type": "http.response.body", "body": self.reply.closing(self.usage)})

    async def _exhaust(self, sequence: Sequence) -> None:
        run = self.core.tokens(sequence.prompt_tokens, sequence.output_tokens)
        async with aclosing(run) as tokens:
            async for _ in tokens:
                pass

    async def _stream_one(self, sequence: Sequence, send: Send) -> None:
        async def write(event: bytes) -> None:
            await send({"type": "http.response.body", "body": event, "more_body": True})

        opening = self.reply.opening(sequence.index)
        before, after = self.reply.piece(sequence.index)
        text = words(sequence.seed)
        run = self.core.tokens(sequence.prompt_tokens, sequence.output_tokens)
        async with aclosing(run) as tokens:
            async for ready in tokens:
                if opening:
                    await write(opening)
                    opening = b""
                for word in itertools.islice(text, ready):
                    await write(before + word.encode() + after)
        await write(self.reply.ending(sequence.index, sequence.finish_reason))

    async def _for_each(self, work: Callable[[Sequence], Coroutine[Any, Any, None]]) -> None:
        if len(self.sequences) == 1:
            await work(self.sequences[0])
            return
        async with asyncio.TaskGroup() as group:
            for sequence in self.sequences:
                group.create_task(work(sequence))

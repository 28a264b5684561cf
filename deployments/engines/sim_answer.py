"""Sends what a simulated engine generates, token by token or in one piece."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from deployments.engines.asgi import send_json
from deployments.engines.sim_core import Core, Job
from deployments.engines.sim_replies import CachedTokens, Reply, Usage
from deployments.engines.sim_sequences import Sequence
from gateway.asgi import Send

MARK = (b"x-simulated", b"1")
"""On every response, errors included."""

_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), MARK]


@dataclass(frozen=True, slots=True)
class Part:
    """One sequence of an answer, and the work on it."""

    sequence: Sequence
    job: Job


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request, `n` parts to each prompt, worked on by `core`."""

    core: Core
    parts: list[Part]
    n: int
    reply: Reply

    def messages(self, *, is_stream: bool) -> int:
        """How many messages it is sent in, at least."""
        events = sum(len(part.sequence.words) + 1 for part in self.parts)
        return 1 + events if is_stream else 2

    async def send_whole(self, send: Send) -> None:
        """Send everything once it is there."""
        for part in self.parts:
            await part.job.until(part.job.run.output_tokens)
        choices = [
            self.reply.style.whole(
                part.sequence.index, part.sequence.text, part.sequence.finish_reason
            )
            for part in self.parts
        ]
        await send_json(send, 200, self.reply.whole(choices, self._usage), [MARK])

    async def stream(self, send: Send) -> None:
        """Send every token when it is ready, each as a write of its own, as an engine does."""
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        await self._for_each(lambda part: self._stream_one(part, send))
        await send({"type": "http.response.body", "body": self.reply.closing(self._usage)})

    def abort(self) -> None:
        """End the work on what is not complete."""
        for part in self.parts:
            self.core.abort(part.job)

    async def _stream_one(self, part: Part, send: Send) -> None:
        async def write(event: bytes) -> None:
            await send({"type": "http.response.body", "body": event, "more_body": True})

        sequence = part.sequence
        before, after = self.reply.piece(sequence.index)
        ready = await part.job.until(1)
        if opening := self.reply.opening(sequence.index):
            await write(opening)
        for position, word in enumerate(sequence.words):
            if position == ready:
                ready = await part.job.until(position + 1)
            await write(before + word.encode() + after)
        await write(self.reply.ending(sequence.index, sequence.finish_reason))

    async def _for_each(self, work: Callable[[Part], Coroutine[Any, Any, None]]) -> None:
        if len(self.parts) == 1:
            await work(self.parts[0])
            return
        async with asyncio.TaskGroup() as group:
            for part in self.parts:
                group.create_task(work(part))

    @property
    def _usage(self) -> Usage:
        # A prompt is read once, however many answers it has.
        runs = [part.job.run for part in self.parts]
        prompt_tokens = sum(run.prompt_tokens for run in runs[:: self.n])
        cached_tokens = sum(run.cached_tokens for run in runs[:: self.n])
        completion_tokens = sum(len(part.sequence.words) for part in self.parts)
        return Usage(
            prompt_tokens,
            completion_tokens,
            prompt_tokens + completion_tokens,
            CachedTokens(cached_tokens),
        )

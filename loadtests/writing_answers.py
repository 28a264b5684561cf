"""CPU time that an engine's process spends on writing chunks and answers, and vLLM's own."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion import protocol
from vllm.entrypoints.serve.engine.protocol import UsageInfo

from deployments.engines.vllm.api.api_errors import with_api_errors
from deployments.engines.vllm.api.chat_answer import chat_object
from deployments.engines.vllm.api.chunks import Asked, ChunkPart, ChunkWriter, DeltaPart
from gateway.asgi import App, Message, Receive, Scope, Send

HEAD: dict[str, Any] = {
    "id": "chatcmpl-9d9d3b2e468fda1f",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "demo",
}
FIELDS: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None, "token_ids": None}
PART: Message = {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True}
CALLS, ROUNDS = 10_000, 7


def main() -> None:
    """Print microseconds and bytes of each."""
    write_chunk = ChunkWriter(Asked())
    message = protocol.ChatMessage(role="assistant", content="Hello!" * 20)
    answer = protocol.ChatCompletionResponse(
        model="demo",
        choices=[protocol.ChatCompletionResponseChoice(index=0, message=message)],
        usage=UsageInfo(prompt_tokens=1, total_tokens=2, completion_tokens=1),
    )

    def vllms_chunk() -> str:
        delta = DeltaMessage(content=" word")
        choice = protocol.ChatCompletionResponseStreamChoice(delta=delta, **FIELDS)
        chunk = protocol.ChatCompletionStreamResponse(choices=[choice], **HEAD)
        return str(chunk.model_dump_json(exclude_unset=True))

    def our_chunk() -> str:
        choice = ChunkPart(delta=DeltaPart(content=" word"), **FIELDS)
        return write_chunk(choices=[choice], **HEAD).model_dump_json(exclude_unset=True)

    def vllms_answer() -> str:
        return json.dumps(answer.model_dump(), ensure_ascii=False, separators=(",", ":"))

    def our_answer() -> str:
        return msgspec.json.encode(chat_object(answer, Asked())).decode()

    for write in (vllms_chunk, our_chunk, vllms_answer, our_answer):
        cost = f"{_cpu_s(write) * 1e6:.1f} µs, {len(write())} bytes"
        sys.stdout.write(f"{write.__name__}: {cost}\n")
    passing = _cpu_s(partial(open_stream(with_api_errors), PART))
    direct = _cpu_s(partial(open_stream(lambda app: app), PART))
    sys.stdout.write(f"passing a chunk on: {(passing - direct) * 1e6:.2f} µs\n")


def open_stream(wrap: Callable[[App], App]) -> Send:
    """What an application is given to send with, once its stream has begun.

    `wrap`: makes the application that is served of one.
    """
    given: list[Send] = []

    async def app(_: Scope, __: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(PART)
        given.append(send)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "path": "/v1/chat/completions", "headers": []}
    asyncio.run(_run(wrap(app), scope, receive))
    return given[0]


async def _run(app: App, scope: Scope, receive: Receive) -> None:
    sent = asyncio.get_running_loop().create_future()
    sent.set_result(None)

    def send(_: Message) -> Awaitable[None]:
        return sent

    await app(scope, receive, send)


def _cpu_s(write: Callable[[], object]) -> float:
    """CPU time of one call, in the best of several rounds."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(CALLS):
            write()
        rounds.append((time.process_time() - start) / CALLS)
    return min(rounds)


if __name__ == "__main__":
    main()

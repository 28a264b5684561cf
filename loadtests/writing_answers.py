"""CPU time that an engine's process spends on writing chunks and answers, and vLLM's own."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion import protocol
from vllm.entrypoints.serve.engine.protocol import UsageInfo

from deployments.engines.vllm.api.chat_answer import chat_object
from deployments.engines.vllm.api.chunks import Asked, ChunkPart, ChunkWriter, DeltaPart

HEAD: dict[str, Any] = {
    "id": "chatcmpl-9d9d3b2e468fda1f",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "demo",
}
FIELDS: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None, "token_ids": None}
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


def _cpu_s(write: Callable[[], str]) -> float:
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

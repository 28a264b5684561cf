"""What vLLM's serving of chats hands to the writers of Anthropic's messages."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from deployments.engines.vllm.api.chunks import ChunkPart, DeltaPart


def usage(
    prompt: int = 10, answer: int = 5, *, cached: int | None = None, thought: int | None = None
) -> Any:
    """Usage of vLLM's."""
    details = None if cached is None else SimpleNamespace(cached_tokens=cached)
    answered = None if thought is None else SimpleNamespace(reasoning_tokens=thought)
    return SimpleNamespace(
        prompt_tokens=prompt,
        completion_tokens=answer,
        prompt_tokens_details=details,
        completion_tokens_details=answered,
    )


def call(
    id_: str | None, name: str | None, arguments: str | None, index: int = 0
) -> SimpleNamespace:
    """A call of a tool, or a part of one."""
    function = SimpleNamespace(name=name, arguments=arguments)
    return SimpleNamespace(id=id_, index=index, type="function", function=function)


def part(
    content: str | None = None,
    *,
    reasoning: str | None = None,
    calls: Sequence[Any] = (),
    finish_reason: str | None = None,
    stop: int | str | None = None,
) -> ChunkPart:
    """A choice of a chunk."""
    delta = DeltaPart(content=content)
    delta.reasoning, delta.tool_calls = reasoning, calls
    return ChunkPart(0, delta=delta, finish_reason=finish_reason, stop_reason=stop)

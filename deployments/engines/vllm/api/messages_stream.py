"""The events of a stream of `/v1/messages`, written as vLLM makes the chunks of a chat.

vLLM 0.32 serializes each chunk of a chat, parses it again, and makes a model of pydantic for each
event. Here its generator is given objects in place of its models of chunks, which write the events
at once (see `chunks.py`).
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import msgspec

from deployments.engines.vllm.api.asked_message import AskedMessage
from deployments.engines.vllm.api.chunks import ChunkPart, function_part, json_text
from deployments.engines.vllm.api.messages_answer import (
    PromptCounts,
    message_id,
    signature_of,
    stop_of,
    usage_object,
    use_id,
)
from gateway.errors.anthropic import error_type

DONE = "data: [DONE]"


class _OpenBlock:
    """The block of content that a stream is in the middle of."""

    __slots__ = ("call", "index", "kind", "parts")

    def __init__(self, index: int, kind: str, call: int | None = None) -> None:
        self.index, self.kind, self.call = index, kind, call
        self.parts: list[str] = []
        """What it has of arguments and thoughts."""


class MessageChunk:
    """vLLM's chunk, which its generator asks for its JSON."""

    __slots__ = ("_events", "choices", "id", "model", "system_fingerprint", "usage")

    def __init__(
        self,
        events: "MessageEvents",
        *,
        id: str,  # noqa: A002 - vLLM's name
        model: str,
        choices: Sequence[ChunkPart],
        usage: Any = None,  # noqa: ANN401 - vLLM's
    ) -> None:
        self._events = events
        self.id, self.model, self.choices, self.usage = id, model, choices, usage
        self.system_fingerprint: str | None = None

    def model_dump_json(self, **_: bool) -> str:
        """Nothing: the events of this chunk wait to be sent."""
        self._events.record(self)
        return ""


class MessageEvents:
    """Makes the chunks of one stream, and turns them into Anthropic's events.

    `counts_cached`: whether clients are told what was in the cache.
    """

    def __init__(self, asked: AskedMessage, *, counts_cached: bool) -> None:
        self._asked = asked
        self._counts_cached = counts_cached
        self._prompt = PromptCounts()
        self._made: list[str] | None = None
        self._is_begun = self._has_failed = self._has_calls = self._is_call_whole = False
        self._blocks = 0
        self._open: _OpenBlock | None = None
        self._held: list[str] = []
        self._finish: tuple[str | None, int | str | None] = (None, None)

    def chunk(
        self,
        *,
        id: str,  # noqa: A002 - vLLM's name
        model: str,
        choices: Sequence[ChunkPart],
        usage: Any = None,  # noqa: ANN401 - vLLM's
        **_: Any,  # noqa: ANN401 - vLLM's
    ) -> MessageChunk:
        """Make a chunk; called as vLLM calls its model."""
        return MessageChunk(self, id=id, model=model, choices=choices, usage=usage)

    async def counted(self, results: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The results of the engine, whose first says how much of the prompt was cached."""
        async for result in results:
            if not self._is_begun:
                self._count(result)
            yield result

    async def write(self, chunks: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        """The text of the stream; `chunks` is vLLM's generator."""
        try:
            async for item in chunks:
                made, self._made = self._made, None
                if made is not None:
                    if made:
                        yield "".join(made)
                elif not item.startswith(DONE):
                    self._has_failed = True
                    yield self._error(item)
                elif not self._has_failed:
                    yield _event("message_stop")
        finally:
            await chunks.aclose()

    def record(self, chunk: MessageChunk) -> None:
        """Write the events that are due with a chunk."""
        events: list[str] = []
        self._made = events
        if not self._is_begun:
            self._begin(chunk, events)
        for choice in chunk.choices:
            self._add(choice, events)
        if not chunk.choices:
            self._end(chunk.usage, events)

    def _count(self, result: Any) -> None:  # noqa: ANN401 - vLLM's
        tokens = len(result.prompt_token_ids or ()) + len(result.encoder_prompt_token_ids or ())
        if not self._counts_cached:
            self._prompt = PromptCounts(tokens)
            return
        created = getattr(result, "num_cache_creation_tokens", None)
        self._prompt = PromptCounts(tokens, result.num_cached_tokens or 0, created or 0)

    def _begin(self, chunk: MessageChunk, events: list[str]) -> None:
        self._is_begun = True
        message: dict[str, Any] = {
            "id": message_id(chunk.id),
            "type": "message",
            "role": "assistant",
            "model": chunk.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage_object(self._prompt, None), "service_tier": self._asked.tier},
        }
        events.append(_event("message_start", message=message))

    def _add(self, choice: ChunkPart, events: list[str]) -> None:
        delta = choice.delta
        if delta.reasoning:
            self._think(delta.reasoning, events)
        if delta.content:
            self._say(delta.content, events)
        for call in delta.tool_calls or ():
            self._call(call, events)
        if choice.finish_reason is not None:
            self._finish = (choice.finish_reason, choice.stop_reason)

    def _think(self, text: str, events: list[str]) -> None:
        block = self._in("thinking", events, {"thinking": "", "signature": ""})
        block.parts.append(text)
        if not self._asked.hides_thinking:
            events.append(_delta(block.index, "thinking_delta", "thinking", text))

    def _say(self, text: str, events: list[str]) -> None:
        if self._open is not None and self._open.kind == "tool_use":
            self._held.append(text)  # the call may go on
            return
        block = self._in("text", events, {"text": ""})
        events.append(_delta(block.index, "text_delta", "text", text))

    def _call(self, call: Any, events: list[str]) -> None:  # noqa: ANN401 - vLLM's
        function = function_part(call)
        block = self._open
        if block is None or block.call != call.index:
            if call.id is None or not function.get("name"):
                return  # the rest of a call that others have followed
            self._has_calls = True
            fields = {"id": use_id(call.id), "name": function["name"], "input": {}}
            block = self._start("tool_use", events, fields, call.index)
        if arguments := function.get("arguments"):
            block.parts.append(arguments)
            events.append(_delta(block.index, "input_json_delta", "partial_json", arguments))

    def _in(self, kind: str, events: list[str], fields: dict[str, Any]) -> _OpenBlock:
        block = self._open
        return block if block and block.kind == kind else self._start(kind, events, fields)

    def _start(
        self, kind: str, events: list[str], fields: dict[str, Any], call: int | None = None
    ) -> _OpenBlock:
        self._stop(events)
        block = self._open = _OpenBlock(self._blocks, kind, call)
        self._blocks += 1
        content = {"type": kind, **fields}
        events.append(_event("content_block_start", index=block.index, content_block=content))
        return block

    def _stop(self, events: list[str]) -> None:
        """End the block that is open, and write the text that came in the middle of a call."""
        block, self._open = self._open, None
        if block is None:
            return
        if block.kind == "thinking":
            signature = signature_of("".join(block.parts), self._asked)
            events.append(_delta(block.index, "signature_delta", "signature", signature))
        elif block.kind == "tool_use":
            self._is_call_whole = _is_json("".join(block.parts))
        events.append(_event("content_block_stop", index=block.index))
        held, self._held = "".join(self._held), []
        if held:
            self._say(held, events)
            self._stop(events)

    def _end(self, usage: Any, events: list[str]) -> None:  # noqa: ANN401 - vLLM's
        if not self._blocks:
            self._in("text", events, {"text": ""})
        self._stop(events)
        finish_reason, stop = self._finish
        stop_reason, stop_sequence = stop_of(
            finish_reason, stop, has_calls=self._has_calls, is_call_whole=self._is_call_whole
        )
        delta = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
        counts = usage_object(self._prompt, usage)
        events.append(_event("message_delta", delta=delta, usage=counts))

    def _error(self, item: str) -> str:
        """The event for an error of vLLM's.

        One of the engine's own stays as it is: the router knows it, tries again or ends the stream
        in Anthropic's words. So does one before all events, which is answered with a status.
        """
        error = json.loads(item.removeprefix("data: ")).get("error", {})
        status = int(error.get("code") or 500)
        if status >= 500 or not self._is_begun:
            return item
        detail = {
            "type": error_type(status),
            "message": error.get("message") or "The request is invalid.",
        }
        return _event("error", error=detail)


def _event(kind: str, **fields: Any) -> str:  # noqa: ANN401 - JSON
    return f"event: {kind}\ndata: {json_text({'type': kind, **fields})}\n\n"


def _delta(index: int, kind: str, name: str, text: str) -> str:
    """The event of most tokens, without a dictionary of its own."""
    return (
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":'
        f'{index},"delta":{{"type":"{kind}","{name}":{json_text(text)}}}}}\n\n'
    )


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True

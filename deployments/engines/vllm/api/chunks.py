"""Chunks of a streamed completion as OpenAI writes them.

vLLM's generator of a stream makes a model of pydantic for each chunk, and serializes it. These
objects take the place of its models: they have the same constructors, and write only what a client
asked for. A chunk costs less than half of vLLM's (see docs/benchmarks.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployments.engines.vllm.api.tool_calls import InputText, call_id
from deployments.engines.vllm.api.tools import ToolForm
from deployments.engines.vllm.api.usage import usage_object

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked for of the form of its answer."""

    tier: str = "default"
    """Service tier that the request gets."""
    has_null_usage: bool = False
    """Whether a stream ends with a usage: chunks before that have null."""
    has_stop_reason: bool = False
    """Whether the answer says which string or token ended it, as only vLLM does."""
    has_prompt_logprobs: bool = False
    """Whether it has the log-probabilities of the prompt's tokens."""
    is_to_be_stored: bool = False
    """Whether it asks to be stored, which nothing here does: the answer says so."""
    tools: ToolForm = field(default_factory=ToolForm)


class DeltaPart:
    """vLLM's `DeltaMessage`, where its generator makes one itself."""

    __slots__ = ("content", "reasoning", "role", "tool_calls")

    def __init__(self, role: str | None = None, content: Any = None) -> None:  # noqa: ANN401 - JSON
        self.role, self.content = role, content
        self.reasoning: str | None = None
        self.tool_calls: Sequence[Any] = ()


@dataclass(slots=True)
class ChunkPart:
    """vLLM's choice of a chunk, of chats (with `delta`) and of texts."""

    index: int
    delta: Any = None
    text: str | None = None
    logprobs: Any = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: Sequence[int] | None = None
    prompt_token_ids: Sequence[int] | None = None


class Chunk:
    """vLLM's chunk, which its generator asks for its JSON."""

    __slots__ = ("_extras", "_writer", "choices", "system_fingerprint", "usage")

    def __init__(
        self,
        writer: "ChunkWriter",
        choices: Sequence[ChunkPart],
        others: dict[str, Any],
    ) -> None:
        self._writer, self.choices, self._extras = writer, choices, others
        self.usage = others.pop("usage", None)
        self.system_fingerprint: str | None = others.pop("system_fingerprint", None)

    def model_dump_json(self, **_: bool) -> str:
        """The chunk's JSON."""
        return self._writer.write(self, self._extras)


class ChunkWriter:
    """Makes and writes the chunks of one stream; called as vLLM calls its model of a chunk."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._head = ""
        self._inputs: dict[tuple[int, int], InputText] = {}

    def __call__(
        self,
        *,
        id: str,  # noqa: A002 - vLLM's name
        created: int,
        model: str,
        choices: Sequence[ChunkPart],
        object: str = "text_completion",  # noqa: A002 - vLLM's name
        **others: Any,  # noqa: ANN401 - vLLM's
    ) -> Chunk:
        """Make a chunk."""
        if not self._head:
            head = {"id": id, "object": object, "created": created, "model": model}
            self._head = f'{json_text(head)[:-1]},"choices":'
        return Chunk(self, choices, others)

    def write(self, chunk: Chunk, extras: dict[str, Any]) -> str:
        """The JSON of a chunk: for most of them, that of a piece of text in a frame."""
        choices = [self._choice(choice) for choice in chunk.choices]
        parts = [self._head, json_text(choices)]
        if chunk.usage is not None:
            parts.append(f',"usage":{json_text(usage_object(chunk.usage))}')
        elif self._asked.has_null_usage:
            parts.append(',"usage":null')
        if not choices or choices[0]["finish_reason"]:
            parts.append(f',"service_tier":{json_text(self._asked.tier)}')
            if self._asked.is_to_be_stored:
                parts.append(',"store":false')
        if chunk.system_fingerprint is not None:
            parts.append(f',"system_fingerprint":{json_text(chunk.system_fingerprint)}')
        if extras:
            parts.extend(
                f',"{k}":{json_text(dumped(v))}' for k, v in extras.items() if v is not None
            )
        parts.append("}")
        return "".join(parts)

    def _choice(self, choice: ChunkPart) -> dict[str, Any]:
        written: dict[str, Any] = {"index": choice.index}
        finish_reason = choice.finish_reason
        if choice.delta is None:
            written["text"] = choice.text
            written["logprobs"] = dumped(choice.logprobs)
        else:
            written["delta"] = self._delta(choice.index, choice.delta)
            written["logprobs"] = chat_logprobs(choice.logprobs)
            if finish_reason == "tool_calls" and self._asked.tools.is_legacy:
                finish_reason = "function_call"
        written["finish_reason"] = finish_reason
        if finish_reason and self._asked.has_stop_reason:
            written["stop_reason"] = choice.stop_reason
        if choice.prompt_token_ids is not None:
            written["prompt_token_ids"] = choice.prompt_token_ids
        if choice.token_ids is not None:
            written["token_ids"] = choice.token_ids
        return written

    def _delta(self, index: int, delta: Any) -> dict[str, Any]:  # noqa: ANN401 - vLLM's
        written: dict[str, Any] = {}
        if delta.role is not None:
            written["role"] = delta.role
        if delta.content is not None:
            written["content"] = delta.content
        if delta.role is not None:
            written["refusal"] = None
        if delta.reasoning is not None:
            written["reasoning"] = delta.reasoning
        if delta.tool_calls:
            self._add_calls(written, index, delta.tool_calls)
        return written

    def _add_calls(self, written: dict[str, Any], index: int, calls: Sequence[Any]) -> None:
        if not self._asked.tools.is_legacy:
            written["tool_calls"] = [self._call(index, call) for call in calls]
            return
        function: dict[str, Any] = {}
        for call in calls:
            for name, text in function_part(call).items():
                function[name] = function.get(name, "") + text
        written["function_call"] = function

    def _call(self, index: int, call: Any) -> dict[str, Any]:  # noqa: ANN401 - vLLM's
        function = function_part(call)
        name = function.get("name")
        place = (index, call.index)
        if name in self._asked.tools.custom:
            self._inputs[place] = InputText()
        written: dict[str, Any] = {"index": call.index}
        if call.id is not None:
            written["id"] = call_id(call.id)
        if place in self._inputs:
            if name is not None:
                written["type"] = "custom"
            text = self._inputs[place].feed(function.get("arguments", ""))
            written["custom"] = {"input": text} if name is None else {"name": name, "input": text}
            return written
        if call.type is not None:
            written["type"] = call.type
        written["function"] = function
        return written


def chat_logprobs(logprobs: Any) -> dict[str, Any] | None:  # noqa: ANN401 - vLLM's
    """The log-probabilities of a chat's choice, with the list that is always there."""
    if logprobs is None:
        return None
    content = logprobs.content
    return {"content": content and [dumped(token) for token in content], "refusal": None}


def dumped(value: Any) -> Any:  # noqa: ANN401 - a model of pydantic, or JSON
    """A model of pydantic as JSON's objects; other values as they are."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def function_part(call: Any) -> dict[str, str]:  # noqa: ANN401 - vLLM's
    """The function in a part of a call; the first part has arguments, if empty ones."""
    function = call.function
    if function is None:
        return {}
    # Some of vLLM's parsers have a dict there.
    fields = function if isinstance(function, dict) else vars(function)
    written = {"name": fields.get("name"), "arguments": fields.get("arguments")}
    if written["name"] is not None:
        written["arguments"] = written["arguments"] or ""
    return {name: text for name, text in written.items() if text is not None}


def json_text(value: Any) -> str:  # noqa: ANN401 - JSON
    """A value as JSON."""
    return _encoder.encode(value).decode()

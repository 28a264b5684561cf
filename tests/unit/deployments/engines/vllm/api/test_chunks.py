"""Chunks of a streamed completion, as OpenAI writes them."""

import json
from types import SimpleNamespace
from typing import Any

from deployments.engines.vllm.api.chunks import Asked, ChunkPart, ChunkWriter, DeltaPart
from deployments.engines.vllm.api.tools import ToolForm

HEAD: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "demo",
}
USAGE = SimpleNamespace(
    prompt_tokens=3,
    completion_tokens=2,
    total_tokens=5,
    prompt_tokens_details=SimpleNamespace(cached_tokens=1),
    completion_tokens_details=None,
)


def written(writer: ChunkWriter, *choices: ChunkPart, **fields: Any) -> dict[str, Any]:
    """The chunk with these choices, parsed."""
    chunk: dict[str, Any] = json.loads(
        writer(**HEAD, choices=choices, **fields).model_dump_json(exclude_unset=True)
    )
    return chunk


def call(name: str | None, arguments: str | None, call_id: str | None = None) -> DeltaPart:
    """A delta with a part of a call, as vLLM's parsers make it."""
    delta = DeltaPart()
    function = SimpleNamespace(name=name, arguments=arguments)
    kind = "function" if name else None
    delta.tool_calls = [SimpleNamespace(index=0, id=call_id, type=kind, function=function)]
    return delta


def test_a_piece_of_text_has_no_extras() -> None:
    """Most chunks have the identity of the stream, a text and two nulls."""
    chunk = written(ChunkWriter(Asked()), ChunkPart(0, DeltaPart(content='Grüß "x"')))
    choice = {
        "index": 0,
        "delta": {"content": 'Grüß "x"'},
        "logprobs": None,
        "finish_reason": None,
    }
    assert chunk == {**HEAD, "choices": [choice]}


def test_usage_is_null_before_it_comes() -> None:
    """Chunks have the field where the stream ends with a usage, and this one is whole."""
    writer = ChunkWriter(Asked(has_null_usage=True))
    assert written(writer, ChunkPart(0, DeltaPart(content="x")))["usage"] is None
    last = written(writer, usage=USAGE)
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 1, "audio_tokens": 0}
    assert last["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] == 0


def test_the_last_chunk_says_what_was_served() -> None:
    """The tier, the fingerprint, and that nothing was stored; `stop_reason` only where asked."""
    asked = Asked(tier="flex", is_to_be_stored=True)
    part = ChunkPart(0, DeltaPart(), finish_reason="stop", stop_reason="!")
    chunk = written(ChunkWriter(asked), part, system_fingerprint="f")
    assert (chunk["service_tier"], chunk["system_fingerprint"], chunk["store"]) == (
        "flex",
        "f",
        False,
    )
    assert "stop_reason" not in chunk["choices"][0]
    of_vllm = written(ChunkWriter(Asked(has_stop_reason=True)), part)
    assert of_vllm["choices"][0]["stop_reason"] == "!"


def test_a_call_begins_with_empty_arguments() -> None:
    """The first part of a call has id, type, name and arguments; the others what is new."""
    writer = ChunkWriter(Asked())
    first = written(writer, ChunkPart(0, call("f", None, "chatcmpl-tool-1")))
    (part,) = first["choices"][0]["delta"]["tool_calls"]
    function = {"name": "f", "arguments": ""}
    assert part == {"index": 0, "id": "call_1", "type": "function", "function": function}
    second = written(writer, ChunkPart(0, call(None, '{"a"')))
    (part,) = second["choices"][0]["delta"]["tool_calls"]
    assert part == {"index": 0, "function": {"arguments": '{"a"'}}


def test_a_call_of_a_function_is_a_function_call() -> None:
    """Requests with `functions` get their answer in the words of that time."""
    writer = ChunkWriter(Asked(tools=ToolForm(is_legacy=True)))
    chunk = written(writer, ChunkPart(0, call("f", None, "chatcmpl-tool-1")))
    assert chunk["choices"][0]["delta"] == {"function_call": {"name": "f", "arguments": ""}}
    end = written(writer, ChunkPart(0, DeltaPart(), finish_reason="tool_calls"))
    assert end["choices"][0]["finish_reason"] == "function_call"


def test_the_input_of_a_custom_tool_is_text() -> None:
    """The string in the arguments arrives unescaped, wherever they are cut."""
    writer = ChunkWriter(Asked(tools=ToolForm(custom=frozenset({"write"}))))
    text = ""
    arguments = json.dumps({"input": 'a\n"b" ü 🙂 \\'})
    for place, piece in enumerate(["", *arguments]):
        delta = call(None if place else "write", piece, None if place else "chatcmpl-tool-1")
        (part,) = written(writer, ChunkPart(0, delta))["choices"][0]["delta"]["tool_calls"]
        text += part["custom"]["input"]
        assert ("name" in part["custom"]) == (part.get("type") == "custom") == (place == 0)
    assert text == 'a\n"b" ü 🙂 \\'


def test_what_is_asked_for_is_there() -> None:
    """vLLM's own fields stand in a chunk where they have a value."""
    part = ChunkPart(0, DeltaPart(content="x"), token_ids=[7])
    chunk = written(ChunkWriter(Asked()), part, prompt_token_ids=[1, 2], prompt_text=None)
    assert chunk["choices"][0]["token_ids"] == [7]
    assert chunk["prompt_token_ids"] == [1, 2]
    assert "prompt_text" not in chunk

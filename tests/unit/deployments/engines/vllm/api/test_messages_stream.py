"""Streams of Anthropic's events."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.engines.vllm.api.asked_message import AskedMessage
from deployments.engines.vllm.api.chunks import ChunkPart
from deployments.engines.vllm.api.messages_stream import MessageEvents
from deployments.engines.vllm.api.streamed_refusal import refusal
from gateway.request.reasoning_token import open_token
from tests.unit.deployments.engines.vllm.api.message_parts import call, part, usage

Step = ChunkPart | str
"""A part of the answer, or an item that vLLM writes itself."""
ENGINE_ERROR = 'data: {"error": {"message": "EngineCore died", "type": "x", "code": 500}}\n\n'
CLIENT_ERROR = 'data: {"error": {"message": "No.", "type": "BadRequestError", "code": 400}}\n\n'
DONE = "data: [DONE]\n\n"


async def written(
    *steps: Step,
    asked: AskedMessage = AskedMessage(),  # noqa: B008 - it is frozen
    counts_cached: bool = True,
    counts: Any = None,
) -> str:
    """The stream of an answer in these steps, written by a generator such as vLLM's."""
    events = MessageEvents(asked, counts_cached=counts_cached)
    result = SimpleNamespace(
        prompt_token_ids=[1] * 10, encoder_prompt_token_ids=None, num_cached_tokens=4
    )

    async def results() -> AsyncIterator[Any]:
        for _ in steps:
            yield result

    async def chunks() -> AsyncGenerator[str, None]:
        place = 0
        async for _ in events.counted(results()):
            step = steps[place]
            place += 1
            if isinstance(step, str):
                yield step
            else:
                chunk = events.chunk(id="chatcmpl-1", model="m", choices=[step], created=1)
                yield f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"
        if not any(isinstance(step, str) for step in steps):
            last = events.chunk(id="chatcmpl-1", model="m", choices=[], usage=counts or usage())
            yield f"data: {last.model_dump_json(exclude_unset=True)}\n\n"
        yield DONE

    return "".join([item async for item in events.write(chunks())])


def parsed(stream: str) -> list[dict[str, Any]]:
    """The events of a stream, each of which is named by its type."""
    events = []
    for event in stream.removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        found = json.loads(data.removeprefix("data: "))
        assert name == f"event: {found['type']}"
        events.append(found)
    return events


def types(events: list[dict[str, Any]]) -> list[str]:
    """Types of events, with the types of blocks and deltas."""
    inner = [event.get("content_block", event.get("delta", {})).get("type") for event in events]
    return [
        event["type"].removeprefix("content_block_") + (f" {kind}" if kind else "")
        for event, kind in zip(events, inner, strict=True)
    ]


async def test_a_text_is_one_block() -> None:
    """Between the message's beginning and its end, with the usage of both."""
    events = parsed(await written(part(""), part("Hel"), part("lo\n"), part(finish_reason="stop")))
    assert types(events) == [
        *("message_start", "start text", "delta text_delta", "delta text_delta", "stop"),
        *("message_delta", "message_stop"),
    ]
    message = events[0]["message"]
    assert (message["id"], message["model"], message["content"]) == ("msg_1", "m", [])
    assert message["usage"] == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 0,
        "service_tier": "standard",
    }
    assert "".join(event["delta"]["text"] for event in events[2:4]) == "Hello\n"
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] == 5


async def test_cached_tokens_are_told_only_where_the_engine_may() -> None:
    """Otherwise all tokens of the prompt are its input."""
    events = parsed(await written(part("a"), counts_cached=False))
    assert events[0]["message"]["usage"]["input_tokens"] == 10
    assert events[0]["message"]["usage"]["cache_read_input_tokens"] == 0


async def test_thoughts_text_and_calls_are_blocks_of_their_own() -> None:
    """Numbered in order, each ended before the next one begins."""
    steps = [
        part(reasoning="Hm."),
        part("So: "),
        part(calls=[call("chatcmpl-tool-1", "f", "")]),
        part(calls=[call(None, None, '{"a":')]),
        part(calls=[call(None, None, "1}")]),
        part(calls=[call("chatcmpl-tool-2", "g", "{}", index=1)]),
        part(finish_reason="tool_calls"),
    ]
    events = parsed(await written(*steps))
    assert types(events)[1:-2] == [
        *("start thinking", "delta thinking_delta", "delta signature_delta", "stop"),
        *("start text", "delta text_delta", "stop"),
        *("start tool_use", "delta input_json_delta", "delta input_json_delta", "stop"),
        *("start tool_use", "delta input_json_delta", "stop"),
    ]
    starts = [event for event in events if event["type"] == "content_block_start"]
    assert [event["index"] for event in starts] == [0, 1, 2, 3]
    assert starts[2]["content_block"] == {
        "type": "tool_use",
        "id": "toolu_1",
        "name": "f",
        "input": {},
    }
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_text_in_the_middle_of_a_call_comes_after_it() -> None:
    """Blocks do not overlap in Anthropic's streams."""
    steps = [
        part(calls=[call("c1", "f", '{"a"')]),
        part("\n"),
        part(calls=[call(None, None, ":1}")]),
        part("Done."),
    ]
    events = parsed(await written(*steps))
    assert types(events)[1:-2] == [
        *("start tool_use", "delta input_json_delta", "delta input_json_delta", "stop"),
        *("start text", "delta text_delta", "stop"),
    ]
    assert events[-5]["content_block"]["type"] == "text"
    assert events[-4]["delta"]["text"] == "\nDone."


async def test_the_rest_of_a_call_that_another_followed_is_dropped() -> None:
    """Its block has ended."""
    steps = [
        part(calls=[call("c1", "f", "{")]),
        part(calls=[call("c2", "g", "{}", index=1)]),
        part(calls=[call(None, None, "}")]),
    ]
    events = parsed(await written(*steps))
    assert types(events).count("start tool_use") == 2
    assert types(events).count("delta input_json_delta") == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [('{"a": "x', ("stop_sequence", "END")), ('{"a": "x"}', ("tool_use", None))],
)
async def test_a_call_that_a_stop_sequence_has_cut_is_not_run(
    arguments: str, expected: tuple[str, str | None]
) -> None:
    """One that is whole is."""
    steps = [part(calls=[call("c", "f", arguments)]), part(finish_reason="stop", stop="END")]
    events = parsed(await written(*steps))
    assert (events[-2]["delta"]["stop_reason"], events[-2]["delta"]["stop_sequence"]) == expected


async def test_thoughts_that_are_left_out_are_in_their_signature() -> None:
    """Of the block nothing else is sent."""
    asked = AskedMessage(hides_thinking=True)
    events = parsed(
        await written(part(reasoning="H"), part(reasoning="m."), part("a"), asked=asked)
    )
    assert types(events)[1:4] == ["start thinking", "delta signature_delta", "stop"]
    assert open_token(events[2]["delta"]["signature"]) == "Hm."


async def test_an_answer_of_no_tokens_has_an_empty_block() -> None:
    """As a whole answer has."""
    events = parsed(await written(part(finish_reason="length")))
    assert types(events)[1:3] == ["start text", "stop"]
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


async def test_deltas_are_written_as_any_json() -> None:
    """However odd the text is."""
    text = 'quoted "x", \\, \n\t, é 世界 \u2028 \x00'
    events = parsed(await written(part(text)))
    assert events[2]["delta"] == {"type": "text_delta", "text": text}


async def test_an_error_before_all_events_is_answered_with_a_status() -> None:
    """The first event is vLLM's own, of which an answer is made."""
    first = (await written(CLIENT_ERROR)).encode()
    assert refusal(first) == (400, CLIENT_ERROR.removeprefix("data: ").strip().encode())


async def test_a_client_s_error_in_a_stream_is_anthropics_event() -> None:
    """The message has begun; it does not end."""
    events = parsed(await written(part("a"), CLIENT_ERROR))
    assert types(events)[-1] == "error"
    assert events[-1]["error"] == {"type": "invalid_request_error", "message": "No."}
    assert "message_stop" not in types(events)


@pytest.mark.parametrize("steps", [(ENGINE_ERROR,), (part("a"), ENGINE_ERROR)])
async def test_routers_notice_an_error_of_the_engines(steps: tuple[Step, ...]) -> None:
    """They try again, or end the stream in words of their own."""
    stream = (await written(*steps)).encode()
    assert stream.endswith(ENGINE_ERROR.encode())
    assert b"message_stop" not in stream
    assert refusal(stream) is None

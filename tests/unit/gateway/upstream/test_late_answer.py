"""Whole answers as the rest of streams: read by the SDKs of their APIs, they are what they were."""

import json
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from gateway.upstream.late_answer import late_events

BEGUN = b": still working\n\n"
CHAT, TEXT, MESSAGES, RESPONSES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/responses",
)
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "Hm, \n\n.", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Let me see: é."},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": [1, "b"]}},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 9, "cache_read_input_tokens": 2},
}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "logprobs": None,
            "message": {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
        },
        {
            "index": 1,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": "No."},
        },
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "incomplete",
    "model": "m",
    "output": [],
    "usage": {"input_tokens": 1},
}


def client_of(body: bytes) -> httpx2.Client:
    """An HTTP client that gets this stream, whatever it asks for."""
    headers = {"content-type": "text/event-stream"}
    return httpx2.Client(
        transport=httpx2.MockTransport(
            lambda _: httpx2.Response(200, content=body, headers=headers)
        )
    )


def events_of(answer: object, path: str, status: int = 200) -> bytes:
    """The stream that ends with an answer."""
    return BEGUN + late_events(json.dumps(answer, indent=1).encode(), status, path)


def test_a_message_is_the_same_as_a_stream() -> None:
    """Blocks of all kinds, the reason for its end, and its usage."""
    http = client_of(events_of(MESSAGE, MESSAGES))
    client = anthropic.Anthropic(api_key="k", base_url="http://x", http_client=http)
    with client.messages.stream(model="m", max_tokens=9, messages=[]) as stream:
        kinds = [event.type for event in stream]
        found = stream.get_final_message().to_dict()
    assert {name: found[name] for name in MESSAGE} == MESSAGE
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")


def test_a_chat_completion_is_the_same_as_a_stream() -> None:
    """One chunk has all of it, and the calls are numbered."""
    http = client_of(events_of(COMPLETION, CHAT))
    client = openai.OpenAI(api_key="k", base_url="http://x", http_client=http)
    (chunk,) = client.chat.completions.create(model="m", messages=[], stream=True)
    assert chunk.object == "chat.completion.chunk"
    delta = chunk.choices[0].delta
    assert delta.content == "Let me see."
    calls = [(call.index, call.id) for call in delta.tool_calls or ()]
    assert calls == [(0, "c1"), (1, "c2")]
    assert [each.finish_reason for each in chunk.choices] == ["tool_calls", "stop"]
    assert chunk.usage
    assert chunk.usage.total_tokens == 3


def test_a_text_completion_is_its_own_chunk() -> None:
    """Their chunks have the same form."""
    answer = {"object": "text_completion", "choices": [{"index": 0, "text": "a"}]}
    data, done, _ = events_of(answer, TEXT).removeprefix(BEGUN).split(b"\n\n")
    assert json.loads(data.removeprefix(b"data: ")) == answer
    assert done == b"data: [DONE]"


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_a_response_ends_its_stream(status: str) -> None:
    """By the event of its status, which has all of it."""
    http = client_of(events_of({**RESPONSE, "status": status}, RESPONSES))
    client = openai.OpenAI(api_key="k", base_url="http://x", http_client=http)
    created, ended = client.responses.create(model="m", input="x", stream=True)
    assert (created.type, ended.type) == ("response.created", f"response.{status}")
    assert created.response.status == "in_progress"  # type: ignore[union-attr]
    assert ended.response.status == status  # type: ignore[union-attr]


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"type": "error",\n"error": {"type": "x", "message": "No."}}', 400),
        (b'{"object": "list"}', 200),
        (b"plain text", 200),
    ],
)
def test_what_is_no_answer_is_an_error_event(path: str, body: bytes, status: int) -> None:
    """Errors in the shape of their API, and what nobody can read."""
    name, data = late_events(body, status, path).removesuffix(b"\n\n").split(b"\n")
    assert name == b"event: error"
    assert data.startswith(b"data: ")

"""Streams that begin with a client's error: they become an answer with a status."""

import asyncio
from typing import Any

import pytest

from deployments.engines.vllm.early_errors import refusal, with_early_errors
from gateway.asgi import Receive, Scope, Send

STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]
REFUSED = b'{"error": {"message": "no", "type": "BadRequestError", "code": 400}}'
ANTHROPIC = b'{"type":"error","error":{"type":"BadRequestError","message":"no"}}'


def sent(headers: list[tuple[bytes, bytes]], *chunks: bytes, status: int = 200) -> list[Any]:
    """Messages that reach the server from an application that sends these."""
    messages: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError

    async def answer() -> None:
        await with_early_errors(app)({"type": "http"}, receive, send)

    asyncio.run(answer())
    return messages


def test_a_stream_that_is_refused_gets_a_status() -> None:
    """The rest of the stream is dropped."""
    head, body = sent(STREAM, b"data: " + REFUSED + b"\n\n", b"data: [DONE]\n\n")
    assert head["status"] == 400
    assert (b"content-type", b"application/json") in head["headers"]
    assert body["body"] == REFUSED


@pytest.mark.parametrize(
    ("headers", "first"),
    [(STREAM, b'data: {"id": "a"}\n\n'), (STREAM, b""), (JSON, b"data: " + REFUSED), ([], b"a")],
)
def test_other_answers_pass_unchanged(headers: list[tuple[bytes, bytes]], first: bytes) -> None:
    """Message by message."""
    head, one, two, end = sent(headers, first, b"data: [DONE]\n\n")
    assert (head["status"], head["headers"]) == (200, headers)
    assert [one["body"], two["body"], end["body"]] == [first, b"data: [DONE]\n\n", b""]


def test_a_later_error_stays_an_event() -> None:
    """The client has part of the stream by then."""
    messages = sent(STREAM, b'data: {"id": "a"}\n\n', b"data: " + REFUSED + b"\n\n")
    assert [message.get("status") for message in messages] == [200, None, None, None]


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (b"data: " + REFUSED + b"\n\n", (400, REFUSED)),
        (b"event: error\ndata: " + ANTHROPIC + b"\n\n", (400, ANTHROPIC)),
        (b'data: {"error": {"message": "no", "code": 500}}\n\n', None),
        (b'data: {"error": {"message": "no"}}\n\n', None),
        (b'data: {"error": "no"}\n\n', None),
        (b'data: {"error": null, "id": "a"}\n\n', None),
        (b'data: {"content": "\\"error\\""}\n\n', None),
        (b"data: [DONE]\n\n", None),
        (b": comment\n\n", None),
        (b"", None),
    ],
)
def test_only_client_errors_are_refusals(chunk: bytes, expected: object) -> None:
    """An error of the engine's own is for the router to see."""
    assert refusal(chunk) == expected

"""vLLM's application, whose errors are rewritten, also those that come as events."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as some

from deployments.engines.vllm.api.api_errors import rewritten, with_api_errors
from gateway.asgi import Message, Receive, Scope, Send

CHAT = "/v1/chat/completions"
STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]
REFUSED = b'{"error": {"message": "no", "type": "BadRequestError", "code": 400}}'
EVENTS = [b'data: {"id": "a"}\n\n', b"data: [DONE]\n\n", b": comment\n\n", b"", b"a"]


async def passed(messages: Sequence[Message]) -> list[Message]:
    """Messages that reach the server from an application that sends these."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    await with_api_errors(app)({"type": "http", "path": CHAT}, receive, send)
    return sent


def answered(status: int, headers: Sequence[tuple[bytes, bytes]], *parts: bytes) -> list[Message]:
    """The messages of an answer."""
    head: Message = {"type": "http.response.start", "status": status, "headers": [*headers]}
    return [
        head,
        *(
            {"type": "http.response.body", "body": part, "more_body": number < len(parts)}
            for number, part in enumerate(parts, 1)
        ),
    ]


async def answer(status: int, *parts: bytes) -> tuple[Message, bytes]:
    """Head and body that come of an application's answer."""
    headers = [(b"content-length", b"%d" % sum(map(len, parts))), (b"x-other", b"1")]
    sent = await passed(answered(status, headers, *parts))
    return sent[0], b"".join(each["body"] for each in sent[1:])


@given(
    headers=some.sampled_from([STREAM, JSON, []]),
    status=some.sampled_from([200, 204, 302]),
    parts=some.lists(some.sampled_from(EVENTS), min_size=1, max_size=5),
)
async def test_good_answers_pass_message_by_message(
    headers: list[tuple[bytes, bytes]], status: int, parts: list[bytes]
) -> None:
    """The very same ones in the same order: every byte, and where it was cut."""
    messages = answered(status, headers, *parts)
    sent = await passed(messages)
    assert len(sent) == len(messages)
    assert all(one is other for one, other in zip(sent, messages, strict=True))


async def test_a_stream_that_is_refused_gets_a_status() -> None:
    """In OpenAI's envelope; the rest of the stream is dropped."""
    parts = (b"data: " + REFUSED + b"\n\n", b"data: [DONE]\n\n", b"")
    head, body = await passed(answered(200, [*STREAM, (b"x-other", b"1")], *parts))
    assert head["status"] == 400
    assert dict(head["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(body["body"]),
    }
    error = json.loads(body["body"])["error"]
    assert (error["message"], error["type"], error["code"]) == ("no", "invalid_request_error", None)


async def test_an_error_gets_openais_envelope() -> None:
    """With its own length, and the headers that it had."""
    error = {"message": "n must be at least 1, got 0.", "type": "BadRequestError", "code": 400}
    whole = json.dumps({"error": error}).encode()
    head, body = await answer(400, whole[:20], whole[20:])
    found = json.loads(body)["error"]
    assert (found["code"], found["param"]) == ("integer_below_min_value", "n")
    assert found["type"] == "invalid_request_error"
    assert (b"content-length", b"%d" % len(body)) in head["headers"]
    assert (b"x-other", b"1") in head["headers"]


@pytest.mark.parametrize("code", ["unsupported_parameter", None])
def test_our_own_errors_stay_as_they_are(code: str | None) -> None:
    """They are in OpenAI's envelope already."""
    body = json.dumps({"error": {"message": "No.", "type": "x", "param": "p", "code": code}})
    assert rewritten(400, body.encode(), CHAT) == body.encode()


@pytest.mark.parametrize("body", [b"", b"Internal Server Error", b'{"error": {"message": "/x"}}'])
def test_a_server_error_tells_nothing(body: bytes) -> None:
    """What failed is in the engine's log."""
    error = json.loads(rewritten(500, body, CHAT))["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "/x" not in error["message"]


def test_frameworks_own_errors_are_rewritten() -> None:
    """FastAPI has another envelope."""
    error = json.loads(rewritten(404, b'{"detail": "Not Found"}', CHAT))["error"]
    assert (error["message"], error["code"]) == ("Not Found", "not_found")


async def test_an_error_in_a_stream_gets_openais_envelope() -> None:
    """If it is the client's: the event, and what is sent with it."""
    error = {"message": "n must be at least 1, got 0.", "type": "BadRequestError", "code": 400}
    event = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
    _, body = await answer(200, b'data: {"choices": []}\n\n', event, b"data: [DONE]\n\n")
    first, second, done, rest = body.split(b"\n\n")
    found = json.loads(second.removeprefix(b"data: "))["error"]
    assert (first, done, rest) == (b'data: {"choices": []}', b"data: [DONE]", b"")
    assert found["code"] == "integer_below_min_value"
    assert found["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "x", "type": "InternalServerError", "code": 500}}\n\n',
        b'data: {"error": {"message": "x", "type": "y", "param": null, "code": "z"}}\n\n',
        b'data: {"error": null}\n\n',
        b'data: {"error\n\n',
    ],
)
async def test_other_events_stay_as_they_are(event: bytes) -> None:
    """Routers need the number of an error that is the engine's own."""
    assert (await answer(200, event))[1] == event

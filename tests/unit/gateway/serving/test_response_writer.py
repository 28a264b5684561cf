"""Answers to clients whose streams have begun with signs of life."""

import json

import pytest

from gateway.serving.response_writer import ResponseWriter
from gateway.serving.signs_of_life import COMMENT
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import Client, StartEngine, answer
from tests.unit.surface import script

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "content": [{"type": "text", "text": "Hello!"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 2},
}
ERROR = {"error": {"message": "No.", "type": "x", "param": "messages", "code": "invalid_value"}}


async def sent(
    upstream: UpstreamClient, start_engine: StartEngine, body: object, status: bytes
) -> tuple[Client, list[dict[str, object]]]:
    """A client of `/v1/messages` whose engine answers late, and the events that it gets."""
    engine = await start_engine(script(answer(json.dumps(body).encode(), status=status)))
    client = Client()
    writer = ResponseWriter("/v1/messages", client.response, is_resumable=False)
    await writer.begin()
    await client.response.send_part(writer.signs_of_life.after(COMMENT))
    response = await upstream.request(engine.address, "POST", "/v1/messages", [])
    await writer.forward(response)
    lines = client.body.decode().splitlines()
    return client, [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


async def test_a_good_answer_that_comes_late_is_a_stream(
    upstream: UpstreamClient, start_engine: StartEngine
) -> None:
    """Not an error, although it is no stream."""
    client, events = await sent(upstream, start_engine, MESSAGE, b"200 OK")
    assert client.is_complete
    assert [event["type"] for event in events] == [
        *("ping", "message_start", "content_block_start", "content_block_delta"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert events[3]["delta"] == {"type": "text_delta", "text": "Hello!"}


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found"])
async def test_an_error_that_comes_late_is_an_event(
    upstream: UpstreamClient, start_engine: StartEngine, status: bytes
) -> None:
    """In Anthropic's shape; the metrics count its own status."""
    client, events = await sent(upstream, start_engine, ERROR, status)
    assert [event["type"] for event in events] == ["ping", "error"]
    error = events[1]["error"]
    assert isinstance(error, dict)
    assert error["message"] == "messages: No."
    assert client.response.status == int(status[:3])

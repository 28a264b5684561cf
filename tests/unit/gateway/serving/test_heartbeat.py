"""The heartbeat of silent streams."""

import asyncio
from collections.abc import Callable

from gateway.asgi import Message
from gateway.serving.client_response import ClientResponse
from gateway.serving.heartbeat import Heartbeat
from gateway.serving.response_writer import ResponseWriter
from gateway.serving.signs_of_life import COMMENT, PING
from gateway.upstream.response import EngineResponse
from tests.unit.conftest import PATIENCE_S

PERIOD_S = 0.01


class Client:
    """An ASGI `send` that can be waited on."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._arrived = asyncio.Event()
        self.response = ClientResponse(self.send, [(b"x-request-id", b"id")])

    async def send(self, message: Message) -> None:
        """Take a message."""
        self.messages.append(message)
        self._arrived.set()

    async def until(self, count: int) -> None:
        """Wait for that many messages."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.messages) < count:
                self._arrived.clear()
                await self._arrived.wait()


def beating(response: ClientResponse, is_between: Callable[[], bool] = lambda: True) -> Heartbeat:
    """A heartbeat for a response that begins as a stream of events."""
    writer = ResponseWriter("/v1/chat/completions", response, is_resumable=False)
    return Heartbeat(response, writer.begin, is_between, period_s=PERIOD_S)


async def test_a_silent_stream_begins_with_a_comment() -> None:
    """The response begins as a stream of events, under its own headers."""
    client = Client()
    async with beating(client.response):
        await client.until(3)
    start, *parts = client.messages
    assert start["status"] == 200
    assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
    assert (b"x-request-id", b"id") in start["headers"]
    assert {part["body"] for part in parts} == {COMMENT}
    assert all(part["more_body"] for part in parts)


async def test_a_stream_that_has_begun_gets_comments_between_its_events() -> None:
    """A comment follows the last event; the response begins only once."""
    client = Client()
    async with beating(client.response):
        await client.response.begin(200, [])
        await client.response.send_part(b"data: 1\n\n")
        await client.until(3)
    kinds = [message["type"] for message in client.messages]
    assert kinds.count("http.response.start") == 1
    assert client.messages[2]["body"] == COMMENT


async def test_a_silent_stream_of_messages_gets_pings() -> None:
    """Clients count them, also before the engine's first event."""
    client = Client()
    writer = ResponseWriter("/v1/messages", client.response, is_resumable=False)
    sign = writer.signs_of_life.after
    async with Heartbeat(client.response, writer.begin, lambda: True, sign, PERIOD_S):
        await client.until(2)
    assert client.messages[1]["body"] == COMMENT + PING


async def test_a_silent_response_is_in_progress() -> None:
    """After the engine's first events, clients of Responses get one that says nothing new."""
    client = Client()
    writer = ResponseWriter("/v1/responses", client.response, is_resumable=False)
    data = b'{"type":"response.created","sequence_number":0,"response":{"id":"resp_1"}}'
    events = b"event: response.created\ndata: %b\n\n" % data
    response = EngineResponse(Nothing(), asyncio.get_running_loop())
    response.status, response.headers = 200, [(b"content-type", b"text/event-stream")]
    response.feed(events)
    forwarding = asyncio.create_task(writer.forward(response))
    sign = writer.signs_of_life.after
    async with Heartbeat(client.response, writer.begin, lambda: True, sign, PERIOD_S):
        await client.until(3)
    forwarding.cancel()
    await asyncio.gather(forwarding, return_exceptions=True)
    assert client.messages[1]["body"] == events
    assert client.messages[2]["body"].removeprefix(COMMENT) == (
        b"event: response.in_progress\n"
        b'data: {"type":"response.in_progress","sequence_number":0,"response":{"id":"resp_1"}}\n\n'
    )


class Nothing:
    """A connection to an engine that does nothing."""

    def abort(self) -> None:
        """Close it."""

    def resume_reading(self) -> None:
        """Read on."""


async def test_no_comment_is_sent_inside_an_event() -> None:
    """In the middle of an event, a comment would become part of it."""
    client = Client()
    looks = asyncio.Event()
    count = 0

    def is_between() -> bool:
        nonlocal count
        count += 1
        if count > 1:
            looks.set()
        return False

    async with beating(client.response, is_between), asyncio.timeout(PATIENCE_S):
        await looks.wait()
    assert client.messages == []


async def test_no_comment_is_sent_after_the_end() -> None:
    """Nothing is added to a response that has ended, even if its request is still handled."""
    client = Client()
    async with beating(client.response):
        await client.response.begin(200, [])
        await client.response.finish(b"")
        await asyncio.sleep(5 * PERIOD_S)
    assert [message.get("body") for message in client.messages] == [None, b""]


async def test_a_client_that_does_not_read_gets_one_comment_at_a_time() -> None:
    """Comments do not pile up behind each other, and the last is given up at the end."""
    sends = 0
    stuck = asyncio.Event()

    async def send(_: Message) -> None:
        nonlocal sends
        sends += 1
        await stuck.wait()

    async with beating(ClientResponse(send, [])):
        await asyncio.sleep(10 * PERIOD_S)
    assert sends == 1

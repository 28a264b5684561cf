"""The relay: an engine's answer on its way to a client, whole or broken."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from gateway.errors import UpstreamFailed
from gateway.relay.asgi import Message
from gateway.relay.relay import Call, Relay
from gateway.relay.reply import Reply
from gateway.relay.upstream import Upstream
from tests.unit.conftest import PATIENCE_S, StartEngine, Visit, answer, chunked

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Client:
    """An ASGI `send` that remembers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.has_bytes = asyncio.Event()
        self.reply = Reply(self.send, [(b"x-request-id", b"id")])

    async def send(self, message: Message) -> None:
        """Take a message."""
        self.messages.append(message)
        if message.get("body"):
            self.has_bytes.set()

    @property
    def body(self) -> bytes:
        """All bytes of the body."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def is_complete(self) -> bool:
        """Whether the answer has come to its end."""
        return self.messages[-1].get("more_body") is False


def call(path: str = "/v1/chat/completions", body: bytes = b"{}") -> Call:
    """A call with headers of all kinds."""
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer client-key"),
        (b"x-vllm-priority", b"-100"),
    ]
    return Call(path, headers, body, b"id", dispatch=[])


def script(*parts: bytes, closes: bool = False) -> Callable[[Visit], Awaitable[None]]:
    """Answer with `parts`."""

    async def run(visit: Visit) -> None:
        await visit.send(*parts)
        if closes:
            visit.writer.close()

    return run


async def test_engine_gets_its_key_and_not_the_clients(
    start_engine: StartEngine, upstream: Upstream
) -> None:
    """The client's key and orders stay outside; the replica's key, id and body arrive."""
    engine = await start_engine(script(answer(b"ok")))
    await Relay(upstream).carry(call(body=b'{"a":1}'), engine.replica(), Client().reply)
    head, _, body = engine.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert set(lines[2:]) == {
        b"content-type: application/json",
        b"authorization: Bearer engine-key",
        b"x-request-id: id",
        b"content-length: 7",
    }
    assert body == b'{"a":1}'


async def test_answer_passes_with_status_and_headers(
    start_engine: StartEngine, upstream: Upstream
) -> None:
    """An engine's own error passes through unchanged, in one message, under the gateway's id."""
    engine = await start_engine(
        script(answer(b"{}", b"server: e", b"x-a: 1", status=b"422 Unprocessable"))
    )
    client = Client()
    await Relay(upstream).carry(call(), engine.replica(), client.reply)
    start, body = client.messages
    assert start == {
        "type": "http.response.start",
        "status": 422,
        "headers": [(b"content-length", b"2"), (b"x-a", b"1"), (b"x-request-id", b"id")],
    }
    assert body == {"type": "http.response.body", "body": b"{}", "more_body": False}


async def test_stream_passes_as_it_comes(start_engine: StartEngine, upstream: Upstream) -> None:
    """The first event is at the client before the engine sends the second."""
    client = Client()

    async def wait_between(visit: Visit) -> None:
        await visit.send(EVENTS + chunked(b"data: 1\n\n"))
        await asyncio.wait_for(client.has_bytes.wait(), PATIENCE_S)
        await visit.send(chunked(b"data: 2\n\n") + b"0\r\n\r\n")

    engine = await start_engine(wait_between)
    await Relay(upstream).carry(call(), engine.replica(), client.reply)
    assert client.body == b"data: 1\n\ndata: 2\n\n"
    assert client.is_complete


async def test_stream_without_a_last_blank_line_is_not_shortened(
    start_engine: StartEngine, upstream: Upstream
) -> None:
    """What an engine sends at its proper end passes, even if no event ends there."""
    engine = await start_engine(script(EVENTS + chunked(b"data: 1\n\ndata: 2\n") + b"0\r\n\r\n"))
    client = Client()
    await Relay(upstream).carry(call(), engine.replica(), client.reply)
    assert client.body == b"data: 1\n\ndata: 2\n"


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/v1/chat/completions", b"data: [DONE]"),
        ("/v1/messages", b""),
        ("/v1/responses", b""),
    ],
)
async def test_broken_stream_ends_with_an_error_event(
    start_engine: StartEngine, upstream: Upstream, path: str, end: bytes
) -> None:
    """Half an event is dropped, an error event follows, and the answer ends properly."""
    sent = EVENTS + chunked(b'data: {"n":1}\n\ndata: {"ha')
    engine = await start_engine(script(sent, closes=True))
    client = Client()
    await Relay(upstream).carry(call(path), engine.replica((path,)), client.reply)
    first, error, *rest = client.body.split(b"\n\n")
    assert first == b'data: {"n":1}'
    body = json.loads(error.rpartition(b"data: ")[2])
    assert body["error"]["code"] == "upstream_failed"
    assert rest == ([end, b""] if end else [b""])
    assert client.is_complete


async def test_broken_body_is_not_ended_as_if_it_were_whole(
    start_engine: StartEngine, upstream: Upstream
) -> None:
    """Where no error can be told any more, the answer stays incomplete and an error is raised."""
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf"
    engine = await start_engine(script(begun, closes=True))
    client = Client()
    with pytest.raises(UpstreamFailed):
        await Relay(upstream).carry(call(), engine.replica(), client.reply)
    assert client.reply.has_begun
    assert client.body == b"half"
    assert not client.is_complete


REFUSALS = [
    b"",
    b"garbage\r\n\r\n",
    answer(b"{}", status=b"401 Unauthorized"),
    answer(b"{}", b"x-engine-draining: 1", status=b"503 Service Unavailable"),
]


@pytest.mark.parametrize("sent", REFUSALS)
async def test_an_engine_that_did_not_answer_is_shunned_for_a_while(
    start_engine: StartEngine, upstream: Upstream, sent: bytes
) -> None:
    """The next requests go to others: what fails at once looks idle and would draw them all."""
    engine = await start_engine(script(sent, closes=True))
    replica = engine.replica()
    began_s = time.monotonic()
    with pytest.raises(UpstreamFailed):
        await Relay(upstream).carry(call(), replica, Client().reply)
    assert replica.shunned_until_s > began_s


async def test_an_engine_s_own_refusal_is_an_answer(
    start_engine: StartEngine, upstream: Upstream
) -> None:
    """An overloaded engine's 503 goes to the client as it is, and the engine is not shunned."""
    engine = await start_engine(script(answer(b"{}", status=b"503 Service Unavailable")))
    client, replica = Client(), engine.replica()
    await Relay(upstream).carry(call(), replica, client.reply)
    assert client.messages[0]["status"] == 503
    assert replica.shunned_until_s == 0


@pytest.mark.parametrize("sent", REFUSALS)
async def test_failure_before_the_answer_leaves_the_client_untouched(
    start_engine: StartEngine, upstream: Upstream, sent: bytes
) -> None:
    """As long as nothing was sent, the caller may try elsewhere: nothing has begun."""
    engine = await start_engine(script(sent, closes=True))
    client = Client()
    replica = engine.replica()
    with pytest.raises(UpstreamFailed):
        await Relay(upstream).carry(call(), replica, client.reply)
    assert (client.messages, client.reply.has_begun) == ([], False)


async def test_cancelling_drops_the_engines_connection(
    start_engine: StartEngine, upstream: Upstream
) -> None:
    """A client that goes away takes the engine's work with it, in the middle of a stream."""
    client = Client()
    engine = await start_engine(script(EVENTS + chunked(b"data: 1\n\n")))
    task = asyncio.create_task(Relay(upstream).carry(call(), engine.replica(), client.reply))
    await asyncio.wait_for(client.has_bytes.wait(), PATIENCE_S)
    task.cancel()
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_close_closes_the_connections(start_engine: StartEngine) -> None:
    """The relay's owner gets rid of kept connections through it."""
    relay = Relay(Upstream())
    engine = await start_engine(script(answer(b"ok")))
    await relay.carry(call(), engine.replica(), Client().reply)
    assert not engine.gone.is_set()
    await relay.close()
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)

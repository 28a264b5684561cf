"""Events that are written on as they arrive, compared with events that a task forwards.

Both ways get the same bytes of the same engine, cut into the same reads, with the same turns of the
event loop between, and the same client.
"""

import asyncio
import zlib
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.asgi import Message
from gateway.errors.gateway_error import GatewayError
from gateway.serving.client_response import ClientResponse
from gateway.serving.heartbeat import Heartbeat
from gateway.serving.response_writer import ResponseWriter
from gateway.upstream.chunks import as_chunk, whole_chunks
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.response import HIGH_WATER, EngineResponse
from gateway.upstream.sse import EVENT_LIMIT
from tests.unit.conftest import PATIENCE_S

CHAT = "/v1/chat/completions"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED_HEAD = HEAD + b"transfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
ENGINE_ERROR = b'data: {"error": {"message": "died", "code": 500}}\n\n'
CLIENT_ERROR = b'data: {"error": {"message": "too long", "code": 400}}\n\n'
TURNS = 8
"""Turns of the event loop after which nothing is left to do."""


def event(size: int) -> bytes:
    """An event of about that many bytes."""
    return b'data: {"choices":[{"index":0,"text":"%b"}]}\n\n' % (b"x" * size)


class EngineWire:
    """The engine's side of a connection, and the transport that the connection has of it."""

    def __init__(self) -> None:
        self.is_paused = False
        self.is_aborted = False
        self.connection = UpstreamConnection(("engine", 1), self._release, lambda _: None)
        self.is_released = False
        self.connection.connection_made(cast("asyncio.BaseTransport", self))

    def _release(self, _: UpstreamConnection) -> None:
        self.is_released = True

    def write(self, _: bytes) -> None:
        """Drop a request."""

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self.is_aborted

    def abort(self) -> None:
        """Close it."""
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        """Nothing waits to be sent."""
        return 0

    def pause_reading(self) -> None:
        """Stop reading."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Read on."""
        self.is_paused = False


class Reader:
    """A client that may stop reading; a server with ASGI's `send` and, perhaps, a body writer."""

    def __init__(self) -> None:
        self.body = b""
        self.sent: list[bytes] = []
        self.written: list[bytes] = []
        self.chunks: list[bytes] = []
        self.has_ended = False
        self._may_send = asyncio.Event()
        self._may_send.set()

    def pause(self) -> None:
        """Stop reading."""
        self._may_send.clear()

    def resume(self) -> None:
        """Read on."""
        self._may_send.set()

    async def send(self, message: Message) -> None:
        """Take an ASGI message, once the client reads."""
        while not self._may_send.is_set():
            await self._may_send.wait()
        self.body += message.get("body", b"")
        self.sent.append(message.get("body", b""))
        self.has_ended = message.get("more_body") is False

    def write(self, body: bytes, chunks: bytes) -> bool:
        """Take a part past ASGI, if the client reads."""
        assert not self.has_ended
        if not self._may_send.is_set():
            return False
        assert not chunks or whole_chunks(chunks) == body
        self.body += body
        self.written.append(body)
        self.chunks.append(chunks)
        return True


class Exchange:
    """A stream from an engine to a client, step by step."""

    def __init__(self, *, can_write: bool, engine: EngineWire | None = None) -> None:
        self.engine = engine or EngineWire()
        self.client = Reader()
        body_writer = self.client if can_write else None
        self.response = ClientResponse(self.client.send, [], body_writer=body_writer)
        self.writer = ResponseWriter(CHAT, self.response, is_resumable=True, has_heartbeat=True)
        self.answer: EngineResponse = self.engine.connection.send(b"", b"")
        self._forwarding = asyncio.create_task(self._forward())

    async def _forward(self) -> str:
        try:
            await self.answer.wait_for_head()
            await self.writer.forward(self.answer)
        except GatewayError as error:
            return f"{type(error).__name__}: {error.code}"
        finally:
            self.answer.close()
        return "whole"

    async def turn(self, times: int = TURNS) -> None:
        """Let the event loop turn."""
        for _ in range(times):
            await asyncio.sleep(0)

    async def deliver(self, data: bytes) -> None:
        """Deliver one read of the engine's socket, which waits as long as reading is paused."""
        while self.engine.is_paused and not self.engine.is_aborted:
            self.client.resume()
            await self.turn(1)
        if not self.engine.is_aborted:
            self.engine.connection.data_received(data)

    async def outcome(self) -> str:
        """How it ended, once the client has read all."""
        self.client.resume()
        async with asyncio.timeout(PATIENCE_S):
            return await self._forwarding

    @property
    def log(self) -> bytes:
        """What the stream's log has, uncompressed."""
        log = self.writer.stream_log
        assert log is not None
        return b"".join(map(zlib.decompress, log._compressed)) + bytes(log._raw)


@dataclass
class Script:
    """What an engine sends, and what happens meanwhile."""

    wire: bytes
    cuts: list[int]
    """Lengths of reads, again from the first if they do not suffice."""
    turns: list[int]
    """Turns of the event loop after each read, likewise."""
    pauses: list[int]
    """After each read, likewise: 1 to stop reading, 2 to read on, 0 for neither."""
    is_lost: bool
    """The connection is closed at the end."""

    async def play(self, *, can_write: bool) -> tuple[str, bytes, bytes, bool, bool]:
        """Outcome, the client's body, the log, and whether the connection was kept or aborted."""
        exchange = Exchange(can_write=can_write)
        start = number = 0
        while start < len(self.wire):
            length = self.cuts[number % len(self.cuts)]
            await exchange.deliver(self.wire[start : start + length])
            start += length
            match self.pauses[number % len(self.pauses)]:
                case 1:
                    exchange.client.pause()
                case 2:
                    exchange.client.resume()
            await exchange.turn(self.turns[number % len(self.turns)])
            number += 1
        if self.is_lost:
            exchange.engine.connection.connection_lost(None)
        outcome = await exchange.outcome()
        engine = exchange.engine
        client = exchange.client
        return outcome, client.body, exchange.log, engine.is_released, engine.is_aborted


def framed(kind: str, pieces: list[bytes]) -> bytes:
    """A response of these pieces, complete, in one of the framings that HTTP has."""
    body = b"".join(pieces)
    match kind:
        case "length":
            return HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
        case "close":
            return HEAD + b"\r\n" + body
        case "extensions":
            parts = [b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
        case "upper":
            parts = [b"%04X\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
        case _:
            parts = [as_chunk(piece) for piece in pieces]
    trailer = b"0\r\nx-trailer: 1\r\n\r\n" if kind == "trailer" else END
    return CHUNKED_HEAD + b"".join(parts) + trailer


SIZES = st.sampled_from([0, 1, 60, 200, 980, 5000, 70_000, HIGH_WATER + 10])
EVENTS = st.one_of(
    SIZES.map(event),
    SIZES.map(lambda size: event(size).replace(b"\n\n", b"\r\n\r\n")),
    st.sampled_from([CLIENT_ERROR, b": a comment\n\n", ENGINE_ERROR]),
)
KINDS = ["plain", "plain", "plain", "trailer", "extensions", "upper", "length", "close"]


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Streams of any framing, cut anywhere, whole or broken."""
    body = b"".join(draw(st.lists(EVENTS, min_size=1, max_size=7))) + draw(
        st.sampled_from([DONE, DONE, b"data: {"])
    )
    are_events_whole = draw(st.booleans())
    if are_events_whole:
        pieces = [part + b"\n\n" for part in body.split(b"\n\n") if part]
    else:
        step = draw(st.integers(1, 90) if len(body) < 3000 else st.integers(900, 100_000))
        pieces = [body[at : at + step] for at in range(0, len(body), step)]
    kind = draw(st.sampled_from(KINDS))
    wire = framed(kind, pieces)
    is_broken = draw(st.integers(0, 3)) == 0
    if is_broken:
        wire = wire[: draw(st.integers(len(HEAD) + 2, len(wire)))]
    if kind == "plain" and are_events_whole and draw(st.booleans()):
        cuts = [len(CHUNKED_HEAD), *(len(as_chunk(piece)) for piece in pieces)]
        extra = draw(st.lists(st.integers(0, 3), max_size=2))
        cuts += [max(1, extra[0])] if extra else []
    else:
        shortest = 1 + len(wire) // 200
        longest = max(300, min(HIGH_WATER, 8 * shortest))
        cuts = draw(st.lists(st.integers(shortest, longest), min_size=1, max_size=8))
    numbers = st.lists(st.integers(0, 2), min_size=1, max_size=6)
    turns = draw(st.lists(st.sampled_from([0, 1, 2, 3, TURNS]), min_size=1, max_size=6))
    pauses = draw(st.one_of(st.just([0]), numbers))
    return Script(wire, cuts, turns, pauses, is_lost=is_broken or kind == "close")


@settings(max_examples=300)
@given(scripts())
def test_a_client_gets_the_same_bytes_either_way(script: Script) -> None:
    """However the engine frames and cuts its stream, and however slowly its client reads."""
    forwarded = asyncio.run(script.play(can_write=False))
    assert asyncio.run(script.play(can_write=True)) == forwarded


async def streamed(exchange: Exchange, *chunks: bytes) -> None:
    """Deliver chunks one by one, to a client that keeps up."""
    for chunk in chunks:
        await exchange.deliver(chunk)
        await exchange.turn()


async def begun(*, can_write: bool = True) -> Exchange:
    """An exchange whose first event the client has."""
    exchange = Exchange(can_write=can_write)
    await streamed(exchange, CHUNKED_HEAD, as_chunk(event(0)))
    assert exchange.client.body == event(0)
    return exchange


async def test_a_steady_stream_is_written_as_it_comes() -> None:
    """Only its beginning and its end pass through ASGI, and each event at once."""
    exchange = await begun()
    sent = len(exchange.client.sent)
    for size in range(1, 20):
        await exchange.deliver(as_chunk(event(size)))
        assert exchange.client.written[-1] == event(size)
    assert len(exchange.client.sent) == sent
    assert exchange.response.parts == exchange.writer.parts == 20
    assert exchange.log == exchange.client.body

    await streamed(exchange, as_chunk(DONE) + END)
    assert await exchange.outcome() == "whole"
    assert exchange.client.sent[sent:] == [DONE]
    assert exchange.client.body == b"".join(map(event, range(20))) + DONE
    assert exchange.engine.is_released


@pytest.mark.parametrize(
    "chunks",
    [as_chunk(event(1)), as_chunk(event(1)) + as_chunk(event(2)), b"%X\r\n" % len(event(1))],
    ids=["one", "two", "size"],
)
async def test_chunks_are_passed_on_as_they_are_only_if_whole(chunks: bytes) -> None:
    """What they are in is written, and nothing for a part of them."""
    exchange = await begun()
    await exchange.deliver(chunks)

    body = whole_chunks(chunks)
    assert exchange.client.written == ([body] if body else [])
    assert exchange.client.chunks == ([chunks] if body else [])


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (b"%x\r\n" % (len(as_chunk(event(7))) - 2), as_chunk(event(7))),
        (as_chunk(event(1)) + b"%x\r\n" % (len(as_chunk(event(7))) - 2), as_chunk(event(7))),
        (b"%x\r\ndata" % (4 + len(as_chunk(event(7))) - 2), as_chunk(event(7))),
        (as_chunk(event(1)) + b"1", b"4\r\nabcd\r\nb\r\n12345678\n\n\n\r\n"),
        (as_chunk(event(1))[:-1], b"\n" + as_chunk(event(7))),
    ],
    ids=["size", "next size", "payload", "half a size", "half an end"],
)
async def test_what_only_looks_like_chunks_is_parsed(first: bytes, rest: bytes) -> None:
    """Between two chunks they are what they seem to be; within one they are its payload."""
    bodies = []
    for can_write in (True, False):
        exchange = await begun(can_write=can_write)
        await streamed(exchange, first, rest, as_chunk(DONE) + END)
        assert await exchange.outcome() == "whole"
        bodies.append(exchange.client.body)

    assert bodies[0] == bodies[1]


async def test_another_response_of_the_connection_begins_anew() -> None:
    """Its body may have a length, and look like chunks."""
    exchange = await begun()
    await streamed(exchange, as_chunk(DONE) + END)
    assert await exchange.outcome() == "whole"
    body = as_chunk(event(1)) + b"\n\n"
    head = HEAD + b"content-length: %d\r\n\r\n" % (2 * len(body))

    again = Exchange(can_write=True, engine=exchange.engine)
    await streamed(again, head, body, body)
    assert await again.outcome() == "whole"
    assert again.client.body == 2 * body


async def test_an_event_larger_than_the_buffer_ends_before_anything_else() -> None:
    """It is forwarded in pieces; signs of life have to wait, but not for ever."""
    exchange = await begun()
    huge = event(EVENT_LIMIT)
    are_between = []
    for part in (huge[:-5], huge[-5:]):
        await streamed(exchange, as_chunk(part))
        are_between.append(exchange.writer.is_between_events)
    await streamed(exchange, as_chunk(event(1)))

    assert are_between == [False, True]
    assert exchange.client.body == event(0) + huge + event(1)
    assert exchange.client.written == [event(1)]


async def test_the_first_event_is_never_written_past_asgi() -> None:
    """It begins the response, and ends the time to the first token."""
    exchange = Exchange(can_write=True)
    await streamed(exchange, CHUNKED_HEAD)
    assert not exchange.response.has_begun
    await streamed(exchange, as_chunk(event(0)))

    assert exchange.client.written == []
    assert exchange.response.timing.first_event_s is not None


async def test_a_slow_client_gets_what_waited_before_what_comes() -> None:
    """As soon as one part waits for it, so do all others, and in the end the engine."""
    exchange = await begun()
    exchange.client.pause()
    await streamed(exchange, as_chunk(event(1)), as_chunk(event(2)))
    assert exchange.client.body == event(0)
    exchange.client.resume()
    await exchange.deliver(as_chunk(event(3)))
    assert exchange.client.written == []
    await exchange.turn()
    assert exchange.client.body == b"".join(map(event, range(4)))

    await streamed(exchange, as_chunk(event(4)))
    assert exchange.client.written == [event(4)]

    exchange.client.pause()
    big = event(HIGH_WATER // 2)
    while not exchange.engine.is_paused:
        await streamed(exchange, as_chunk(big))
    assert exchange.client.written == [event(4)]
    exchange.client.resume()
    await exchange.turn()
    assert not exchange.engine.is_paused


async def test_an_engine_error_is_raised_with_what_came_before_it() -> None:
    """The client has all events before it, and so does the log, from which the stream goes on."""
    exchange = await begun()
    await streamed(exchange, as_chunk(event(1)), as_chunk(event(2) + ENGINE_ERROR), as_chunk(DONE))

    assert await exchange.outcome() == "UpstreamFailed: upstream_failed"
    assert exchange.client.body == exchange.log == event(0) + event(1) + event(2)
    assert exchange.engine.is_aborted


async def test_a_killed_engine_leaves_a_log_of_all_that_was_written() -> None:
    """A stream is resumed from there."""
    exchange = await begun()
    await streamed(exchange, *(as_chunk(event(size)) for size in range(1, 9)))
    assert len(exchange.client.written) == 8
    exchange.engine.connection.connection_lost(ConnectionResetError())

    assert await exchange.outcome() == "UpstreamFailed: upstream_failed"
    assert exchange.log == exchange.client.body == b"".join(map(event, range(9)))


async def test_an_event_in_parts_is_not_written_before_it_is_whole() -> None:
    """A comment or an error event might come between; afterwards, events are written again."""
    exchange = await begun()
    await streamed(exchange, as_chunk(event(9)[:5]), as_chunk(event(9)[5:9]))
    assert exchange.client.body == event(0)
    await streamed(exchange, as_chunk(event(9)[9:]))
    assert exchange.client.body == event(0) + event(9)
    assert exchange.client.written == []
    await streamed(exchange, as_chunk(event(2)))
    assert exchange.client.written == [event(2)]


async def test_written_events_are_signs_of_life() -> None:
    """A heartbeat comments only on silence."""
    exchange = await begun()
    period_s = 0.05
    async with Heartbeat(
        exchange.response,
        exchange.writer.begin,
        lambda: exchange.writer.is_between_events,
        period_s=period_s,
    ):
        for size in range(1, 8):
            await exchange.deliver(as_chunk(event(size)))
            await asyncio.sleep(period_s / 2)
        assert exchange.client.body == b"".join(map(event, range(8)))
        assert len(exchange.client.written) == 7
        async with asyncio.timeout(PATIENCE_S):
            # It has no event for that.
            while not exchange.client.body.endswith(b": still working\n\n"):  # noqa: ASYNC110
                await asyncio.sleep(period_s)
        await exchange.deliver(as_chunk(event(9)))
    assert exchange.client.body.endswith(b"\n\n" + event(9))


async def test_nothing_is_written_past_an_observer() -> None:
    """Shadow traffic times what is sent."""
    exchange = Exchange(can_write=True)
    observed: list[Message] = []
    exchange.response.observe(observed.append)
    await streamed(exchange, CHUNKED_HEAD, *(as_chunk(event(size)) for size in range(3)))

    assert exchange.client.written == []
    assert b"".join(m.get("body", b"") for m in observed) == exchange.client.body


async def test_what_waits_for_the_next_part_is_not_passed_by() -> None:
    """`on_next_part` is called once, by the next part."""
    exchange = await begun()
    calls: list[int] = []
    exchange.writer.on_next_part = lambda: calls.append(len(exchange.client.body))
    await streamed(exchange, as_chunk(event(1)), as_chunk(event(2)))

    assert calls == [len(event(0))]
    assert exchange.client.written == [event(2)]


async def test_a_cancelled_request_writes_no_more() -> None:
    """Its client has left, or its time is over."""
    exchange = await begun()
    exchange._forwarding.cancel()
    await exchange.deliver(as_chunk(event(1)))
    await exchange.turn()
    await exchange.deliver(as_chunk(event(2)))

    assert exchange.client.body == event(0)
    assert exchange.engine.is_aborted

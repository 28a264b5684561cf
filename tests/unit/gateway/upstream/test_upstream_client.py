"""The HTTP client of engines: what it makes of good, strange and broken answers."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamFailed
from gateway.upstream.client import UpstreamClient
from gateway.upstream.connection import Connection
from gateway.upstream.response import HIGH_WATER, EngineResponse
from tests.unit.conftest import PATIENCE_S, StartEngine, Visit, answer, chunked

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def script(*parts: bytes) -> Callable[[Visit], Awaitable[None]]:
    """Answer every request with `parts` and keep the connection."""

    async def run(tracked: Visit) -> None:
        await tracked.send(*parts)

    return run


def closing_script(*parts: bytes) -> Callable[[Visit], Awaitable[None]]:
    """Answer with `parts` and close."""

    async def run(tracked: Visit) -> None:
        await tracked.send(*parts)
        tracked.writer.close()

    return run


async def read_all(response: EngineResponse) -> bytes:
    """The whole body."""
    chunks = []
    while chunk := await response.read():
        chunks.append(chunk)
    return b"".join(chunks)


async def post(
    upstream: UpstreamClient, address: tuple[str, int], body: bytes = b"{}"
) -> EngineResponse:
    """Send a small request."""
    return await upstream.request(address, "POST", "/x", [(b"a", b"b")], body)


async def test_request_reaches_the_engine_as_written(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Method, target, host, headers, length and body arrive in one valid request."""
    engine = await start_engine(script(answer(b"hi", b"X-One: 1")))
    response = await post(upstream, engine.address, b"body")
    assert await read_all(response) == b"hi"
    assert (response.status, response.headers) == (
        200,
        [(b"content-length", b"2"), (b"x-one", b"1")],
    )
    host = b"127.0.0.1:%d" % engine.address[1]
    assert engine.requests == [
        b"POST /x HTTP/1.1\r\nhost: " + host + b"\r\na: b\r\ncontent-length: 4\r\n\r\nbody"
    ]


@pytest.mark.parametrize(
    ("parts", "status", "body"),
    [
        ((CHUNKED + chunked(b"ab", b"c") + END,), 200, b"abc"),
        ((CHUNKED + chunked(b"ab"), b"0\r\nx-trailer: 1\r\n\r\n"), 200, b"ab"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", answer(b"ok")), 200, b"ok"),
        ((b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer(b"ok"),), 200, b"ok"),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), 204, b""),
        ((b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",), 304, b""),
        ((answer(b"", status=b"500 Oh"),), 500, b""),
        (tuple(bytes([b]) for b in CHUNKED + chunked(b"tri", b"ckle") + END), 200, b"trickle"),
    ],
)
async def test_answer_is_read_and_its_connection_kept(
    start_engine: StartEngine,
    upstream: UpstreamClient,
    parts: tuple[bytes, ...],
    status: int,
    body: bytes,
) -> None:
    """Every way to end an answer is understood, and the next request takes the same connection."""
    engine = await start_engine(script(*parts))
    for _ in range(2):
        response = await post(upstream, engine.address)
        assert (response.status, await read_all(response)) == (status, body)
        assert response.is_finished
    assert engine.connections == 1


async def test_informational_headers_are_not_the_answers(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The headers of a 103 do not end up in the final answer."""
    early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    engine = await start_engine(script(early + answer(b"")))
    response = await post(upstream, engine.address)
    assert response.headers == [(b"content-length", b"0")]


async def test_trailers_are_not_headers(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """What comes behind the body does not change headers that may have been passed on."""
    engine = await start_engine(script(CHUNKED + chunked(b"a"), b"0\r\nx-trailer: 1\r\n\r\n"))
    response = await post(upstream, engine.address)
    assert await read_all(response) == b"a"
    assert response.headers == [(b"transfer-encoding", b"chunked")]


async def test_answer_without_length_ends_with_its_connection(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """HTTP/1.0's way is understood, and is not an error."""
    engine = await start_engine(closing_script(b"HTTP/1.1 200 OK\r\n\r\n", b"all of", b" it"))
    response = await post(upstream, engine.address)
    assert await read_all(response) == b"all of it"
    assert response.is_finished


async def test_connection_close_is_obeyed(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """A connection the engine wants closed is not used again."""
    engine = await start_engine(script(answer(b"ok", b"connection: close")))
    for _ in range(2):
        assert await read_all(await post(upstream, engine.address)) == b"ok"
    assert engine.connections == 2


async def test_unfinished_answer_costs_its_connection(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Closing an answer early makes the engine notice, and its connection is never reused."""
    engine = await start_engine(script(CHUNKED + chunked(b"first")))
    response = await post(upstream, engine.address)
    assert await response.read() == b"first"
    response.close()
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    assert await (await post(upstream, engine.address)).read() == b"first"
    assert engine.connections == 2


async def test_closing_a_finished_answer_keeps_its_connection(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """`close()` after the end is harmless."""
    engine = await start_engine(script(answer(b"ok")))
    for _ in range(2):
        response = await post(upstream, engine.address)
        await read_all(response)
        response.close()
    assert engine.connections == 1


async def test_stale_connection_is_replaced(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """A kept connection that closes before any answer costs nothing: a fresh one is tried."""

    async def only_one_each(tracked: Visit) -> None:
        if tracked.number == 0:
            await tracked.send(answer(b"ok"))
        else:
            tracked.writer.close()

    engine = await start_engine(only_one_each)
    for _ in range(2):
        assert await read_all(await post(upstream, engine.address)) == b"ok"
    assert engine.connections == 2


@pytest.mark.parametrize("on_reused", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_request_is_not_repeated_more_than_once(
    start_engine: StartEngine, upstream: UpstreamClient, on_reused: bytes
) -> None:
    """Neither after a byte of an answer nor on a fresh connection is a request sent again."""

    async def run(tracked: Visit) -> None:
        if len(engine.requests) == 1:
            await tracked.send(answer(b"ok"))
        else:
            await tracked.send(on_reused)
            tracked.writer.close()

    engine = await start_engine(run)
    await read_all(await post(upstream, engine.address))
    with pytest.raises(UpstreamFailed):
        await post(upstream, engine.address)
    assert len(engine.requests) == (2 if on_reused else 3)


async def test_fresh_connection_that_closes_is_a_failure(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """A request whose first connection closes without an answer is not sent twice."""
    engine = await start_engine(closing_script())
    with pytest.raises(UpstreamFailed):
        await post(upstream, engine.address)
    assert len(engine.requests) == 1


async def test_refused_connection_is_a_failure(upstream: UpstreamClient) -> None:
    """Nobody listening: a failure without internals."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(UpstreamFailed, match=r"^The engine could not be reached\.$"):
        await post(upstream, ("127.0.0.1", port))


@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop's methods cannot be replaced
async def test_connecting_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that never answers fails after the connect timeout."""

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    client = UpstreamClient(connect_timeout_s=0.01)
    with pytest.raises(UpstreamFailed):
        await asyncio.wait_for(post(client, ("127.0.0.1", 9)), PATIENCE_S)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
        CHUNKED + chunked(b"abc"),
        CHUNKED + chunked(b"abc") + b"ff\r\nhalf",
    ],
)
@pytest.mark.parametrize("is_reset", [False, True])
async def test_broken_answer_yields_what_came_and_then_fails(
    start_engine: StartEngine, upstream: UpstreamClient, sent: bytes, is_reset: bool
) -> None:
    """What arrived before the break is delivered; the end is an error, never a silent one."""

    async def run(tracked: Visit) -> None:
        await tracked.send(sent)
        await (tracked.reset() if is_reset else asyncio.sleep(0.01))
        tracked.writer.close()

    engine = await start_engine(run)
    response = await post(upstream, engine.address)
    assert (await response.read()).startswith(b"abc")
    with pytest.raises(UpstreamFailed):
        await read_all(response)
    assert not response.is_finished


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"\x00\x01\x02\x03",
    ],
)
async def test_garbage_is_a_failure_without_internals(
    start_engine: StartEngine, upstream: UpstreamClient, garbage: bytes
) -> None:
    """What is not HTTP becomes our own error, in our own words."""
    engine = await start_engine(script(garbage))
    with pytest.raises(UpstreamFailed, match=r"^The engine's answer was not valid HTTP\.$"):
        await post(upstream, engine.address)


async def test_garbage_inside_a_body_is_a_failure(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """A chunk without a length ends the answer with an error, after what was good."""
    engine = await start_engine(script(CHUNKED + chunked(b"good"), b"zz\r\n"))
    response = await post(upstream, engine.address)
    assert await response.read() == b"good"
    with pytest.raises(UpstreamFailed):
        await response.read()


async def test_endless_head_is_a_failure(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """An engine cannot fill our memory with headers."""

    async def run(tracked: Visit) -> None:
        await tracked.send(b"HTTP/1.1 200 OK\r\n")
        while not tracked.writer.is_closing():
            await tracked.send(b"x: " + b"y" * 65536 + b"\r\n")

    engine = await start_engine(run)
    with pytest.raises(UpstreamFailed, match="too large a head"):
        await asyncio.wait_for(post(upstream, engine.address), PATIENCE_S)


@pytest.mark.parametrize("surplus", [answer(b"smuggled"), b"garbage"])
async def test_surplus_bytes_never_answer_another_request(
    start_engine: StartEngine, upstream: UpstreamClient, surplus: bytes
) -> None:
    """A connection on which more came than was asked for is dropped."""
    engine = await start_engine(script(answer(b"ok") + surplus))
    for _ in range(2):
        assert await read_all(await post(upstream, engine.address)) == b"ok"
    assert engine.connections == 2


async def test_early_answer_is_read_while_the_body_is_being_sent(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """An engine that refuses a large body is heard, and its connection is not reused."""

    async def refuse(tracked: Visit) -> None:
        await tracked.send(answer(b"too large", status=b"413 Content Too Large"))
        await tracked.until_gone()

    engine = await start_engine(refuse)
    for _ in range(2):
        response = await upstream.request(
            engine.address, "POST", "/x", [(b"x-leave-body", b"1")], b"x" * (32 << 20)
        )
        assert (response.status, await read_all(response)) == (413, b"too large")
    assert engine.connections == 2


async def test_large_body_arrives_whole(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """A body above the size that is copied behind its head arrives unchanged."""
    body = bytes(range(256)) * 8192
    engine = await start_engine(script(answer(b"ok")))
    await read_all(await post(upstream, engine.address, body))
    assert engine.requests[0].partition(b"\r\n\r\n")[2] == body


async def test_what_has_arrived_comes_as_one_chunk(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Chunks that pile up while the reader is busy are joined."""
    all_sent = asyncio.Event()

    async def pile_up(tracked: Visit) -> None:
        await tracked.send(CHUNKED, *(chunked(b"%02d" % i) for i in range(50)), END)
        all_sent.set()

    engine = await start_engine(pile_up)
    response = await post(upstream, engine.address)
    await asyncio.wait_for(all_sent.wait(), PATIENCE_S)
    while response._connection is not None:  # noqa: ASYNC110 - nothing tells, and no one reads
        await asyncio.sleep(0.001)
    assert await response.read() == b"".join(b"%02d" % i for i in range(50))
    assert response.is_finished


async def test_slow_reader_gets_everything(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """An engine held back by a slow reader goes on when there is room again."""
    body = bytes(range(256)) * (64 * HIGH_WATER // 256)
    engine = await start_engine(script(answer(body)))
    response = await post(upstream, engine.address)
    await asyncio.sleep(0.05)
    assert response._size <= 8 * HIGH_WATER
    assert await read_all(response) == body
    assert await read_all(await post(upstream, engine.address)) == body
    assert engine.connections == 1


async def test_cancelled_request_is_dropped_at_the_engine(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Cancelling while the engine thinks closes the connection at once."""
    thinking = asyncio.Event()

    async def think(tracked: Visit) -> None:
        thinking.set()
        await tracked.until_gone()
        engine.gone.set()

    engine = await start_engine(think)
    task = asyncio.create_task(post(upstream, engine.address))
    await asyncio.wait_for(thinking.wait(), PATIENCE_S)
    task.cancel()
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_idle_connections_are_closed(start_engine: StartEngine) -> None:
    """A connection nobody uses is closed by us before the engine does it."""
    client = UpstreamClient(idle_s=0.03)
    engine = await start_engine(script(answer(b"ok")))
    await read_all(await post(client, engine.address))
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    assert await read_all(await post(client, engine.address)) == b"ok"
    await client.close()


async def test_no_more_than_max_idle_are_kept(start_engine: StartEngine) -> None:
    """Connections above the bound are closed when their answers are complete."""
    client = UpstreamClient(max_idle=1)
    everyone = asyncio.Barrier(3)

    async def together(tracked: Visit) -> None:
        await everyone.wait()
        await tracked.send(answer(b"ok"))

    engine = await start_engine(together)
    for response in await asyncio.gather(*(post(client, engine.address) for _ in range(3))):
        await read_all(response)
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    assert len(client._idle[engine.address]) == 1
    await client.close()


async def test_close_drops_everything(start_engine: StartEngine) -> None:
    """After `close()` no answer goes on and no request is taken."""
    client = UpstreamClient()
    engine = await start_engine(script(CHUNKED))
    response = await post(client, engine.address)
    await client.close()
    with pytest.raises(UpstreamFailed):
        await response.read()
    with pytest.raises(UpstreamFailed):
        await post(client, engine.address)
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)


async def test_ipv6_host_is_bracketed(start_engine: StartEngine, upstream: UpstreamClient) -> None:
    """An IPv6 address is connected to, and named as RFC 9110 wants it."""
    try:
        engine = await start_engine(script(answer(b"ok")), host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert await read_all(await post(upstream, engine.address)) == b"ok"
    assert b"\r\nhost: [::1]:" in engine.requests[0]


class FakeTransport(asyncio.Transport):
    """Records what a connection asks of its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop it."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Whether it was aborted."""
        return "abort" in self.calls

    def abort(self) -> None:
        """Remember it."""
        self.calls.append("abort")

    def pause_reading(self) -> None:
        """Remember it."""
        self.calls.append("pause")

    def resume_reading(self) -> None:
        """Remember it."""
        self.calls.append("resume")


def wired() -> tuple[Connection, FakeTransport, EngineResponse]:
    """A connection on a fake transport, with a request sent."""
    connection = Connection(("h", 1), lambda _: None, lambda _: None)
    transport = FakeTransport()
    connection.connection_made(transport)
    return connection, transport, connection.send(b"", b"")


@settings(deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    cuts=st.sets(st.integers(0, 400)),
    is_chunked=st.booleans(),
)
def test_any_segmentation_gives_the_same_answer(
    chunks: list[bytes], cuts: set[int], is_chunked: bool
) -> None:
    """However TCP cuts the bytes, status and body come out the same and the connection is free."""
    body = b"".join(chunks)
    raw = CHUNKED + chunked(*chunks) + END if is_chunked else answer(body)
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]

    async def run() -> tuple[int, bytes, bool]:
        connection, _, response = wired()
        for start, end in pairwise(edges):
            connection.data_received(raw[start:end])
        await response.begin()
        return response.status, await read_all(response), connection.is_usable

    assert asyncio.run(run()) == (200, body, True)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_failure(raw: bytes) -> None:
    """Whatever an engine sends before it closes, nothing but our own error comes out."""

    async def run() -> None:
        connection, _, response = wired()
        connection.data_received(b"HTTP/1.1 200 OK\r\n" + raw)
        connection.connection_lost(None)
        try:
            await response.begin()
            await read_all(response)
        except UpstreamFailed:
            assert not response.is_finished

    asyncio.run(run())


async def test_engine_is_paused_at_high_water_and_resumed_by_reading() -> None:
    """Unread bytes above the mark stop the reading of the socket, and reading starts it again."""
    connection, transport, response = wired()
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n")
    connection.data_received(b"x" * HIGH_WATER)
    assert transport.calls == []
    connection.data_received(b"x")
    assert transport.calls == ["pause"]
    assert len(await response.read()) == HIGH_WATER + 1
    assert transport.calls == ["pause", "resume"]

"""The HTTP client for engines: valid, unusual and broken responses."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors.upstream import Reason, UpstreamFailed
from gateway.upstream.client import UpstreamClient, connect_reason
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.response import HIGH_WATER, EngineResponse
from tests.unit.conftest import PATIENCE_S, StartEngine, Visit, answer, chunked

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def script(*parts: bytes) -> Callable[[Visit], Awaitable[None]]:
    """Respond to every request with `parts` and keep the connection."""

    async def run(visit: Visit) -> None:
        await visit.send(*parts)

    return run


def closing_script(*parts: bytes) -> Callable[[Visit], Awaitable[None]]:
    """Respond with `parts` and close the connection."""

    async def run(visit: Visit) -> None:
        await visit.send(*parts)
        visit.writer.close()

    return run


async def read_all(response: EngineResponse) -> bytes:
    """Read the whole body."""
    chunks = []
    while chunk := await response.read():
        chunks.append(chunk)
    return b"".join(chunks)


async def post(
    upstream: UpstreamClient, address: tuple[str, int], body: bytes = b"{}"
) -> EngineResponse:
    """Send a small request."""
    return await upstream.request(address, "POST", "/x", [(b"a", b"b")], body)


async def test_a_request_reaches_the_engine_as_written(
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
async def test_a_response_is_read_and_its_connection_reused(
    start_engine: StartEngine,
    upstream: UpstreamClient,
    parts: tuple[bytes, ...],
    status: int,
    body: bytes,
) -> None:
    """Every way to end a response is understood, and the next request reuses the connection."""
    engine = await start_engine(script(*parts))
    for _ in range(2):
        response = await post(upstream, engine.address)
        assert (response.status, await read_all(response)) == (status, body)
        assert response.is_finished
    assert engine.connections == 1


async def test_informational_headers_are_dropped(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The headers of a 103 do not appear in the final response."""
    early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    engine = await start_engine(script(early + answer(b"")))
    response = await post(upstream, engine.address)
    assert response.headers == [(b"content-length", b"0")]


async def test_trailers_are_not_headers(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Trailers do not change headers that may have been forwarded."""
    engine = await start_engine(script(CHUNKED + chunked(b"a"), b"0\r\nx-trailer: 1\r\n\r\n"))
    response = await post(upstream, engine.address)
    assert await read_all(response) == b"a"
    assert response.headers == [(b"transfer-encoding", b"chunked")]


async def test_a_response_without_length_ends_with_its_connection(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """This is how HTTP/1.0 works, and no error."""
    engine = await start_engine(closing_script(b"HTTP/1.1 200 OK\r\n\r\n", b"all of", b" it"))
    response = await post(upstream, engine.address)
    assert await read_all(response) == b"all of it"
    assert response.is_finished


async def test_connection_close_is_honoured(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """A connection that the engine wants closed is not reused."""
    engine = await start_engine(script(answer(b"ok", b"connection: close")))
    for _ in range(2):
        assert await read_all(await post(upstream, engine.address)) == b"ok"
    assert engine.connections == 2


async def test_closing_an_unfinished_response_closes_its_connection(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The engine notices, and the connection is not reused."""
    engine = await start_engine(script(CHUNKED + chunked(b"first")))
    response = await post(upstream, engine.address)
    assert await response.read() == b"first"
    response.close()
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    assert await (await post(upstream, engine.address)).read() == b"first"
    assert engine.connections == 2


async def test_closing_a_finished_response_keeps_its_connection(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """`close()` after the end has no effect."""
    engine = await start_engine(script(answer(b"ok")))
    for _ in range(2):
        response = await post(upstream, engine.address)
        await read_all(response)
        response.close()
    assert engine.connections == 1


async def test_an_engine_that_dies_at_a_request_has_not_been_out_of_reach(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """It closes a kept connection at the request, and takes no other: that counts as its death."""

    async def die_at_the_second(visit: Visit) -> None:
        if visit.number:
            engine.close()
            visit.writer.close()
            return
        await visit.send(answer(b"{}"))

    engine = await start_engine(die_at_the_second)
    await read_all(await post(upstream, engine.address))
    with pytest.raises(UpstreamFailed) as caught:
        await post(upstream, engine.address)
    assert caught.value.reason is Reason.BROKE_OFF


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EMFILE, Reason.NO_SOCKET),
        (errno.EADDRNOTAVAIL, Reason.NO_SOCKET),
        (errno.ECONNREFUSED, Reason.UNREACHABLE),
        (errno.EHOSTUNREACH, Reason.UNREACHABLE),
    ],
)
def test_a_shortage_of_the_router_is_not_the_engine_s_fault(number: int, reason: Reason) -> None:
    """Files and ports that clients have used up say nothing of the engine."""
    assert connect_reason(OSError(number, "no")) is reason


async def test_a_stale_connection_is_replaced(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """If a pooled connection closes before any response, a new one is tried."""

    async def only_one_each(visit: Visit) -> None:
        if visit.number == 0:
            await visit.send(answer(b"ok"))
        else:
            visit.writer.close()

    engine = await start_engine(only_one_each)
    for _ in range(2):
        assert await read_all(await post(upstream, engine.address)) == b"ok"
    assert engine.connections == 2


@pytest.mark.parametrize("on_reused", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_a_request_is_repeated_at_most_once(
    start_engine: StartEngine, upstream: UpstreamClient, on_reused: bytes
) -> None:
    """It is not repeated after a byte of a response, nor over a new connection."""

    async def run(visit: Visit) -> None:
        if len(engine.requests) == 1:
            await visit.send(answer(b"ok"))
        else:
            await visit.send(on_reused)
            visit.writer.close()

    engine = await start_engine(run)
    await read_all(await post(upstream, engine.address))
    with pytest.raises(UpstreamFailed):
        await post(upstream, engine.address)
    assert len(engine.requests) == (2 if on_reused else 3)


async def test_a_new_connection_that_closes_is_a_failure(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """A request whose first connection is new and closes is not sent twice."""
    engine = await start_engine(closing_script())
    with pytest.raises(UpstreamFailed):
        await post(upstream, engine.address)
    assert len(engine.requests) == 1


async def test_a_refused_connection_is_a_failure(upstream: UpstreamClient) -> None:
    """The message has no internals."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(UpstreamFailed, match=r"^The engine could not be reached\.$"):
        await post(upstream, ("127.0.0.1", port))


@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop's methods cannot be replaced
async def test_connecting_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting to an address that never responds fails after the timeout."""

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
async def test_a_broken_response_yields_what_arrived_and_then_fails(
    start_engine: StartEngine, upstream: UpstreamClient, sent: bytes, is_reset: bool
) -> None:
    """The reader gets the bytes before the break, then an error: no break is silent."""

    async def run(visit: Visit) -> None:
        await visit.send(sent)
        await (visit.reset() if is_reset else asyncio.sleep(0.01))
        visit.writer.close()

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
    """Bytes that are not HTTP become the gateway's own error."""
    engine = await start_engine(script(garbage))
    with pytest.raises(UpstreamFailed, match=r"^The engine's response is not valid HTTP\.$"):
        await post(upstream, engine.address)


async def test_garbage_inside_a_body_is_a_failure(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """A chunk without a length is an error, after the bytes before it."""
    engine = await start_engine(script(CHUNKED + chunked(b"good"), b"zz\r\n"))
    response = await post(upstream, engine.address)
    assert await response.read() == b"good"
    with pytest.raises(UpstreamFailed):
        await response.read()


async def test_an_endless_head_is_a_failure(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """An engine cannot fill the memory with headers."""

    async def run(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\n")
        while not visit.writer.is_closing():
            await visit.send(b"x: " + b"y" * 65536 + b"\r\n")

    engine = await start_engine(run)
    with pytest.raises(UpstreamFailed, match=r"headers of the engine.s response are too large"):
        await asyncio.wait_for(post(upstream, engine.address), PATIENCE_S)


@pytest.mark.parametrize("surplus", [answer(b"smuggled"), b"garbage"])
async def test_surplus_bytes_never_become_another_response(
    start_engine: StartEngine, upstream: UpstreamClient, surplus: bytes
) -> None:
    """A connection with bytes after the response is closed."""
    engine = await start_engine(script(answer(b"ok") + surplus))
    for _ in range(2):
        assert await read_all(await post(upstream, engine.address)) == b"ok"
    assert engine.connections == 2


async def test_an_early_response_is_read_while_the_body_is_being_sent(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The response of an engine that rejects a large body is read; its connection is not reused."""

    async def refuse(visit: Visit) -> None:
        await visit.send(answer(b"too large", status=b"413 Content Too Large"))
        await visit.until_gone()

    engine = await start_engine(refuse)
    for _ in range(2):
        response = await upstream.request(
            engine.address, "POST", "/x", [(b"x-leave-body", b"1")], b"x" * (32 << 20)
        )
        assert (response.status, await read_all(response)) == (413, b"too large")
    assert engine.connections == 2


async def test_a_large_body_arrives_whole(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """A body too large to be appended to its head arrives unchanged."""
    body = bytes(range(256)) * 8192
    engine = await start_engine(script(answer(b"ok")))
    await read_all(await post(upstream, engine.address, body))
    assert engine.requests[0].partition(b"\r\n\r\n")[2] == body


async def test_chunks_that_arrived_are_read_as_one(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Chunks that arrive while the reader is busy are joined."""
    all_sent = asyncio.Event()

    async def pile_up(visit: Visit) -> None:
        await visit.send(CHUNKED, *(chunked(b"%02d" % i) for i in range(50)), END)
        all_sent.set()

    engine = await start_engine(pile_up)
    response = await post(upstream, engine.address)
    await asyncio.wait_for(all_sent.wait(), PATIENCE_S)
    while response._connection is not None:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.001)
    assert await response.read() == b"".join(b"%02d" % i for i in range(50))
    assert response.is_finished


async def test_a_slow_reader_gets_everything(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """An engine paused for a slow reader is read again when there is room."""
    body = bytes(range(256)) * (64 * HIGH_WATER // 256)
    engine = await start_engine(script(answer(body)))
    response = await post(upstream, engine.address)
    await asyncio.sleep(0.05)
    assert response._size <= 8 * HIGH_WATER
    assert await read_all(response) == body
    assert await read_all(await post(upstream, engine.address)) == body
    assert engine.connections == 1


async def test_a_cancelled_request_closes_its_connection(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Cancelling before the response begins closes the connection at once."""
    thinking = asyncio.Event()

    async def think(visit: Visit) -> None:
        thinking.set()
        await visit.until_gone()
        engine.gone.set()

    engine = await start_engine(think)
    task = asyncio.create_task(post(upstream, engine.address))
    await asyncio.wait_for(thinking.wait(), PATIENCE_S)
    task.cancel()
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_idle_connections_are_closed(start_engine: StartEngine) -> None:
    """The client closes an unused connection before the engine does."""
    client = UpstreamClient(idle_s=0.03)
    engine = await start_engine(script(answer(b"ok")))
    await read_all(await post(client, engine.address))
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    assert await read_all(await post(client, engine.address)) == b"ok"
    await client.close()


async def test_at_most_max_idle_connections_are_kept(start_engine: StartEngine) -> None:
    """Connections above the limit are closed when their responses are complete."""
    client = UpstreamClient(max_idle=1)
    all_requests = asyncio.Barrier(3)

    async def together(visit: Visit) -> None:
        await all_requests.wait()
        await visit.send(answer(b"ok"))

    engine = await start_engine(together)
    for response in await asyncio.gather(*(post(client, engine.address) for _ in range(3))):
        await read_all(response)
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
    assert len(client._idle[engine.address]) == 1
    await client.close()


async def test_close_aborts_responses_and_rejects_requests(start_engine: StartEngine) -> None:
    """After `close()` no response continues and no request is accepted."""
    client = UpstreamClient()
    engine = await start_engine(script(CHUNKED))
    response = await post(client, engine.address)
    await client.close()
    with pytest.raises(UpstreamFailed):
        await response.read()
    with pytest.raises(UpstreamFailed):
        await post(client, engine.address)
    await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)


async def test_an_ipv6_host_is_bracketed(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """The client connects to an IPv6 address and names it as RFC 9110 requires."""
    try:
        engine = await start_engine(script(answer(b"ok")), host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert await read_all(await post(upstream, engine.address)) == b"ok"
    assert b"\r\nhost: [::1]:" in engine.requests[0]


class FakeTransport(asyncio.Transport):
    """Transport that records the calls of its connection."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Discard the data."""

    def get_write_buffer_size(self) -> int:
        """Report an empty buffer."""
        return 0

    def is_closing(self) -> bool:
        """Whether it was aborted."""
        return "abort" in self.calls

    def abort(self) -> None:
        """Record the call."""
        self.calls.append("abort")

    def pause_reading(self) -> None:
        """Record the call."""
        self.calls.append("pause")

    def resume_reading(self) -> None:
        """Record the call."""
        self.calls.append("resume")


def connected() -> tuple[UpstreamConnection, FakeTransport, EngineResponse]:
    """Return a connection on a fake transport, with a request sent."""
    connection = UpstreamConnection(("h", 1), lambda _: None, lambda _: None)
    transport = FakeTransport()
    connection.connection_made(transport)
    return connection, transport, connection.send(b"", b"")


@settings(deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    cuts=st.sets(st.integers(0, 400)),
    is_chunked=st.booleans(),
)
def test_any_segmentation_gives_the_same_response(
    chunks: list[bytes], cuts: set[int], is_chunked: bool
) -> None:
    """However TCP splits the bytes, status and body are the same and the connection is free."""
    body = b"".join(chunks)
    raw = CHUNKED + chunked(*chunks) + END if is_chunked else answer(body)
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]

    async def run() -> tuple[int, bytes, bool]:
        connection, _, response = connected()
        for start, end in pairwise(edges):
            connection.data_received(raw[start:end])
        await response.wait_for_head()
        return response.status, await read_all(response), connection.is_usable

    assert asyncio.run(run()) == (200, body, True)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_response_or_a_failure(raw: bytes) -> None:
    """Whatever an engine sends before it closes, only the gateway's own error is raised."""

    async def run() -> None:
        connection, _, response = connected()
        connection.data_received(b"HTTP/1.1 200 OK\r\n" + raw)
        connection.connection_lost(None)
        try:
            await response.wait_for_head()
            await read_all(response)
        except UpstreamFailed:
            assert not response.is_finished

    asyncio.run(run())


async def test_reading_from_the_engine_pauses_at_high_water() -> None:
    """Unread bytes above the mark pause the socket, and reading resumes it."""
    connection, transport, response = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n")
    connection.data_received(b"x" * HIGH_WATER)
    assert transport.calls == []
    connection.data_received(b"x")
    assert transport.calls == ["pause"]
    assert len(await response.read()) == HIGH_WATER + 1
    assert transport.calls == ["pause", "resume"]

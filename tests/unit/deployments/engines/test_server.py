"""HTTP server of an engine replica: access key, drain, stop."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest

from deployments.engines.asgi import send_json
from deployments.engines.server import EngineServer
from deployments.private_server import ServerDied
from gateway.asgi import Receive, Scope, Send
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.errors.gateway_error import ErrorBody
from gateway.telemetry.facts import EngineFacts
from gateway.telemetry.update import TELEMETRY_PATH, Update, UpdateReader

FACTS = EngineFacts(
    engine="fake",
    routes=("/v1/chat/completions",),
    kv_tokens=1,
    block_size=1,
    max_sequences=1,
    max_model_len=1,
)


class FakeEngine:
    """Answers at once, or on demand at `/slow`."""

    facts = FACTS

    def __init__(self) -> None:
        self.tracker = EngineTracker(FACTS, time.monotonic)
        self.failure: Exception | None = None
        self.is_dead = False
        self.release = asyncio.Event()
        self.entered = asyncio.Event()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer any path with its own name."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["path"] == "/slow":
            self.entered.set()
            await self.release.wait()
        if self.is_dead:
            await send_json(send, 500, b"what an engine says that has lost its core")
            raise RuntimeError("dead")
        await send_json(send, 200, scope["path"].encode())

    async def check(self) -> None:
        """Be well, or dead.

        Raises:
            RuntimeError: it is dead.
        """
        if self.is_dead:
            raise RuntimeError("dead")

    async def ping(self) -> None:
        """It works."""

    async def stop(self) -> None:
        """Hold nothing, release nothing."""

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.failure:
            await send({"type": "lifespan.startup.failed", "message": str(self.failure)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


class Client:
    """Requests to a server."""

    def __init__(self, server: EngineServer, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def call(
        self, method: str, path: str, authorization: str | None = None
    ) -> tuple[int, bytes, str | None]:
        """Status, body and retry-after of one call; with the right key unless told otherwise."""
        authorization = authorization or f"Bearer {self._server.key}"
        url = f"http://{self._server.host}:{self._server.port}{path}"
        headers = {"authorization": authorization}
        async with self._session.request(method, url, headers=headers) as response:
            return response.status, await response.read(), response.headers.get("retry-after")

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[Update]]:
        """What the engine tells, as long as the context lasts."""
        url = f"http://{self._server.host}:{self._server.port}{TELEMETRY_PATH}"
        headers = {"authorization": f"Bearer {self._server.key}"}
        async with self._session.get(url, headers=headers) as response:
            yield self._frames(response)

    async def _frames(self, response: aiohttp.ClientResponse) -> AsyncIterator[Update]:
        reader = UpdateReader()
        async for data in response.content.iter_any():
            for update in reader.feed(data):
                yield update


@asynccontextmanager
async def served(engine: FakeEngine) -> AsyncIterator[tuple[EngineServer, Client]]:
    """A running server and a client of it."""
    server = EngineServer(engine, "127.0.0.1")
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield server, Client(server, session)
    finally:
        await server.stop()


async def break_server(server: EngineServer) -> None:
    """Make the server's loop fail, as if the machine had run out of file descriptors."""

    async def tick(counter: int) -> bool:
        raise OSError("too many open files")

    server._http._uvicorn.on_tick = tick  # type: ignore[method-assign]
    task = server._http._task
    assert task is not None
    await asyncio.wait([task])


def error_code(body: bytes) -> str | None:
    """Code of an error in OpenAI's shape."""
    return msgspec.json.decode(body, type=ErrorBody).error.code


async def test_requests_with_the_key_are_answered() -> None:
    """A request with the replica's key reaches the engine's application."""
    async with served(FakeEngine()) as (_, client):
        assert await client.call("POST", "/v1/x") == (200, b"/v1/x", None)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("authorization", ["Bearer wrong", "Bearer ", "{key}", "Basic {key}"])
async def test_requests_with_a_wrong_key_are_rejected(method: str, authorization: str) -> None:
    """Any other authorization gets a 401 in OpenAI's shape, whatever the method."""
    async with served(FakeEngine()) as (server, client):
        for path in ("/v1/x", TELEMETRY_PATH):
            status, body, _ = await client.call(method, path, authorization.format(key=server.key))
            assert (status, error_code(body)) == (401, "invalid_api_key")


async def test_requests_without_a_key_are_rejected() -> None:
    """A request without the header gets a 401, too."""
    async with served(FakeEngine()) as (server, _):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"GET /v1/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert b" 401 " in await reader.readline()
        await reader.read()
        writer.close()
        await writer.wait_closed()


async def test_every_server_has_its_own_key() -> None:
    """Keys are long and never the same."""
    keys = {EngineServer(FakeEngine(), "127.0.0.1").key for _ in range(8)}
    assert len(keys) == 8
    assert min(map(len, keys)) >= 43


async def test_a_drain_finishes_what_is_in_flight() -> None:
    """In a drain, new POSTs get a 503, GETs are answered, and running requests finish."""
    engine = FakeEngine()
    async with served(engine) as (server, client):
        slow = asyncio.create_task(client.call("POST", "/slow"))
        await engine.entered.wait()
        assert server.in_flight == 1

        drain = asyncio.create_task(server.drain(timeout_s=30))
        await asyncio.sleep(0)
        status, body, retry_after = await client.call("POST", "/v1/x")
        assert (status, error_code(body), retry_after) == (503, "draining", "1")
        assert await client.call("GET", "/health") == (200, b"/health", None)
        assert not drain.done()

        engine.release.set()
        assert await drain == 0
        assert (await slow)[0] == 200


async def test_a_drain_does_not_wait_for_telemetry_subscribers() -> None:
    """Subscribers learn of the drain, and do not count as in flight."""
    async with served(FakeEngine()) as (server, client):
        async with client.listen() as frames:
            assert (await anext(frames)).is_snapshot
            assert server.in_flight == 0
            assert await server.drain(timeout_s=30) == 0
            assert (await anext(frames)).is_draining
        async with client.listen() as frames:
            assert (await anext(frames)).is_draining


async def test_a_stop_ends_the_telemetry() -> None:
    """Streams end properly, and no task is left."""
    tasks_before = asyncio.all_tasks()
    async with served(FakeEngine()) as (server, client), client.listen() as frames:
        assert (await anext(frames)).is_snapshot
        await server.stop()
        assert [frame async for frame in frames] == []
    assert asyncio.all_tasks() == tasks_before


async def test_a_drain_ends_at_its_timeout() -> None:
    """Requests still in flight then are counted, and the stop cuts them off."""
    engine = FakeEngine()
    async with served(engine) as (server, client):
        slow = asyncio.create_task(client.call("POST", "/slow"))
        await engine.entered.wait()
        assert await server.drain(timeout_s=0.05) == 1

        await server.stop()
        assert server.in_flight == 0
        with pytest.raises(aiohttp.ClientError):
            await slow


async def test_an_idle_server_drains_at_once() -> None:
    """Without requests in flight a drain does not wait, even the second time."""
    async with served(FakeEngine()) as (server, client):
        await client.call("POST", "/v1/x")
        assert await server.drain(timeout_s=0) == 0
        assert await server.drain(timeout_s=0) == 0


async def test_stop_leaves_nothing_behind() -> None:
    """The port is free, tasks have ended and idle connections are closed."""
    tasks_before = asyncio.all_tasks()
    async with served(FakeEngine()) as (server, client):
        await client.call("POST", "/v1/x")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(server.host, server.port)
    assert asyncio.all_tasks() == tasks_before


async def test_signals_stay_with_their_owner() -> None:
    """The server installs no signal handler of its own."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with served(FakeEngine()):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_check_raises_for_a_server_that_has_ended() -> None:
    """And for one that has not started."""
    server = EngineServer(FakeEngine(), "127.0.0.1")
    with pytest.raises(ServerDied):
        server.check()
    await server.start()
    server.check()
    await server.stop()
    with pytest.raises(ServerDied):
        server.check()


async def test_the_cause_of_a_broken_server_is_raised() -> None:
    """If the server dies, `check` raises with its error as the cause."""
    async with served(FakeEngine()) as (server, _):
        await break_server(server)
        with pytest.raises(ServerDied) as raised:
            server.check()
        assert isinstance(raised.value.__cause__, OSError)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(server.host, server.port)


async def test_an_application_that_fails_to_start_fails_the_server() -> None:
    """`start` raises instead of ending the process, and the port is free."""
    engine = FakeEngine()
    engine.failure = RuntimeError("no weights")
    server = EngineServer(engine, "127.0.0.1")
    with pytest.raises(ServerDied):
        await server.start()
    with socket.socket() as probe:
        assert probe.connect_ex((server.host, server.port)) != 0


async def test_a_dead_engine_sends_requests_elsewhere() -> None:
    """Routers learn that it takes no more, and which requests it had when it died."""
    engine = FakeEngine()
    async with served(engine) as (_, client), client.listen() as updates:
        await anext(updates)
        under_way = asyncio.create_task(client.call("POST", "/slow"))
        await engine.entered.wait()
        engine.is_dead = True
        engine.release.set()
        answers = [await under_way, await client.call("POST", "/v1/x")]
        update = await anext(updates)

    codes = [(status, error_code(body)) for status, body, _ in answers]
    assert codes == [(503, "engine_died"), (503, "draining")]
    assert update.is_draining

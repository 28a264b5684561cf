"""Fixtures of unit tests: fake engines on real sockets, a client, and a clock that tests set."""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import pytest
import uvloop
from hypothesis import settings

from gateway.asgi import Message
from gateway.routing.fleet import Replica
from gateway.serving.client_response import ClientResponse
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.upstream.client import UpstreamClient

# The same examples every time, however long they take: a run says something of the code alone.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

ON_BOTH_LOOPS = frozenset({"test_upstream_client.py", "test_engine_call.py"})
"""Event loops for tests of sockets: Serve's, and asyncio's own."""
PATIENCE_S = 20
"""How long a test waits for what must happen."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Say on which event loops a test runs."""
    if item.path.name in ON_BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@dataclass
class Visit:
    """One request that reached a fake engine, and the way to answer it."""

    number: int
    """Number of the request on its connection, from 0."""
    request: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        """Send each part in a segment of its own."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def reset(self) -> None:
        """Close with a TCP reset, once the bytes sent have had time to arrive."""
        await asyncio.sleep(0.05)
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()

    async def until_gone(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read()


class Client:
    """A client that records all ASGI messages sent to it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.has_bytes = asyncio.Event()
        self.response = ClientResponse(self.send, [(b"x-request-id", b"id")])

    async def send(self, message: Message) -> None:
        """Record a message."""
        self.messages.append(message)
        if message.get("body"):
            self.has_bytes.set()

    @property
    def status(self) -> int:
        """The answer's status."""
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The answer's headers."""
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        """All bytes of the body."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def is_complete(self) -> bool:
        """Whether the answer is complete."""
        return self.messages[-1].get("more_body") is False


Script = Callable[[Visit], Awaitable[None]]


class FakeEngine:
    """Fake engine that answers each request by its script, which may close the connection."""

    def __init__(self, script: Script, host: str) -> None:
        self.host = host
        self.requests: list[bytes] = []
        self.connections = 0
        self.gone = asyncio.Event()
        """A client has closed a connection."""
        self._script = script
        self._tracked_requests: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self._server.sockets[0].getsockname()[1]

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, self.host, 0)

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    async def stop(self) -> None:
        """Stop listening, and close all connections."""
        self._server.close()
        for tracked in self._tracked_requests:
            tracked.cancel()
        await asyncio.gather(*self._tracked_requests, return_exceptions=True)

    def replica(self, routes: tuple[str, ...] = ("/v1/chat/completions",)) -> Replica:
        """This engine as a router sees it."""
        host, port = self.address
        facts = EngineFacts(
            engine="fake",
            routes=routes,
            kv_tokens=1024,
            block_size=16,
            max_sequences=8,
            max_model_len=512,
        )
        metadata = ReplicaMetadata(model="m", host=host, port=port, key="engine-key", facts=facts)
        return Replica(f"replica-{port}", metadata)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        tracked = asyncio.create_task(self._serve(reader, writer))
        self._tracked_requests.add(tracked)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([tracked])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                request = head
                if b"x-leave-body" not in head:
                    request += await reader.readexactly(int(length[1]) if length else 0)
                self.requests.append(request)
                await self._script(Visit(number, request, reader, writer))
                number += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


StartEngine = Callable[..., Awaitable[FakeEngine]]


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole answer with a length."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    """The chunks in HTTP's chunked encoding, without the end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    """Start fake engines that are stopped after the test."""
    engines: list[FakeEngine] = []

    async def start(script: Script, host: str = "127.0.0.1") -> FakeEngine:
        engine = FakeEngine(script, host)
        await engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.stop()


@pytest.fixture
async def upstream() -> AsyncIterator[UpstreamClient]:
    """The client under test, closed after the test."""
    client = UpstreamClient(connect_timeout_s=PATIENCE_S)
    yield client
    await client.close()


class Clock:
    """Clock that a test sets, in seconds."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock that moves only when the test sets it."""
    return Clock()

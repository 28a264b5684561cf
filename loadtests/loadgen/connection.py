"""HTTP/1.1 client connection: one request at a time, every chunk of the response timed.

httptools parses; per chunk it costs an append and a look at the clock. That keeps the generator
cheap enough not to be what a comparison measures.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Self, cast

import httptools
import msgspec

EVENT = b"data: "
LAST_EVENT = b"data: [DONE]\n\n"


class Response(msgspec.Struct):
    """An HTTP response; times are those of `time.monotonic`."""

    status: int = 0
    """0 if the connection ended before the response did."""
    headers: list[tuple[bytes, bytes]] = msgspec.field(default_factory=list)
    sent_s: float = 0.0
    end_s: float = 0.0
    chunks: list[bytes] = msgspec.field(default_factory=list)
    times_s: list[float] = msgspec.field(default_factory=list)
    """Arrival time of each chunk."""
    error: str = ""
    """Reason why the connection ended before the response did, if it did."""

    @property
    def body(self) -> bytes:
        """All chunks, joined."""
        return b"".join(self.chunks)

    def header(self, name: str) -> str | None:
        """The value of a header; None without it."""
        wanted = name.lower().encode()
        found = (value.decode("latin-1") for key, value in self.headers if key.lower() == wanted)
        return next(found, None)


class Connection(asyncio.Protocol):
    """A connection, which stays open between requests."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._response = Response()
        self._on_end: Callable[[Response], object] | None = None
        self.is_open = True
        """Whether it can carry another request."""

    @classmethod
    async def open(cls, host: str, port: int, local_address: str | None = None) -> Self:
        """Connect.

        Raises:
            OSError: the server cannot be reached.
        """
        local = (local_address, 0) if local_address else None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, host, port, local_addr=local)
        return connection

    def send(self, request: bytes, on_end: Callable[[Response], object]) -> None:
        """Send a whole request; call `on_end` with the response, even if it was cut off."""
        self._on_end = on_end
        self._parser = httptools.HttpResponseParser(self)
        self._response = Response(sent_s=time.monotonic())
        self._transport.write(request)

    async def request(self, request: bytes) -> Response:
        """Send a whole request and wait for the response.

        Raises:
            ConnectionError: the connection ended before the response did.
        """
        waiting: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.send(request, lambda r: None if waiting.done() else waiting.set_result(r))
        response = await waiting
        if response.error:
            raise ConnectionError(response.error)
        return response

    def close(self) -> None:
        """Abort the connection, and with it a request in flight."""
        self.is_open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by asyncio)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; httptools calls the `on_...` methods."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a request in flight without a response."""
        self.is_open = False
        self._response.status = 0
        self._response.error = f"connection lost: {exc or 'closed'}"
        self._end()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header (called by the parser)."""
        self._response.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """Store a chunk and its time (called by the parser)."""
        self._response.chunks.append(body)
        self._response.times_s.append(time.monotonic())

    def on_message_complete(self) -> None:
        """End the request (called by the parser)."""
        self._response.status = self._parser.get_status_code()
        self.is_open = self.is_open and self._parser.should_keep_alive()
        self._end()

    def _end(self) -> None:
        if self._on_end is not None:
            self._response.end_s = time.monotonic()
            on_end, self._on_end = self._on_end, None
            on_end(self._response)


def http_post(
    host: str, port: int, path: str, body: bytes, headers: Mapping[str, str] | None = None
) -> bytes:
    """A POST of JSON as it goes over the wire."""
    own = {
        "host": f"{host}:{port}",
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    fields = "".join(f"{name}: {value}\r\n" for name, value in {**own, **(headers or {})}.items())
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n".encode() + body

"""One HTTP/1.1 connection to an engine: an `asyncio.Protocol` around httptools' parser.

Everything that one read of the socket returns, and all that arrives while the reader is busy,
becomes one chunk. There is no task and no copy per chunk of the engine. Cost: one future each time
the reader waits. A response's relay takes what arrives while its reader waits, which saves that
future and a turn of the event loop; and if it arrives in whole chunks of HTTP, these need no parser
either, whose state stays between two chunks.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from gateway.errors.upstream import Reason, UpstreamFailed
from gateway.upstream.chunks import CRLF, whole_chunks
from gateway.upstream.response import EngineResponse

Address = tuple[str, int]
"""Host (name, IPv4 or IPv6) and port."""
HEAD_LIMIT = 256 * 1024
"""Most bytes that an engine may send before the headers of its response are complete."""
SMALL_BODY = 64 * 1024
"""Bodies up to this many bytes are appended to their head, so that one write sends both."""


class StaleConnection(Exception):
    """The engine closed a pooled connection before it sent any byte of the response."""


class UpstreamConnection(asyncio.Protocol):
    """Connection to an engine that carries one request at a time.

    `on_released` is called when a response is complete and another request may be sent, `on_lost`
    when the connection is closed.
    """

    def __init__(
        self,
        address: Address,
        on_released: Callable[["UpstreamConnection"], None],
        on_lost: Callable[["UpstreamConnection"], None],
    ) -> None:
        self.address = address
        self._loop = asyncio.get_running_loop()
        self.closed = self._loop.create_future()
        self.idle_since_s = 0.0
        self._on_released = on_released
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._response: EngineResponse | None = None
        self._head_bytes = 0
        self._is_between_chunks = False
        self._is_reused = False
        self._is_paused = False

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent."""
        return self._response is None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes) -> EngineResponse:
        """Send a request. HEAD is not supported: its response has a length but no body."""
        response = self._response = EngineResponse(self, self._loop)
        self._head_bytes = 0
        self._is_between_chunks = False
        if len(body) <= SMALL_BODY:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return response

    def abort(self, failure: UpstreamFailed | None = None) -> None:
        """Close the connection at once; the reader of its response, if any, gets `failure`."""
        self._fail(
            failure or UpstreamFailed("The connection to the engine was closed.", Reason.CLOSING)
        )

    def resume_reading(self) -> None:
        """Read from the engine again, as the reader has caught up."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by asyncio)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Relay or parse what one read of the socket returned (called by asyncio)."""
        response = self._response
        if (
            self._is_between_chunks
            and response is not None
            and response.relay is not None
            and (body := whole_chunks(data))
        ):
            if not response.offer(body, data):
                self.on_body(body)
                response.wake_reader()
            return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(UpstreamFailed("The engine's response is not valid HTTP.", Reason.INVALID))
            return
        # After a chunk's end there may be the beginning of the next one's size, but no line's end.
        self._is_between_chunks = self._is_between_chunks and data.endswith(CRLF)
        response = self._response
        if response is None:
            return
        if not response.has_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:
                self._fail(
                    UpstreamFailed(
                        "The headers of the engine's response are too large.", Reason.INVALID
                    )
                )
        if not response.offer_unread():
            response.wake_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response, if any, as the connection is closed (called by asyncio)."""
        response = self._response
        if response is not None:
            self._response = None
            response.finish(self._error_at_close(response, exc))
        if not self.closed.done():
            self.closed.set_result(None)
        self._on_lost(self)

    def on_message_begin(self) -> None:
        """Check that a response is expected (called by the parser)."""
        if self._response is None:
            # The parser turns this into its own error: the engine sent more than one response.
            raise UpstreamFailed("The engine sent a response without a request.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header; ignore trailers (called by the parser)."""
        response = self._response
        if response is None or response.has_head:
            return  # a trailer
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            response.is_framed = True
        response.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Set the status, unless it is informational (called by the parser)."""
        response = self._response
        if response is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            response.headers = []
            response.is_framed = False
            return
        response.status = status
        response.has_head = True

    def on_body(self, data: bytes) -> None:
        """Add a piece of the body (called by the parser)."""
        response = self._response
        if response is not None and response.feed(data) and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_chunk_header(self) -> None:
        """Note that a chunk has begun (called by the parser)."""
        self._is_between_chunks = False

    def on_chunk_complete(self) -> None:
        """Note that a chunk has ended (called by the parser)."""
        self._is_between_chunks = True

    def on_message_complete(self) -> None:
        """Finish the response (called by the parser)."""
        if self._response is not None and self._response.has_head:
            # The engine may respond before it has read the whole request: do not reuse that.
            is_all_sent = self._transport.get_write_buffer_size() == 0
            self._complete(is_reusable=is_all_sent and self._parser.should_keep_alive())

    def _complete(self, *, is_reusable: bool) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.finish()
        self.resume_reading()
        self._is_reused = True
        if is_reusable:
            self._on_released(self)
        else:
            self._transport.abort()

    def _fail(self, failure: Exception) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.finish(failure)
        self._transport.abort()

    def _error_at_close(self, response: EngineResponse, exc: Exception | None) -> Exception | None:
        if response.has_head and not response.is_framed and exc is None:
            return None  # a response without a length ends with its connection
        if self._is_reused and not self._head_bytes and not response.has_head:
            return StaleConnection()
        return UpstreamFailed("The engine closed the connection before its response was complete.")

"""One HTTP/1.1 connection to an engine: an `asyncio.Protocol` around httptools' parser.

What one read of the socket brings, and whatever else arrives while the reader is busy, becomes one
chunk; no task and no copy per chunk of the engine. Cost: one future per wait of the reader.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from gateway.errors import Reason, UpstreamFailed
from gateway.upstream.response import EngineResponse

Address = tuple[str, int]
"""Host (a name, IPv4 or IPv6) and port."""
HEAD_LIMIT = 256 * 1024
"""Bytes an engine may send before its answer's headers are complete."""
SMALL_BODY = 64 * 1024
"""Bodies up to this size are copied behind their head, to leave in one write."""


class StaleConnection(Exception):
    """A kept connection was closed before it brought any of the answer."""


class Connection(asyncio.Protocol):
    """A connection that carries one exchange after the other.

    `released` is called when an exchange is complete and another one may begin, `lost` when the
    connection is gone.
    """

    def __init__(
        self,
        address: Address,
        released: Callable[["Connection"], None],
        lost: Callable[["Connection"], None],
    ) -> None:
        self.address = address
        self._loop = asyncio.get_running_loop()
        self.closed = self._loop.create_future()
        self.idle_since_s = 0.0
        self._released = released
        self._lost = lost
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._response: EngineResponse | None = None
        self._head_bytes = 0
        self._is_reused = False
        self._is_paused = False

    @property
    def is_usable(self) -> bool:
        """Whether another exchange may begin."""
        return self._response is None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes) -> EngineResponse:
        """Begin an exchange, which must not be of a method (HEAD) whose answer has no body."""
        response = self._response = EngineResponse(self, self._loop)
        self._head_bytes = 0
        if len(body) <= SMALL_BODY:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return response

    def abort(self, failure: UpstreamFailed | None = None) -> None:
        """Drop the connection at once, and what it carries, whose reader gets `failure`."""
        self._fail(failure or UpstreamFailed("The engine's answer was dropped.", Reason.CLOSING))

    def resume(self) -> None:
        """Read from the engine again: the reader has caught up."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport from asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take what one read of the socket brought from asyncio."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(UpstreamFailed("The engine's answer was not valid HTTP.", Reason.INVALID))
            return
        response = self._response
        if response is None:
            return
        if not response.has_begun:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:
                self._fail(
                    UpstreamFailed("The engine's answer had too large a head.", Reason.INVALID)
                )
        response.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear from asyncio that the connection is gone."""
        response = self._response
        if response is not None:
            self._response = None
            response.finish(self._loss(response, exc))
        if not self.closed.done():
            self.closed.set_result(None)
        self._lost(self)

    def on_message_begin(self) -> None:
        """Hear from the parser that an answer starts."""
        if self._response is None:
            # Raised into the parser: the engine sent more than it was asked for.
            raise UpstreamFailed("The engine sent bytes that belong to no request.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or trailer, from the parser."""
        response = self._response
        if response is None or response.has_begun:
            return  # trailers
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            response.is_framed = True
        response.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hear from the parser that the head is complete."""
        response = self._response
        if response is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            response.headers = []
            response.is_framed = False
            return
        response.status = status
        response.has_begun = True

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body from the parser."""
        response = self._response
        if response is not None and response.feed(data) and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Hear from the parser that the answer is complete."""
        if self._response is not None and self._response.has_begun:
            # An answer given before the whole request was taken leaves the connection unusable.
            is_all_sent = self._transport.get_write_buffer_size() == 0
            self._complete(can_go_on=is_all_sent and self._parser.should_keep_alive())

    def _complete(self, *, can_go_on: bool) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.finish()
        self.resume()
        self._is_reused = True
        if can_go_on:
            self._released(self)
        else:
            self._transport.abort()

    def _fail(self, failure: Exception) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.finish(failure)
        self._transport.abort()

    def _loss(self, response: EngineResponse, exc: Exception | None) -> Exception | None:
        if response.has_begun and not response.is_framed and exc is None:
            return None  # an answer without a length ends with its connection
        if self._is_reused and not self._head_bytes and not response.has_begun:
            return StaleConnection()
        return UpstreamFailed("The engine broke off before its answer was complete.")

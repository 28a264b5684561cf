"""A connection of the routing comparison's client: one streamed request after the other."""

import asyncio
import time
from typing import Self, cast

import httptools
import msgspec

EVENT = b"data: "


class Reply(msgspec.Struct):
    """What came back for a request; times are the clock's seconds."""

    status: int = 0
    """0 where the connection broke."""
    first_s: float = 0.0
    """When the first event came."""
    end_s: float = 0.0
    body: bytes = b""


class Connection(asyncio.Protocol):
    """Kept open between requests; httptools parses, and nothing is created per chunk."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._reply = Reply()
        self._parts: list[bytes] = []
        self._waiting: asyncio.Future[Reply] | None = None
        self.is_open = True
        """Whether it can be used once more."""

    @classmethod
    async def to(cls, host: str, port: int) -> Self:
        """Open one.

        Raises:
            OSError: nobody listens.
        """
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    async def ask(self, request: bytes) -> Reply:
        """Send a whole request and wait for all of its answer."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._reply, self._parts = Reply(), []
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """Use it no more; whoever answers notices."""
        self.is_open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse; httptools calls `on_body` and `on_message_complete`."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what waits, unanswered."""
        self.is_open = False
        self._finish(Reply(body=str(exc or "closed").encode()))

    def on_body(self, body: bytes) -> None:
        """Take a piece of the answer."""
        if not self._reply.first_s and EVENT in body:
            self._reply.first_s = time.monotonic()
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Hand over the answer."""
        self._reply.status = self._parser.get_status_code()
        self._reply.body = b"".join(self._parts)
        self.is_open = self.is_open and self._parser.should_keep_alive()
        self._finish(self._reply)

    def _finish(self, reply: Reply) -> None:
        if self._waiting is not None and not self._waiting.done():
            reply.end_s = time.monotonic()
            self._waiting.set_result(reply)

"""Response of an engine: its head, and its body chunk by chunk."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.asgi import Headers
from gateway.errors.upstream import UpstreamFailed

HIGH_WATER = 256 * 1024
"""Unread bytes of one response above which reading from the engine is paused."""

Relay = Callable[[bytes, bytes], bool]
"""Sends on bytes of a body as they arrive, or declines and returns False.

Its arguments are the bytes, and the chunks of HTTP that they came in; the latter are empty unless
they may be passed on as they are (`whole_chunks`).
"""


class ConnectionControl(Protocol):
    """The part of a connection that a response uses."""

    def abort(self) -> None:
        """Close the connection at once."""

    def resume_reading(self) -> None:
        """Read from the engine again."""


class EngineResponse:
    """Response of an engine; `status` and `headers` are set once `wait_for_head` returns."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_failure",
        "_has_failed",
        "_loop",
        "_size",
        "_waiter",
        "connect_s",
        "has_head",
        "headers",
        "is_framed",
        "relay",
        "status",
    )

    def __init__(self, connection: ConnectionControl, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop  # stored: looking up the running loop costs a system call
        self.status = 0
        self.connect_s = 0.0
        """Seconds that connecting to the engine took; 0 for a pooled connection."""
        self.headers: Headers = []
        self.has_head = False
        self.is_framed = False
        """Whether its headers say where the body ends."""
        self.relay: Relay | None = None
        """Takes what arrives while the reader waits, so that the reader need not wake up for it."""
        self._connection: ConnectionControl | None = connection
        self._chunks: list[bytes] = []
        self._size = 0
        self._failure: Exception | None = None
        self._has_failed = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the whole response has arrived and been read."""
        return self._connection is None and not self._chunks and not self._has_failed

    async def wait_for_head(self) -> None:
        """Wait for status and headers.

        Raises:
            StaleConnection: a pooled connection was closed; the request may be sent over another.
            UpstreamFailed: the engine sent no valid response.
        """
        while not self.has_head and self._connection is not None:
            await self._wait()
        if not self.has_head and self._has_failed:
            raise self._pop_failure()

    async def read(self) -> bytes:
        """Return all that has arrived since the last call, at least one byte; empty at the end.

        Raises:
            UpstreamFailed: the response ended before it was complete.
        """
        while not self._chunks and self._connection is not None:
            await self._wait()
        if not self._chunks:
            if self._has_failed:
                raise self._pop_failure()
            return b""
        data = self._unread()
        self._clear_unread()
        return data

    def close(self) -> None:
        """Close the connection, unless the whole response has arrived."""
        if self._connection is not None:
            self._connection.abort()

    def feed(self, data: bytes) -> bool:
        """Add bytes of the body; return whether too many are unread now."""
        self._chunks.append(data)
        self._size += len(data)
        return self._size > HIGH_WATER

    def offer(self, data: bytes, chunks: bytes) -> bool:
        """Have the relay send on bytes of the body; returns False if they have to be read.

        They do not bypass a reader that is busy: nothing is unread only while it waits.
        """
        waiter, relay = self._waiter, self.relay
        if waiter is None or relay is None or waiter.done():
            return False
        return relay(data, chunks)

    def offer_unread(self) -> bool:
        """Have the relay send on what has just been fed, as `offer` does."""
        if self.relay is None or not self._chunks or not self.offer(self._unread(), b""):
            return False
        self._clear_unread()
        return True

    def finish(self, failure: Exception | None = None) -> None:
        """Mark the end of the response: complete, or broken by `failure`."""
        self._connection = None
        self._failure = failure
        self._has_failed = failure is not None
        self.wake_reader()

    def wake_reader(self) -> None:
        """Let the waiting reader, if any, continue."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _unread(self) -> bytes:
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _clear_unread(self) -> None:
        self._chunks = []
        self._size = 0
        if self._connection is not None:
            self._connection.resume_reading()

    def _pop_failure(self) -> Exception:
        # If it were kept, its traceback would keep the reader's frames alive, and the body in them.
        failure, self._failure = self._failure, None
        return failure or UpstreamFailed("The engine's response ended early.")

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

"""An engine's answer, as its reader sees it."""

import asyncio
from typing import Protocol

from gateway.asgi import Headers
from gateway.errors import UpstreamFailed

HIGH_WATER = 256 * 1024
"""Unread bytes of one answer above which the engine is made to wait."""


class Exchange(Protocol):
    """What an answer asks of the connection it comes over."""

    def abort(self) -> None:
        """Drop the connection."""

    def resume(self) -> None:
        """Read again what the engine sends."""


class EngineResponse:
    """An engine's answer; `status` and `headers` are set once it is handed out."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_failure",
        "_has_failed",
        "_loop",
        "_size",
        "_waiter",
        "connect_s",
        "has_begun",
        "headers",
        "is_framed",
        "status",
    )

    def __init__(self, connection: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop  # kept, because asking for the running one costs a system call
        self.status = 0
        self.connect_s = 0.0
        """What connecting to the engine took; nothing where a connection was kept."""
        self.headers: Headers = []
        self.has_begun = False
        self.is_framed = False
        self._connection: Exchange | None = connection
        self._chunks: list[bytes] = []
        self._size = 0
        self._failure: Exception | None = None
        self._has_failed = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the whole answer has arrived and been read."""
        return self._connection is None and not self._chunks and not self._has_failed

    async def begin(self) -> None:
        """Wait for status and headers.

        Raises:
            StaleConnection: nothing came of it, and a new connection may do better.
            UpstreamFailed: the engine sent no valid answer.
        """
        while not self.has_begun and self._connection is not None:
            await self._wait()
        if not self.has_begun and self._has_failed:
            raise self._take_failure()

    async def read(self) -> bytes:
        """All that has arrived since the last call, at least one byte; empty at the end.

        Raises:
            UpstreamFailed: the answer ends here but is not complete.
        """
        while not self._chunks and self._connection is not None:
            await self._wait()
        chunks = self._chunks
        if not chunks:
            if self._has_failed:
                raise self._take_failure()
            return b""
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._size = 0
        if self._connection is not None:
            self._connection.resume()
        return chunk

    def close(self) -> None:
        """Drop what has not arrived, and with it the connection; nothing if all has arrived."""
        if self._connection is not None:
            self._connection.abort()

    def feed(self, data: bytes) -> bool:
        """Take bytes of the body; whether there are too many unread now."""
        self._chunks.append(data)
        self._size += len(data)
        return self._size > HIGH_WATER

    def finish(self, failure: Exception | None = None) -> None:
        """Nothing more will arrive, because it is complete or because of `failure`."""
        self._connection = None
        self._failure = failure
        self._has_failed = failure is not None
        self.wake()

    def wake(self) -> None:
        """Let the reader go on."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _take_failure(self) -> Exception:
        # Kept here, it would keep through its traceback whatever waits for this, the body included.
        failure, self._failure = self._failure, None
        return failure or UpstreamFailed("The engine's answer broke off.")

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

"""HTTP/1.1 client for engines with a connection pool, built for many small chunks."""

import asyncio
import errno
import time
from collections.abc import Iterable

from gateway.errors.upstream import Reason, UpstreamFailed
from gateway.upstream.connection import Address, StaleConnection, UpstreamConnection
from gateway.upstream.response import EngineResponse
from gateway.upstream.tcp_keepalive import enable_tcp_keepalive

OWN_SHORTAGE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
)
"""Errors of a connection that say nothing of the engine: files, ports or memory are used up here,
which clients with many requests can bring about."""


class UpstreamClient:
    """Client with a pool of connections to all engines; its owner must `close()` it.

    Idle connections are closed after `idle_s` seconds (or up to a third later), well before the
    engine would close them. At most `max_idle` of them are kept per engine.
    """

    def __init__(
        self, *, connect_timeout_s: float = 5.0, idle_s: float = 15.0, max_idle: int = 256
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._idle: dict[Address, list[UpstreamConnection]] = {}
        self._connections: set[UpstreamConnection] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def request(
        self,
        address: Address,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes = b"",
    ) -> EngineResponse:
        """Send a request and wait for the head of the response, which the caller must `close()`.

        `headers` must be valid HTTP, without `host` and `content-length`. If a pooled connection
        turns out to be closed, the request is sent once more, over a new one.

        Raises:
            UpstreamFailed: the engine cannot be reached, has died or sent no valid response.
        """
        head = _request_head(address, method, target, headers, len(body))
        connection = self._pop_idle(address)
        is_stale = False
        if connection is not None:
            try:
                return await _send(connection, head, body)
            except StaleConnection:
                is_stale = True
        started_s = time.perf_counter()
        try:
            connection = await self._connect(address)
        except UpstreamFailed as error:
            if is_stale and error.reason is Reason.UNREACHABLE:
                # It was there until it got the request: it has died, perhaps because of that.
                raise UpstreamFailed("The engine died.", Reason.BROKE_OFF) from None
            raise
        connect_s = time.perf_counter() - started_s
        response = await _send(connection, head, body)
        response.connect_s = connect_s
        return response

    def abort_connections(self, address: Address) -> None:
        """Abort all connections to an engine that is stuck; their readers get an error."""
        for connection in [c for c in self._connections if c.address == address]:
            connection.abort(UpstreamFailed("The engine stopped responding.", Reason.STUCK))

    async def close(self) -> None:
        """Abort all connections, also those in use."""
        self._is_closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        if connections:
            await asyncio.wait([c.closed for c in connections])

    async def _connect(self, address: Address) -> UpstreamConnection:
        if self._is_closed:
            raise UpstreamFailed("The gateway is shutting down.", Reason.CLOSING)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                transport, connection = await loop.create_connection(
                    lambda: UpstreamConnection(address, self._release, self._remove), *address
                )
            enable_tcp_keepalive(transport.get_extra_info("socket"))
        except (OSError, UnicodeError) as error:  # `TimeoutError` is an OSError
            message = "The engine could not be reached."
            raise UpstreamFailed(message, connect_reason(error)) from None
        self._connections.add(connection)
        return connection

    def _pop_idle(self, address: Address) -> UpstreamConnection | None:
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    def _release(self, connection: UpstreamConnection) -> None:
        idle = self._idle.setdefault(connection.address, [])
        if self._is_closed or len(idle) >= self._max_idle:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        idle.append(connection)
        if self._idle_timer is None:
            self._idle_timer = loop.call_later(self._idle_s / 3, self._close_idle)

    def _remove(self, connection: UpstreamConnection) -> None:
        self._connections.discard(connection)
        idle = self._idle.get(connection.address)
        if idle and connection in idle:
            idle.remove(connection)

    def _close_idle(self) -> None:
        """Close connections that have been idle too long; scheduled only while any is idle."""
        loop = asyncio.get_running_loop()
        oldest_s = loop.time() - self._idle_s
        for address, idle in list(self._idle.items()):
            for connection in [c for c in idle if c.idle_since_s <= oldest_s]:
                idle.remove(connection)
                connection.abort()
            if not idle:
                del self._idle[address]
        self._idle_timer = (
            loop.call_later(self._idle_s / 3, self._close_idle) if self._idle else None
        )


def connect_reason(error: Exception) -> Reason:
    """Why no connection could be made: the engine is not there, or the router lacks a socket."""
    is_own = isinstance(error, OSError) and error.errno in OWN_SHORTAGE
    return Reason.NO_SOCKET if is_own else Reason.UNREACHABLE


async def _send(connection: UpstreamConnection, head: bytes, body: bytes) -> EngineResponse:
    response = connection.send(head, body)
    try:
        await response.wait_for_head()
    except BaseException:
        response.close()
        raise
    return response


def _request_head(
    address: Address,
    method: str,
    target: str,
    headers: Iterable[tuple[bytes, bytes]],
    length: int,
) -> bytes:
    host, port = address
    name = f"[{host}]" if ":" in host else host
    parts = [f"{method} {target} HTTP/1.1\r\nhost: {name}:{port}\r\n".encode()]
    for key, value in headers:
        parts += (key, b": ", value, b"\r\n")
    parts.append(b"content-length: %d\r\n\r\n" % length)
    return b"".join(parts)

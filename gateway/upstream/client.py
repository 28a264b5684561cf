"""HTTP/1.1 to engines over kept connections, made for many small chunks and few allocations."""

import asyncio
import socket
import time
from collections.abc import Iterable

from gateway.errors import Reason, UpstreamFailed
from gateway.upstream.connection import Address, Connection, StaleConnection
from gateway.upstream.response import EngineResponse

KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Probes that find a dead node under an answer that is silent for minutes."""


class UpstreamClient:
    """The connections to all engines; whoever makes it must `close()` it.

    Idle connections are closed after `idle_s` (to one and a third of it) seconds, well before the
    engine would, and at most `max_idle` of them are kept per engine.
    """

    def __init__(
        self, *, connect_timeout_s: float = 5.0, idle_s: float = 15.0, max_idle: int = 256
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._idle: dict[Address, list[Connection]] = {}
        self._all: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def request(
        self,
        address: Address,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes = b"",
    ) -> EngineResponse:
        """Send a request and wait for the head of its answer, whose owner must `close()` it.

        `headers` must hold no `host` and no `content-length`, and only what HTTP allows.
        A kept connection that turns out closed is replaced by a fresh one, once.

        Raises:
            UpstreamFailed: there is no such engine, or it sent no valid answer.
        """
        head = _request_head(address, method, target, headers, len(body))
        connection = self._take_idle(address)
        if connection is not None:
            try:
                return await _exchange(connection, head, body)
            except StaleConnection:
                pass
        began_s = time.perf_counter()
        connection = await self._connect(address)
        connect_s = time.perf_counter() - began_s
        response = await _exchange(connection, head, body)
        response.connect_s = connect_s
        return response

    def drop(self, address: Address) -> None:
        """Drop all connections to an engine that is stuck, as who waits for it is told."""
        for connection in [c for c in self._all if c.address == address]:
            connection.abort(UpstreamFailed("The engine has stopped answering.", Reason.STUCK))

    async def close(self) -> None:
        """Drop all connections, also those in use."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        connections = list(self._all)
        for connection in connections:
            connection.abort()
        if connections:
            await asyncio.wait([c.closed for c in connections])

    async def _connect(self, address: Address) -> Connection:
        if self._is_closed:
            raise UpstreamFailed("The gateway is shutting down.", Reason.CLOSING)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                transport, connection = await loop.create_connection(
                    lambda: Connection(address, self._release, self._forget), *address
                )
            _keep_alive(transport.get_extra_info("socket"))
        except (OSError, UnicodeError):  # of which `TimeoutError` is one
            raise UpstreamFailed("The engine could not be reached.", Reason.UNREACHABLE) from None
        self._all.add(connection)
        return connection

    def _take_idle(self, address: Address) -> Connection | None:
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    def _release(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.address, [])
        if self._is_closed or len(idle) >= self._max_idle:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(self._idle_s / 3, self._close_idle)

    def _forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        idle = self._idle.get(connection.address)
        if idle and connection in idle:
            idle.remove(connection)

    def _close_idle(self) -> None:
        """Close what has been idle for long; runs only while anything is idle."""
        loop = asyncio.get_running_loop()
        limit_s = loop.time() - self._idle_s
        for address, idle in list(self._idle.items()):
            for connection in [c for c in idle if c.idle_since_s <= limit_s]:
                idle.remove(connection)
                connection.abort()
            if not idle:
                del self._idle[address]
        self._sweep = loop.call_later(self._idle_s / 3, self._close_idle) if self._idle else None


async def _exchange(connection: Connection, head: bytes, body: bytes) -> EngineResponse:
    response = connection.send(head, body)
    try:
        await response.begin()
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


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if option := getattr(socket, name, None):  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

"""uvicorn embedded in a process that is not its own, with a protocol that can reset connections.

uvicorn documents neither its `Server`'s parts nor its protocols. An engine serves without them, but
stops less promptly, and a simulated engine cannot reset a connection.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Iterator
from typing import Any

import uvicorn

from deployments.serve_internals.fallback import GONE, warn_once

RESET_CONNECTION = "gateway.reset_connection"
"""The ASGI extension that resets a request's connection: call `now`."""
GRACE_S = 1
"""Time that open connections have left when the server stops; a drain came before."""

logger = logging.getLogger(__name__)


def http_protocol() -> Any:  # noqa: ANN401 - uvicorn takes a class or a name
    """uvicorn's HTTP protocol with the extension `RESET_CONNECTION`, or its default one."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError as error:
        consequence = "simulated engines cannot reset connections"
        warn_once("uvicorn's HttpToolsProtocol", consequence, repr(error))
        return "auto"

    class ResettableProtocol(HttpToolsProtocol):
        """uvicorn's protocol, which lets the application reset its connection."""

        def on_message_begin(self) -> None:
            super().on_message_begin()
            scope = getattr(self, "scope", None)
            if scope is not None:
                scope["extensions"] = {RESET_CONNECTION: {"now": self._reset}}

        def _reset(self) -> None:
            """Reset the connection, as the death of a machine would."""
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    return ResettableProtocol


class EmbeddedServer(uvicorn.Server):
    """uvicorn in a process whose signals and exit are not its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process's owner."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close idle connections, reset the others after `GRACE_S`, and await every task."""
        timer = asyncio.get_running_loop().call_later(GRACE_S, self.close)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()
            self.close()
            # uvicorn cancels tasks that ignore a disconnect, and forgets them.
            await asyncio.gather(*self._tasks(), return_exceptions=True)

    def close(self) -> None:
        """Stop listening and break every connection, so that routers try another replica."""
        for server in getattr(self, "servers", ()):  # set once it listens
            server.close()
        try:
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        except GONE as error:
            warn_once("uvicorn's list of connections", "they end when they are idle", repr(error))

    def _tasks(self) -> list[Awaitable[None]]:
        try:
            return list(self.server_state.tasks)
        except GONE as error:
            warn_once("uvicorn's list of tasks", "some may outlive the server", repr(error))
            return []

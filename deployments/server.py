"""The HTTP server inside a router's replica: uvicorn, as Serve starts it, but for two things.

Inference requests take a shortcut to the gateway (`deployments.shortcut`).

And uvicorn writes the head of a reply by itself, which uvloop (from 0.22 on) sends at once. A
stream that begins with its first event would cost two packets where one will do, and whoever reads
them, HAProxy first of all, would be woken twice.
"""

import asyncio
from functools import cache
from typing import Any, cast

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployments.shortcut import shortened
from gateway.asgi import App
from gateway.http.app import GatewayApp

BY_DEFAULT = "auto"
"""The name by which servers find their protocol that are told of none, as Serve's are."""
HEAD, INTERIM = b"HTTP/1.1 ", b"HTTP/1.1 1"
"""How replies begin, and how answers that come before them, for which clients wait."""


def serve_directly(gateway: GatewayApp) -> None:
    """Have the server that Serve starts in this process take inference requests to `gateway`."""

    @cache
    def shortened_once(serve: App) -> App:
        return shortened(serve, gateway)

    class Protocol(HttpToolsProtocol):
        """uvicorn's, with another application and another transport."""

        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as uvicorn has it
            super().__init__(*args, **options)
            self.app = shortened_once(self.app)

        def connection_made(  # type: ignore[override] # as uvicorn has it
            self, transport: asyncio.Transport
        ) -> None:
            """Take the transport from asyncio."""
            super().connection_made(cast("asyncio.Transport", Gathering(transport, self.loop)))

    HTTP_PROTOCOLS[BY_DEFAULT] = cast("str", Protocol)  # it takes a class as well


class Gathering:
    """A transport that holds a head back until more is written, or its turn of the loop ends."""

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> object:
        """All else is the transport's own."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, or hold back."""
        if self._head:
            self._transport.writelines((self._head, data))
            self._head = b""
        elif data.startswith(HEAD) and not data.startswith(INTERIM):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Write what is held back, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)

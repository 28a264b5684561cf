"""HTTP protocol of a router's replica: uvicorn's, as Serve starts it, with four changes.

1. Inference requests take the direct way to the gateway (`direct_ingress`).
2. The head of a response is sent together with the first bytes of its body (`head_coalescing`).
3. HTTP/1.0 gets no chunks, which it does not know (RFC 9112, 6.1): an answer without a length ends
   with its connection. HAProxy passes the version on, and the chunks back.
4. Requests to switch to another protocol, WebSocket above all, are answered as if they did not ask,
   and requests that cannot be parsed in the shape of all other errors.
"""

import asyncio
from functools import cache
from typing import Any, cast

from deployments.serve_internals.direct_ingress import CONSEQUENCE, with_direct_ingress
from deployments.serve_internals.fallback import GONE, warn_once
from deployments.serve_internals.head_coalescing import HeadCoalescingTransport
from gateway.asgi import App, Message
from gateway.errors.request import InvalidRequest
from gateway.http.app import GatewayApp

DEFAULT_PROTOCOL = "auto"
"""Name of the protocol that servers use by default, such as Serve's."""


def install_router_protocol(gateway: GatewayApp) -> None:
    """Have the server that Serve starts in this process send inference requests to `gateway`.

    If this version of uvicorn lacks a name that this needs, its own protocol stays.
    """
    try:
        from uvicorn.config import HTTP_PROTOCOLS

        if DEFAULT_PROTOCOL not in HTTP_PROTOCOLS:
            raise KeyError(DEFAULT_PROTOCOL)
        HTTP_PROTOCOLS[DEFAULT_PROTOCOL] = _router_protocol(gateway)
    except GONE as error:
        warn_once("uvicorn's HTTP protocol", CONSEQUENCE, repr(error))


def _router_protocol(gateway: GatewayApp) -> Any:  # noqa: ANN401 - uvicorn takes a class, too
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    @cache
    def with_direct_ingress_once(serve_app: App) -> App:
        return with_direct_ingress(serve_app, gateway)

    class RouterProtocol(PlainHttp, HttpToolsProtocol):
        """uvicorn's protocol, with another application and another transport.

        If an attribute is gone, a connection is served as uvicorn does it, and never fails.
        """

        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as uvicorn has it
            super().__init__(*args, **options)
            try:
                self.app = with_direct_ingress_once(self.app)
            except GONE as error:
                warn_once("the application of uvicorn's protocol", CONSEQUENCE, repr(error))

        def connection_made(  # type: ignore[override] # as uvicorn has it
            self, transport: asyncio.Transport
        ) -> None:
            """Wrap the transport (called by asyncio)."""
            loop = getattr(self, "loop", None) or asyncio.get_running_loop()
            coalescing = HeadCoalescingTransport(transport, loop)
            super().connection_made(cast("asyncio.Transport", coalescing))

    return RouterProtocol


class PlainHttp:
    """Mixin for uvicorn's protocol: no upgrades, no chunks for HTTP/1.0, and errors as JSON."""

    cycle: Any
    parser: Any
    scope: Any
    transport: Any

    def on_headers_complete(self) -> None:
        """Begin a request (called by the parser)."""
        super().on_headers_complete()  # type: ignore[misc]
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser reads no further
        if self.scope["http_version"] == "1.0":
            end_by_close(self.cycle)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP (called by uvicorn)."""
        self.transport.write(response_to_invalid(msg))
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """A client's mistake needs no line in the log."""


def response_to_invalid(message: str) -> bytes:
    """Response to a request that cannot be parsed."""
    body = InvalidRequest(message).body()
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def end_by_close(cycle: Any) -> None:  # noqa: ANN401 - uvicorn's cycle of a request
    """Have a response written without chunks; the server closes an HTTP/1.0 connection anyway."""
    send = cycle.send
    cycle.chunked_encoding = False

    async def send_unframed(message: Message) -> None:
        # uvicorn compares the length to what it was told, which was nothing.
        cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = send_unframed

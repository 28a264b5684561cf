"""ASGI for an engine's server without a framework: headers, bodies, responses, disconnects."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from typing import Any

from gateway.asgi import Receive, Scope, Send
from gateway.errors.gateway_error import GatewayError
from gateway.telemetry.dispatch import DISPATCH, Dispatch

Headers = Iterable[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> bytes | None:
    """Value of a request header, the first of several; `name` is in lower case."""
    return next((value for each, value in scope["headers"] if each == name), None)


def dispatch_of(scope: Scope) -> Dispatch | None:
    """The router's `Dispatch` in the request; None if it has none, or it cannot be decoded."""
    value = header(scope, DISPATCH)
    if value is not None:
        with contextlib.suppress(ValueError):
            return Dispatch.decode(value)
    return None


async def accept_lifespan(receive: Receive, send: Send) -> None:
    """Serve the `lifespan` scope for an application with nothing to start or stop."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def read_body(receive: Receive) -> bytes | None:
    """The request's whole body, or None if the client left before its end."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, and cancel it if the client leaves; the request's body must have been read."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})
    if not working.cancelled():
        working.result()


async def send_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """Send a whole response whose body is JSON."""
    length = b"%d" % len(body)
    every = [(b"content-type", b"application/json"), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": every})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: GatewayError, headers: Headers = ()) -> None:
    """Send an error in OpenAI's shape."""
    await send_json(send, error.status, error.body(), [*error.headers, *headers])


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

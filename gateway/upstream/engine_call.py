"""Calls to engines: an API request with the gateway's key and headers, and `/tokenize`."""

import asyncio

import msgspec

from gateway.asgi import Headers
from gateway.errors.upstream import DIED, DRAINING, Reason, UpstreamFailed
from gateway.routing.fleet import Replica
from gateway.upstream.client import UpstreamClient
from gateway.upstream.headers import engine_headers
from gateway.upstream.response import EngineResponse

BUFFER_LIMIT = 1 << 20
"""Bytes of a response without streaming that are buffered before any are forwarded."""
TOKENIZE = "/tokenize"
TOKENIZE_TIMEOUT_S = 10.0
TOKENIZE_LIMIT = 64 << 20
"""Most bytes of a `/tokenize` response, enough for millions of tokens."""


class _TokenizeResponse(msgspec.Struct):
    """Response of `/tokenize`."""

    tokens: list[int]


class EngineCall(msgspec.Struct, frozen=True):
    """Request to an engine."""

    path: str
    headers: Headers
    """The client's headers, complete."""
    body: bytes
    request_id: bytes
    dispatch_headers: Headers
    """Headers from the router itself."""


class EngineClient:
    """Sends calls to engines."""

    def __init__(self, upstream: UpstreamClient) -> None:
        self._upstream = upstream

    async def send(self, call: EngineCall, replica: Replica) -> EngineResponse:
        """Send `call` to `replica`; return its response, which the caller must `close()`.

        Raises:
            UpstreamFailed: the engine did not respond, drains or rejects the gateway's key;
                another replica may respond.
        """
        metadata = replica.metadata
        headers = engine_headers(call.headers, metadata.key, call.request_id)
        headers += call.dispatch_headers
        response = await self._upstream.request(
            replica.address, "POST", call.path, headers, call.body
        )
        if response.status == 503 and DRAINING in response.headers:
            response.close()
            raise UpstreamFailed("The engine is shutting down.", Reason.DRAINING)
        if response.status == 503 and DIED in response.headers:
            response.close()
            raise UpstreamFailed("The engine has died.", Reason.DIED)
        if response.status == 401:
            response.close()
            # The client's own key is never sent to engines: this is not the client's mistake.
            raise UpstreamFailed("The engine rejected the gateway's key.", Reason.KEY)
        return response

    async def tokenize(self, call: EngineCall, replica: Replica) -> list[int] | None:
        """Return the token ids of the prompt in a `/tokenize` call.

        None if the engine lacks the route or rejects the call.

        Raises:
            UpstreamFailed: the engine did not respond.
        """
        if TOKENIZE not in replica.metadata.facts.routes:
            return None
        try:
            async with asyncio.timeout(TOKENIZE_TIMEOUT_S):
                response = await self.send(call, replica)
                try:
                    body = await read_all(response, TOKENIZE_LIMIT)
                finally:
                    response.close()
        except TimeoutError:
            raise UpstreamFailed("The engine does not respond.", Reason.SILENT) from None
        if response.status >= 500:
            raise UpstreamFailed("The engine responded with a server error.", Reason.ANSWERED_5XX)
        return (
            msgspec.json.decode(body, type=_TokenizeResponse).tokens
            if response.status == 200
            else None
        )

    async def close(self) -> None:
        """Abort all connections to engines."""
        await self._upstream.close()


async def read_all(response: EngineResponse, limit: int = BUFFER_LIMIT) -> bytes:
    """Read a response to its end, or until there are more than `limit` bytes.

    Raises:
        UpstreamFailed: the response broke off.
    """
    chunks: list[bytes] = []
    size = 0
    while size <= limit:
        chunks.append(await response.read())
        size += len(chunks[-1])
        if response.is_finished:
            break
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)

"""Calls to engines, and what an answer is made into for its client: bytes, as they come."""

import asyncio

import msgspec

from gateway.asgi import Headers
from gateway.errors import DRAINING, Reason, UpstreamFailed
from gateway.routing.fleet import Replica
from gateway.upstream.client import UpstreamClient
from gateway.upstream.headers import to_engine
from gateway.upstream.response import EngineResponse

WHOLE_LIMIT = 1 << 20
"""Bytes of an answer without streaming that are waited for before any of it is passed on."""
TOKENIZE = "/tokenize"
TOKENIZE_TIMEOUT_S = 10.0
TOKENIZE_LIMIT = 64 << 20
"""Bytes of what an engine says of a prompt's tokens: millions of them."""


class _Tokens(msgspec.Struct):
    """What `/tokenize` answers."""

    tokens: list[int]


class EngineCall(msgspec.Struct, frozen=True):
    """A request as it goes to engines."""

    path: str
    headers: Headers
    """The client's, all of them."""
    body: bytes
    request_id: bytes
    dispatch: Headers
    """What the router itself has to say to the engine."""


class EngineClient:
    """Carries calls to engines."""

    def __init__(self, upstream: UpstreamClient) -> None:
        self._upstream = upstream

    async def open(self, call: EngineCall, replica: Replica) -> EngineResponse:
        """Send `call` to `replica` and wait for its answer, whose owner must `close()` it.

        Raises:
            UpstreamFailed: the engine gave no answer, or not to us; another one may.
        """
        metadata = replica.metadata
        headers = to_engine(call.headers, metadata.key, call.request_id)
        headers += call.dispatch
        response = await self._upstream.request(
            replica.address, "POST", call.path, headers, call.body
        )
        if response.status == 503 and DRAINING in response.headers:
            response.close()
            raise UpstreamFailed("The engine is shutting down.", Reason.DRAINING)
        if response.status == 401:
            response.close()
            # The client's own key never gets here, so this is not the client's mistake.
            raise UpstreamFailed("The engine does not accept the gateway's key.", Reason.KEY)
        return response

    async def tokenize(self, call: EngineCall, replica: Replica) -> list[int] | None:
        """The tokens of a prompt, as `/tokenize` takes it; None where they cannot be told.

        Raises:
            UpstreamFailed: the engine gave no answer.
        """
        if TOKENIZE not in replica.metadata.facts.routes:
            return None
        try:
            async with asyncio.timeout(TOKENIZE_TIMEOUT_S):
                response = await self.open(call, replica)
                try:
                    answer = await read_whole(response, TOKENIZE_LIMIT)
                finally:
                    response.close()
        except TimeoutError:
            raise UpstreamFailed("The engine does not answer.", Reason.SILENT) from None
        if response.status >= 500:
            raise UpstreamFailed("The engine cannot answer.", Reason.ANSWERED_5XX)
        return msgspec.json.decode(answer, type=_Tokens).tokens if response.status == 200 else None

    async def close(self) -> None:
        """Drop all connections to engines."""
        await self._upstream.close()


async def read_whole(response: EngineResponse, limit: int = WHOLE_LIMIT) -> bytes:
    """All of an answer, or more than `limit` bytes of it.

    Raises:
        UpstreamFailed: it broke off; nothing of it is of use.
    """
    chunks: list[bytes] = []
    size = 0
    while size <= limit:
        chunks.append(await response.read())
        size += len(chunks[-1])
        if response.is_finished:
            break
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)

"""From one engine to one client: status, headers and bytes, as they come."""

import logging
import time

import msgspec

from gateway.errors import DRAINING, UpstreamFailed
from gateway.relay.asgi import Headers
from gateway.relay.headers import to_client, to_engine
from gateway.relay.reply import Reply
from gateway.relay.response import Response
from gateway.relay.sse import WholeEvents, error_event
from gateway.relay.upstream import Upstream
from gateway.routing.fleet import Replica

SHUN_S = 5.0
"""How long others are preferred to a replica that could not be reached."""

logger = logging.getLogger(__name__)


class Call(msgspec.Struct, frozen=True):
    """A request as it goes to engines."""

    path: str
    headers: Headers
    """The client's, all of them."""
    body: bytes
    request_id: bytes
    dispatch: Headers
    """What the router itself has to say to the engine."""


class Relay:
    """Carries calls to engines, and their answers back."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def carry(self, call: Call, replica: Replica, reply: Reply) -> None:
        """Send `call` to `replica` and its answer to the client.

        Raises:
            UpstreamFailed: the engine gave no answer (`reply` has not begun: another replica may
                be tried), or one that broke off and whose end cannot be told within HTTP.
        """
        response = None
        try:
            response = await self._open(call, replica)
            await _pass_on(response, call, reply)
        except UpstreamFailed:
            if not reply.has_begun:
                replica.shunned_until_s = time.time() + SHUN_S
            raise
        finally:
            if response is not None:
                response.close()

    async def close(self) -> None:
        """Drop all connections to engines."""
        await self._upstream.close()

    async def _open(self, call: Call, replica: Replica) -> Response:
        metadata = replica.metadata
        headers = to_engine(call.headers, metadata.key, call.request_id)
        headers += call.dispatch
        response = await self._upstream.request(
            replica.address, "POST", call.path, headers, call.body
        )
        if response.status == 503 and DRAINING in response.headers:
            response.close()
            raise UpstreamFailed("The engine is shutting down.")
        if response.status == 401:
            response.close()
            # The client's own key never gets here, so this is not the client's mistake.
            raise UpstreamFailed("The engine does not accept the gateway's key.")
        return response


async def _pass_on(response: Response, call: Call, reply: Reply) -> None:
    is_stream = False
    for name, value in response.headers:
        if name == b"content-type":
            is_stream = value.startswith(b"text/event-stream")
    await reply.begin(response.status, to_client(response.headers))
    if is_stream:
        await _pass_events(response, call, reply)
    else:
        await _pass_bytes(response, reply)


async def _pass_bytes(response: Response, reply: Reply) -> None:
    chunk = await response.read()
    while not response.is_finished:
        await reply.part(chunk)
        chunk = await response.read()
    await reply.finish(chunk)


async def _pass_events(response: Response, call: Call, reply: Reply) -> None:
    events = WholeEvents()
    last = b""
    try:
        chunk = events.feed(await response.read())
        while not response.is_finished:
            if chunk:
                await reply.part(chunk)
                last = chunk
            chunk = events.feed(await response.read())
        chunk += events.flush()
    except UpstreamFailed as error:
        logger.warning("request %s: its stream broke: %s", call.request_id.decode(), error)
        chunk = events.cut() + error_event(error, call.path, last)
    await reply.finish(chunk)

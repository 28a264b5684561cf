"""Passes requests on to State, if the gateway has one."""

import asyncio

from gateway.asgi import Message, Receive, Scope, has_body
from gateway.config.state_paths import BATCH_CREATIONS
from gateway.errors.gateway_error import GatewayError
from gateway.errors.state import StateNotConfigured
from gateway.serving.client_identity import identity_in
from gateway.serving.client_response import ClientResponse
from gateway.serving.drain import Drain
from gateway.serving.route_access import check_batch_creation
from gateway.serving.state_client import StateClient
from gateway.upstream.headers import CONNECTION_CLOSE

REST_BYTES = 64 * 1024
"""Bytes of a body that are read before an error, so that its connection can be used again."""
REST_S = 1.0
"""Time for them."""


class StateForwarder:
    """Has State answer a request; `client`: None where the gateway's `args` have no `state`."""

    def __init__(self, client: StateClient | None, drain: Drain) -> None:
        self._client = client
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, response: ClientResponse) -> None:
        """Answer a request whose path is one of `gateway.config.state_paths`.

        Raises:
            GatewayError: there is no State, or it is away; or the gateway stops.
            ClientDisconnected: the client has left.
        """
        body = _IncomingBody(receive, is_there=has_body(scope))
        try:
            await self._forward(scope, body.receive, response)
        except GatewayError as error:
            if not await body.is_over() and CONNECTION_CLOSE not in error.headers:
                response.annotate([CONNECTION_CLOSE])
            raise

    async def _forward(self, scope: Scope, receive: Receive, response: ClientResponse) -> None:
        if self._client is None:
            raise StateNotConfigured.at(scope["method"], scope["path"])
        if scope["method"] == "POST" and scope["path"] in BATCH_CREATIONS:
            check_batch_creation(identity_in(scope))
        with self._drain.request():
            await self._client.forward(scope, receive, response)


class _IncomingBody:
    """The body of a request, and whether all of it has come."""

    def __init__(self, receive: Receive, *, is_there: bool) -> None:
        self._receive = receive
        self._is_over = not is_there

    async def receive(self) -> Message:
        """The next message of the request."""
        message = await self._receive()
        if not message.get("more_body", False):
            self._is_over = True
        return message

    async def is_over(self) -> bool:
        """Whether all of it has come; what is left is read if that is little, and comes soon.

        A connection that is closed on what was not read may lose the answer, too.
        """
        left = REST_BYTES
        try:
            async with asyncio.timeout(REST_S):
                while not self._is_over and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass
        return self._is_over

"""Passes requests on to State, if the gateway has one."""

from gateway.asgi import Receive, Scope
from gateway.config.state_paths import BATCH_CREATIONS
from gateway.errors.state import StateNotConfigured
from gateway.serving.client_identity import identity_in
from gateway.serving.client_response import ClientResponse
from gateway.serving.drain import Drain
from gateway.serving.route_access import check_batch_creation
from gateway.serving.state_client import StateClient


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
        if self._client is None:
            raise StateNotConfigured.at(scope["method"], scope["path"])
        if scope["method"] == "POST" and scope["path"] in BATCH_CREATIONS:
            check_batch_creation(identity_in(scope))
        with self._drain.request():
            await self._client.forward(scope, receive, response)

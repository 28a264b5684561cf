"""Routes that bypass FastAPI: inference, and what State answers."""

from collections.abc import Awaitable

from gateway.asgi import Receive, Scope, fields_of
from gateway.config.route_paths import ROUTES
from gateway.config.state_paths import LISTS, STORED_CHATS, is_state_path
from gateway.errors.gateway_error import GatewayError
from gateway.serving.client_response import ClientResponse
from gateway.serving.handler import InferenceHandler
from gateway.serving.state_forwarder import StateForwarder


class DirectRoutes:
    """Hands each request to its handler."""

    def __init__(self, inference: InferenceHandler, state: StateForwarder) -> None:
        self._inference = inference
        self._state = state

    def answer(
        self, scope: Scope, receive: Receive, response: ClientResponse, request_id: bytes
    ) -> Awaitable[None] | None:
        """Answer a request; None if its route is none of these."""
        path = scope["path"]
        if path in ROUTES:
            if scope["method"] in LISTS and path == STORED_CHATS and not _is_upgrade(scope):
                return self._state(scope, receive, response)
            return self._inference(scope, receive, response, request_id)
        return self._state(scope, receive, response) if is_state_path(path) else None

    def record_refusal(self, scope: Scope, response: ClientResponse, error: GatewayError) -> None:
        """Record a request that is not let in, if it is one of inference."""
        if scope["path"] in ROUTES:
            self._inference.record_refusal(scope, response, error)


def _is_upgrade(scope: Scope) -> bool:
    """Whether a request asks for another protocol, such as WebSocket."""
    return b"upgrade" in fields_of(scope)

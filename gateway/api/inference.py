"""The one handler of all inference routes; pure ASGI, because every request pays for it."""

from collections.abc import Callable, Collection
from typing import Protocol

from gateway.api.body import Limits, read_body
from gateway.api.disconnect import UntilDisconnect
from gateway.api.routes import ROUTES, parse_head
from gateway.errors import MethodNotAllowed, ModelUnavailable, UnsupportedRoute
from gateway.relay.asgi import Headers, Receive, Scope
from gateway.relay.relay import Call, Relay
from gateway.relay.reply import Reply
from gateway.routing.fleet import Fleet, Model, ModelState, Replica

ALLOW = "POST, OPTIONS"


class Policy(Protocol):
    """Which replica takes a request."""

    def choose(self, candidates: Collection[Replica]) -> Replica:
        """One of `candidates`, which is not empty."""


class Inference:
    """Takes a request, finds its model, chooses a replica and relays."""

    def __init__(
        self,
        fleet: Fleet,
        policy: Policy,
        relay: Relay,
        limits: Limits,
        wake: Callable[[Model], None],
    ) -> None:
        self._fleet = fleet
        self._policy = policy
        self._relay = relay
        self._limits = limits
        self._wake = wake

    async def __call__(
        self, scope: Scope, receive: Receive, reply: Reply, request_id: bytes
    ) -> None:
        """Answer the request in `scope`, whose path must be one of `gateway.api.routes`.

        Raises:
            GatewayError: `reply` has not begun; or `UpstreamFailed` in the middle of an answer.
            ClientGone: nobody waits for an answer any more.
        """
        path: str = scope["path"]
        if scope["method"] != "POST":
            await _answer_other_method(scope, reply)
            return
        headers: Headers = scope["headers"]
        content_length = content_type = None
        for name, value in headers:
            if name == b"content-length":
                content_length = value
            elif name == b"content-type":
                content_type = value
        body = await read_body(receive, content_length, self._limits)
        head = parse_head(path, body, content_type or b"")
        replica = self._choose(self._fleet.model(head.model), path)
        call = Call(path, headers, body, request_id)
        async with UntilDisconnect(receive):
            await self._relay.carry(call, replica, reply)

    def _choose(self, model: Model, path: str) -> Replica:
        if not model.replicas:
            if model.state is ModelState.SCALED_TO_ZERO:
                self._wake(model)
            raise ModelUnavailable(
                f"The model `{model.name}` is {model.condition}: {model.reason}",
                model.retry_after_s,
            )
        replica = self._policy.choose(model.replicas.values())
        routes = replica.metadata.facts.routes
        if path not in routes:
            served = ", ".join(route for route in routes if route in ROUTES)
            raise UnsupportedRoute(
                f"The model `{model.name}` does not serve {path}; it serves {served}."
            )
        return replica


async def _answer_other_method(scope: Scope, reply: Reply) -> None:
    if scope["method"] != "OPTIONS":
        raise MethodNotAllowed(
            f"Not allowed to {scope['method']} on {scope['path']}. (HINT: Use POST.)", ALLOW
        )
    await reply.begin(204, [(b"allow", ALLOW.encode())])
    await reply.finish()

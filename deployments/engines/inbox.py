"""What routers tell an engine, over HTTP."""

import time
from collections.abc import Callable

import msgspec

from deployments.engines.asgi import read_body, send_error, send_json
from gateway.asgi import App, Receive, Scope, Send
from gateway.engine_telemetry.router_demand import RouterDemand
from gateway.errors import InvalidRequest, MethodNotAllowed
from gateway.telemetry import DEMAND_PATH, Demand

_demands = msgspec.json.Decoder(Demand)


class Inbox:
    """An engine's application, and beside it, at `DEMAND_PATH`, what is held back for the engine.

    It comes by PUT, and is no work that a drain would wait for.
    """

    def __init__(self, app: App, now: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._demands = RouterDemand(now)

    @property
    def held(self) -> Demand:
        """What all routers hold back."""
        return self._demands.total

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take in what a router says; leave everything else to the engine."""
        if scope["type"] != "http" or scope["path"] != DEMAND_PATH:
            await self._app(scope, receive, send)
        elif scope["method"] != "PUT":
            method = scope["method"]
            await send_error(send, MethodNotAllowed(f"This path takes PUT, not {method}.", "PUT"))
        else:
            await self._hear(receive, send)

    async def _hear(self, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        if body is None:
            return
        try:
            self._demands.hear(_demands.decode(body))
        except msgspec.MsgspecError as error:
            await send_error(send, InvalidRequest(f"This is no demand: {error}."))
        else:
            await send_json(send, 200, b"{}")

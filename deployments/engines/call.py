"""The HTTP request in which an engine is called: known to all that is done for it."""

from contextvars import ContextVar
from dataclasses import dataclass

from deployments.engines.asgi import dispatch_of
from gateway.asgi import App, Receive, Scope, Send
from gateway.telemetry import Dispatch


@dataclass(slots=True)
class Call:
    """The HTTP request in which an engine is called, and what a router says of it."""

    dispatch: Dispatch | None
    _is_taken: bool = False
    _name: str = ""

    def take(self) -> Dispatch | None:
        """The dispatch, for the first call in the request: it speaks of the first prompt."""
        dispatch = None if self._is_taken else self.dispatch
        self._is_taken = True
        return dispatch

    def target(self, name: str) -> str:
        """The model or adapter that answers a client who asks for `name`."""
        if self.dispatch is None or not self.dispatch.model:
            return name
        self._name = name
        return self.dispatch.model

    def shown(self, target: str) -> str:
        """The name under which a reply shows the model or adapter that answers: the client's."""
        return self._name or target


_call: ContextVar[Call | None] = ContextVar("engine-call", default=None)


def current_call() -> Call | None:
    """The request that is being worked on here."""
    return _call.get()


def inside_calls(app: App) -> App:
    """The application, whose requests are known to all that is done for them."""

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        token = _call.set(Call(dispatch_of(scope)))
        try:
            await app(scope, receive, send)
        finally:
            _call.reset(token)

    return known

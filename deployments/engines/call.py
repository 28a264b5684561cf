"""Context of the HTTP request in which an engine is called, for everything done on its behalf."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field

from deployments.engines.asgi import dispatch_of
from gateway.asgi import App, Receive, Scope, Send
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.engine_telemetry.usage_meter import CallUsage
from gateway.telemetry.dispatch import Dispatch


@dataclass(frozen=True, slots=True)
class GrammarFields:
    """Fields of a request from which an engine makes the grammar that its answer must follow.

    As the request's API calls them; None for those that it does not have.
    """

    format: str | None = None
    """The field with the format of the answer."""
    tools: str | None = None
    """The field with the tools that the answer may call."""


@dataclass(slots=True)
class CallContext:
    """The HTTP request in which an engine is called, and its router's `Dispatch`."""

    dispatch: Dispatch | None
    usage: CallUsage | None = None
    """What it takes of the engine, if it is anybody's."""
    has_reached_engine: bool = False
    """Whether the engine has accepted it, or the first of its prompts: it is well-formed."""
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with `has_reached_engine`."""
    grammar_fields: GrammarFields = field(default_factory=GrammarFields)
    """Fields that are named where its grammar is refused."""
    has_sequence: bool = False
    """Whether the engine has been given its first sequence."""
    _is_claimed: bool = False
    _client_name: str = ""

    @property
    def cache_scope(self) -> str | None:
        """Scope of the caches that it may use, "" for all; None if nobody is authenticated."""
        origin = self.dispatch.origin if self.dispatch else None
        return None if origin is None else origin.cache_scope

    def record_accepted(self) -> None:
        """Note that the engine has accepted the request."""
        self.has_reached_engine = True
        self.accepted.set()

    def claim_dispatch(self) -> Dispatch | None:
        """The dispatch, for the first engine call of the request: it describes the first prompt."""
        dispatch = None if self._is_claimed else self.dispatch
        self._is_claimed = True
        return dispatch

    def resolve(self, name: str) -> str:
        """The model or adapter that answers a client's request for `name`."""
        if self.dispatch is None or not self.dispatch.model:
            return name
        self._client_name = name
        return self.dispatch.model

    def client_name(self, resolved: str) -> str:
        """The name that responses show for the model or adapter that answers: the client's."""
        return self._client_name or resolved


_context: ContextVar[CallContext | None] = ContextVar("engine-call", default=None)


def current_call() -> CallContext | None:
    """Context of the request that is being worked on here."""
    return _context.get()


def current_usage() -> CallUsage | None:
    """Usage of the request that is being worked on here, if that is anybody's."""
    call = _context.get()
    return None if call is None else call.usage


def call_dispatch(scope: Scope) -> Dispatch | None:
    """The router's `Dispatch` in the request that is being worked on here."""
    call = _context.get()
    return dispatch_of(scope) if call is None else call.dispatch


def with_call_context(app: App, tracker: EngineTracker | None = None) -> App:
    """The application, with a `CallContext` for each request; `tracker` counts what they take."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        dispatch = dispatch_of(scope)
        usage = None if tracker is None else tracker.usage.open_call(dispatch)
        token = _context.set(CallContext(dispatch, usage))
        try:
            await app(scope, receive, send)
        finally:
            _context.reset(token)
            if tracker is not None and usage is not None:
                tracker.usage.close_call(usage)

    return wrapped

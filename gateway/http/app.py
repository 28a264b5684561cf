"""The whole HTTP surface: inference past FastAPI, everything else through it."""

import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from gateway.asgi import App, Message, Receive, Scope, Send
from gateway.errors import GatewayError
from gateway.header_names import REQUEST_ID
from gateway.http.documents import add_docs_page, inference_documents
from gateway.http.errors import handle_errors, internal_error, send_error
from gateway.http.health import health_router
from gateway.http.models import models_router
from gateway.http.operators import operators_router
from gateway.request.routes import ROUTES
from gateway.routing.fleet import Fleet
from gateway.routing.schedulers import Schedulers
from gateway.serving.attempts import RouterContext
from gateway.serving.body import ClientDisconnected
from gateway.serving.client_response import ClientResponse
from gateway.serving.handler import InferenceHandler
from gateway.serving.live_config import LiveConfig
from gateway.serving.request_metrics import RequestMetrics
from gateway.serving.shadow import ShadowTraffic
from gateway.serving.target_resolver import TargetResolver
from gateway.upstream.headers import CLOSE, sound_request_id

BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
"""One of them comes with every body."""

logger = logging.getLogger(__name__)


def create_app(
    fleet: Fleet,
    schedulers: Schedulers,
    context: RouterContext,
    *,
    live_config: LiveConfig,
    request_metrics: RequestMetrics | None = None,
) -> "GatewayApp":
    """The gateway as an ASGI application.

    The application owns the relay in `context` and closes it at its shutdown. What is in
    `live_config` may be changed in place. `request_metrics`: where each request's end is noted.
    """
    request_metrics = request_metrics or RequestMetrics()
    schedulers.log.subscribe(request_metrics.note_finished)
    resolver = TargetResolver(fleet)
    shadows = ShadowTraffic(resolver, context, request_metrics.recorder)
    rest = _everything_else(context, shadows)
    rest.include_router(models_router(fleet, live_config))
    rest.include_router(health_router(fleet))
    rest.include_router(
        operators_router(resolver, schedulers, context.faults, shadows, live_config)
    )
    return GatewayApp(
        rest, InferenceHandler(resolver, context, shadows, live_config, request_metrics)
    )


class GatewayApp:
    """Sends each request to its handler and answers what they raise."""

    def __init__(self, rest: App, inference: InferenceHandler, *, returns_ids: bool = True) -> None:
        self._rest = rest
        self._inference = inference
        self._returns_ids = returns_ids

    def without_ids(self) -> "GatewayApp":
        """The same, behind a server that puts `x-request-id` into every reply by itself."""
        return GatewayApp(self._rest, self._inference, returns_ids=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak ASGI: HTTP, lifespan, and a polite refusal of websockets."""
        kind = scope["type"]
        if kind == "http":
            await self.answer(scope, receive, send)
        elif kind == "websocket":
            await receive()  # its `websocket.connect`
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._rest(scope, receive, send)

    def _dispatch(
        self, scope: Scope, receive: Receive, reply: ClientResponse, request_id: bytes
    ) -> Awaitable[None]:
        if scope["path"] in ROUTES:
            return self._inference(scope, receive, reply, request_id)
        return self._rest(*_for_fastapi(scope, receive, reply))

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer an HTTP request; the status that its client was told, 0 if it has gone before."""
        request_id = _request_id(scope)
        reply = ClientResponse(send, [(REQUEST_ID, request_id)] if self._returns_ids else [])
        try:
            await self._dispatch(scope, receive, reply, request_id)
        except ClientDisconnected:
            pass
        except GatewayError as error:
            if reply.has_begun:
                raise  # the server around us cuts the connection: nothing else tells the client
            await send_error(error, scope["path"], reply)
        except Exception:
            logger.exception("request %s: %s failed", request_id.decode(), scope["path"])
            if not reply.has_begun:
                await send_error(internal_error(), scope["path"], reply)
            elif not reply.has_ended:  # as it has where FastAPI answers before it raises
                raise
        return reply.status


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == REQUEST_ID:
            return sound_request_id(value)
    return sound_request_id(None)


def _everything_else(context: RouterContext, shadows: ShadowTraffic) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await shadows.close()
        await context.cold_starts.close()
        await context.relay.close()

    # FastAPI's own pages load their scripts from the internet.
    app = FastAPI(
        title="ray-llm-gateway",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(inference_documents())
    add_docs_page(app)
    handle_errors(app)
    return app


def _for_fastapi(
    scope: Scope, receive: Receive, reply: ClientResponse
) -> tuple[Scope, Receive, Send]:
    """Adds the headers of `reply`, and answers HEAD as GET without its body.

    A connection on which a body has not been read to its end cannot go on.
    """
    is_head = scope["method"] == "HEAD"
    is_read = not any(name in BODY_HEADERS for name, _ in scope["headers"])

    async def receive_noting() -> Message:
        nonlocal is_read
        message = await receive()
        is_read = not message.get("more_body", False)
        return message

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message["headers"] if is_read else [*message["headers"], CLOSE]
            await reply.begin(message["status"], headers)
            return
        body = b"" if is_head else message.get("body", b"")
        await (reply.part(body) if message.get("more_body") else reply.finish(body))

    return (dict(scope, method="GET") if is_head else scope), receive_noting, send

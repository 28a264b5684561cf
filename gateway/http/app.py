"""ASGI application of the gateway: FastAPI answers what does not bypass it (`DirectRoutes`)."""

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from gateway.asgi import App, BodyWriter, Message, Receive, Scope, Send, fields_of, has_body
from gateway.errors.access import NotThroughProxy
from gateway.errors.gateway_error import GatewayError
from gateway.header_names import ANTHROPIC_REQUEST_ID, OPENAI_VERSION, PROXY_PROOF, REQUEST_ID
from gateway.http.cors import SharedOrigins
from gateway.http.documents import add_docs_page, inference_documents
from gateway.http.errors import (
    SCOPE_REQUEST_ID,
    handle_errors,
    internal_error,
    refuse_websocket,
    send_error,
)
from gateway.rare_warning import RareWarning
from gateway.serving.access import AccessControl
from gateway.serving.body import ClientDisconnected
from gateway.serving.client_response import ClientResponse
from gateway.serving.direct_routes import DirectRoutes
from gateway.serving.trusted_requests import TrustedRequests
from gateway.upstream.headers import CONNECTION_CLOSE, ensure_request_id

API_VERSION = (OPENAI_VERSION, b"2020-10-01")
"""Response header that names the only version of OpenAI's API that there is."""

logger = logging.getLogger(__name__)


def create_app(
    direct: DirectRoutes,
    routers: Iterable[APIRouter],
    on_shutdown: Callable[[], Awaitable[None]],
    access: AccessControl | TrustedRequests,
    shared_origins: Callable[[], SharedOrigins | None] = lambda: None,
    proxy_key: str = "",
) -> "GatewayApp":
    """The gateway as an ASGI application.

    `direct`: the routes that bypass FastAPI. `routers`: all others. `on_shutdown`: called when the
    server shuts down. `access`: decides which requests are let in. `shared_origins`: the web pages
    that may use it now, if any.
    `proxy_key`: if not empty, only requests are answered that carry it, as the gateway's HAProxy
    sends them.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await on_shutdown()

    # FastAPI's own pages load their scripts from the internet.
    other = FastAPI(
        title="ray-llm-gateway",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    add_docs_page(other)
    handle_errors(other)
    for router in (inference_documents(), *routers):
        other.include_router(router)
    return GatewayApp(other, direct, access, shared_origins, proxy_key=proxy_key.encode())


class GatewayApp:
    """Sends each request to its handler, and answers with the errors that they raise."""

    def __init__(
        self,
        rest: App,
        direct: DirectRoutes,
        access: AccessControl | TrustedRequests,
        shared_origins: Callable[[], SharedOrigins | None] = lambda: None,
        *,
        proxy_key: bytes = b"",
        returns_ids: bool = True,
    ) -> None:
        self._rest = rest
        self._direct = direct
        self._access = access
        self._shared_origins = shared_origins
        self._proxy_key = proxy_key
        self._bypasses = RareWarning(logger)
        self._returns_ids = returns_ids

    def without_ids(self) -> "GatewayApp":
        """The same, for a server that puts `x-request-id` into every response by itself."""
        return GatewayApp(
            self._rest,
            self._direct,
            self._access,
            self._shared_origins,
            proxy_key=self._proxy_key,
            returns_ids=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ASGI: HTTP and lifespan; WebSockets are refused."""
        kind = scope["type"]
        if kind == "http":
            await self.answer(scope, receive, send)
        elif kind == "websocket":
            await receive()  # its `websocket.connect`
            await refuse_websocket(scope, send)
        else:
            await self._rest(scope, receive, send)

    def _dispatch(
        self, scope: Scope, receive: Receive, response: ClientResponse, request_id: bytes
    ) -> Awaitable[None]:
        answer = self._direct.answer(scope, receive, response, request_id)
        return self._rest(*_for_fastapi(scope, receive, response)) if answer is None else answer

    async def _admit(self, scope: Scope, response: ClientResponse) -> None:
        try:
            self._check_proof(scope)
            if not self._access.admit_known(scope):
                await self._access.admit(scope)
        except GatewayError as error:
            self._direct.record_refusal(scope, response, error)
            if has_body(scope):  # nobody reads it: strangers would keep connections as they like
                response.annotate([CONNECTION_CLOSE])
            raise

    def _check_proof(self, scope: Scope) -> None:
        if self._proxy_key:
            offered = fields_of(scope).get(PROXY_PROOF, b"")
            if not secrets.compare_digest(offered, self._proxy_key):
                raise self._not_through_proxy(scope)

    def _not_through_proxy(self, scope: Scope) -> NotThroughProxy:
        address = (scope.get("client") or ("an unknown address",))[0]
        self._bypasses.log("refused a request from %s that did not come through HAProxy", address)
        return NotThroughProxy(
            "This port is for the gateway's own proxy. Send the request to the gateway's address."
        )

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, body_writer: BodyWriter | None = None
    ) -> int:
        """Answer an HTTP request; return the status that its client got, 0 if none.

        `body_writer`: writes to the same client as `send`.
        """
        request_id = ensure_request_id(fields_of(scope).get(REQUEST_ID))
        origins = self._shared_origins()
        response = self._response(scope, send, request_id, origins, body_writer)
        try:
            # In one frame with the rest: each event of a stream passes through all of them.
            if origins is None or (allowed := origins.preflight(scope)) is None:
                await self._admit(scope, response)
                await self._dispatch(scope, receive, response, request_id)
            else:
                await response.begin(204, allowed)
                await response.finish()
        except ClientDisconnected:
            pass
        except GatewayError as error:
            if response.has_begun:
                raise  # the server closes the connection, so that the client notices
            await send_error(error, scope, response)
        except Exception:
            logger.exception("request %s: %a failed", request_id.decode(), scope["path"])
            if not response.has_begun:
                await send_error(internal_error(), scope, response)
            elif not response.has_ended:  # as it has where FastAPI answers before it raises
                raise
        return response.status

    def _response(
        self,
        scope: Scope,
        send: Send,
        request_id: bytes,
        origins: SharedOrigins | None,
        body_writer: BodyWriter | None,
    ) -> ClientResponse:
        headers = [(ANTHROPIC_REQUEST_ID, request_id), API_VERSION]
        if self._returns_ids:
            headers.append((REQUEST_ID, request_id))
        if origins is not None:
            headers += origins.headers(scope)
        return ClientResponse(send, headers, request_id=request_id, body_writer=body_writer)


def _for_fastapi(
    scope: Scope, receive: Receive, response: ClientResponse
) -> tuple[Scope, Receive, Send]:
    """Adds the headers of `response`, and answers HEAD as GET without its body.

    A connection on which a body has not been read to its end cannot be reused.
    """
    is_head = scope["method"] == "HEAD"
    is_read = not has_body(scope)

    async def receive_noting() -> Message:
        nonlocal is_read
        message = await receive()
        is_read = not message.get("more_body", False)
        return message

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message["headers"] if is_read else [*message["headers"], CONNECTION_CLOSE]
            await response.begin(message["status"], headers)
            return
        body = b"" if is_head else message.get("body", b"")
        await (response.send_part(body) if message.get("more_body") else response.finish(body))

    noted = dict(scope, method="GET" if is_head else scope["method"])
    noted[SCOPE_REQUEST_ID] = response.request_id
    return noted, receive_noting, send

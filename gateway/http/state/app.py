"""The application of State: all routes that keep something for projects."""

import logging
import re

from fastapi import FastAPI, Request, Response

from gateway.asgi import App, Message, Receive, Scope, Send, fields_of
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import InvalidRequest
from gateway.errors.state import StateDown
from gateway.http.errors import handle_errors, send_error
from gateway.http.state.batches import batches_router
from gateway.http.state.files import StoredFiles, files_router
from gateway.http.state.incoming import IncomingFiles
from gateway.http.state.message_batches import message_batches_router
from gateway.http.state.uploads import ProjectUploads, uploads_router
from gateway.serving.body import ClientDisconnected, read_body
from gateway.serving.client_response import ClientResponse
from gateway.store.database import DatabaseUnavailable
from gateway.store.file_storage import FileMissing, StorageUnavailable
from gateway.store.project_state import ProjectState

MAX_JSON_MB = 32
"""Most megabytes (2**20 bytes) of a body that is no file."""
FILE_PATHS = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")
"""Paths whose routes read their bodies themselves, as they come."""
CLIENT_LEFT = 499

logger = logging.getLogger(__name__)


class StateApp:
    """Answers requests that routers pass on; with 503 until `open`, or while the database is away.

    A request says in its headers whose it is.
    """

    def __init__(self, state: ProjectState | None = None) -> None:
        self._app: App | None = None
        if state is not None:
            self.open(state)

    def open(self, state: ProjectState) -> None:
        """Answer by what is kept there."""
        self._app = _routes(state)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ASGI: HTTP and lifespan."""
        if scope["type"] == "lifespan":
            await _accept_lifespan(receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except GatewayError as error:
            await send_error(error, scope, ClientResponse(send, []))
        except ClientDisconnected:
            return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            raise StateDown("The gateway's storage has not been opened yet. Try again.")
        if not scope["path"].isprintable():  # no such thing can be in the database
            raise InvalidRequest("The path has control characters.")
        if FILE_PATHS.fullmatch(scope["path"]) is None and scope["method"] != "GET":
            length = fields_of(scope).get(b"content-length")
            receive = _whole(await read_body(receive, length, MAX_JSON_MB), receive)
        await self._app(scope, receive, send)


def _routes(state: ProjectState) -> FastAPI:
    """All routes."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    handle_errors(app)
    app.add_exception_handler(DatabaseUnavailable, _answer_unavailable)
    app.add_exception_handler(StorageUnavailable, _answer_unavailable)
    app.add_exception_handler(FileMissing, _answer_lost)
    app.add_exception_handler(ClientDisconnected, _answer_nobody)
    incoming = IncomingFiles(state)
    for router in (
        files_router(StoredFiles(state, incoming)),
        uploads_router(ProjectUploads(state, incoming)),
        batches_router(state),
        message_batches_router(state),
    ):
        app.include_router(router)
    return app


def _whole(body: bytes, receive: Receive) -> Receive:
    """What an application receives whose request's body has been read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _accept_lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _answer_unavailable(_request: Request, error: Exception) -> Response:
    what = "storage of files" if isinstance(error, StorageUnavailable) else "database"
    logger.warning("the %s cannot be used: %s", what, error)
    return _error_response(StateDown(f"The gateway's {what} cannot be reached now. Try again."))


async def _answer_lost(request: Request, _error: Exception) -> Response:
    logger.error("%s: the storage has lost a file that the database has", request.url.path)
    return _error_response(GatewayError("The gateway has lost the content of this file."))


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


def _error_response(error: GatewayError) -> Response:
    response = Response(error.body(), error.status, media_type="application/json")
    response.raw_headers += error.headers
    return response

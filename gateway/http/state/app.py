"""The application of State: all routes that keep something for projects."""

import logging
import re

from fastapi import FastAPI, Request, Response

from gateway.asgi import App, Receive, Scope, Send, fields_of
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import InvalidRequest
from gateway.errors.state import StateDown
from gateway.header_names import PROJECT, REQUEST_ID
from gateway.http.errors import SCOPE_REQUEST_ID, error_response, handle_errors, send_error
from gateway.http.state.batches import batches_router
from gateway.http.state.files import StoredFiles, files_router
from gateway.http.state.incoming import IncomingFiles
from gateway.http.state.kept_answers import kept_answers_routers
from gateway.http.state.message_batches import message_batches_router
from gateway.http.state.uploads import ProjectUploads, uploads_router
from gateway.serving.body import ClientDisconnected, read_body, replayed
from gateway.serving.body_budget import MIB, BodyBudget
from gateway.serving.client_response import ClientResponse
from gateway.store.database import DatabaseUnavailable
from gateway.store.file_storage import FileMissing, StorageUnavailable
from gateway.store.project_state import ProjectState

MAX_JSON_MB = 32
"""Most megabytes (2**20 bytes) of a body that is no file."""
MAX_SMALL_MB = 1
"""The same of those that only name things: whoever reads them looks at each of their fields."""
MAX_INTERNAL_MB = 1024
"""The same of a router's own, which holds no more than a client may send and an engine answers."""
MAX_BODIES_MB = 512
"""Megabytes that clients' bodies may hold together; a project may have a part of them."""
INTERNAL = "/internal/"
"""Beginning of the paths by which routers ask on their own behalf; they pass none on."""
FILE_PATHS = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")
"""Paths whose routes read their bodies themselves, as they come."""
SMALL_PATHS = re.compile(r"/v1/(uploads|batches)(/.*)?")
CLIENT_LEFT = 499

logger = logging.getLogger(__name__)


class StateApp:
    """Answers requests that routers pass on; with 503 until `open`, or while the database is away.

    A request says in its headers whose it is.
    """

    def __init__(self, state: ProjectState | None = None) -> None:
        self._app: App | None = None
        self._bodies = BodyBudget(lambda: MAX_BODIES_MB * MIB)
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
        request_id = fields_of(scope).get(REQUEST_ID, b"")
        scope[SCOPE_REQUEST_ID] = request_id
        try:
            await self._answer(scope, receive, send)
        except GatewayError as error:
            await send_error(error, scope, ClientResponse(send, [], request_id=request_id))
        except ClientDisconnected:
            return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            raise StateDown("The gateway's storage has not been opened yet. Try again.")
        if not scope["path"].isprintable():  # no such thing can be in the database
            raise InvalidRequest("The path has control characters.")
        if b"%00" in scope["query_string"]:
            raise InvalidRequest("The query has a NUL character.")
        if FILE_PATHS.fullmatch(scope["path"]) is not None or scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        fields = fields_of(scope)
        length = fields.get(b"content-length")
        if scope["path"].startswith(INTERNAL):  # routers have budgets of their own
            body = await read_body(receive, length, MAX_INTERNAL_MB)
            await self._app(scope, replayed(body, receive), send)
            return
        is_small = SMALL_PATHS.fullmatch(scope["path"]) is not None
        with self._bodies.open(fields.get(PROJECT, b"")) as held:
            body = await read_body(receive, length, MAX_SMALL_MB if is_small else MAX_JSON_MB, held)
            await self._app(scope, replayed(body, receive), send)


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
        *kept_answers_routers(state),
    ):
        app.include_router(router)
    return app


async def _accept_lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _answer_unavailable(request: Request, error: Exception) -> Response:
    what = "storage of files" if isinstance(error, StorageUnavailable) else "database"
    logger.warning("the %s cannot be used: %s", what, error)
    down = StateDown(f"The gateway's {what} cannot be reached now. Try again.")
    return error_response(request, down)


async def _answer_lost(request: Request, _error: Exception) -> Response:
    logger.error("%s: the storage has lost a file that the database has", request.url.path)
    return error_response(request, GatewayError("The gateway has lost the content of this file."))


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)

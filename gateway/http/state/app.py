"""The application of State: all routes that keep something for projects."""

from fastapi import FastAPI, Request, Response

from gateway.asgi import App
from gateway.errors.state import StateDown
from gateway.http.errors import handle_errors
from gateway.http.state.kept_answers import kept_answers_routers
from gateway.store.database import DatabaseUnavailable
from gateway.store.file_storage import StorageUnavailable
from gateway.store.project_state import ProjectState


def state_app(state: ProjectState) -> App:
    """All routes; a request says in its headers whose it is, and routers alone can send one."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    handle_errors(app)
    for unavailable in (DatabaseUnavailable, StorageUnavailable):
        app.add_exception_handler(unavailable, _answer_unavailable)
    for router in kept_answers_routers(state):
        app.include_router(router)
    return app


async def _answer_unavailable(_request: Request, error: Exception) -> Response:
    what = "storage of files" if isinstance(error, StorageUnavailable) else "database"
    known = StateDown(f"The gateway's {what} cannot be reached. Try again.")
    response = Response(known.body(), known.status, media_type="application/json")
    response.raw_headers += known.headers
    return response

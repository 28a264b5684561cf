"""The admin API as an application, and how Accounts has it answer a request without a socket."""

import contextlib
import logging
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI, Request, Response

from gateway.asgi import App, Headers, Message, Scope
from gateway.errors.administration import AccountsDown
from gateway.errors.request import UnknownRoute
from gateway.http.errors import handle_errors
from gateway.http.organization.admin_keys import admin_keys_router
from gateway.http.organization.api_keys import api_keys_router
from gateway.http.organization.audit_logs import audit_logs_router
from gateway.http.organization.costs import costs_router
from gateway.http.organization.model_permissions import model_permissions_router
from gateway.http.organization.parts import ACTOR, ADMIN_KEY_PREFIX
from gateway.http.organization.projects import projects_router
from gateway.http.organization.rate_limits import rate_limits_router
from gateway.http.organization.service_accounts import service_accounts_router
from gateway.http.organization.spend_alerts import spend_alerts_router
from gateway.http.organization.spend_limits import spend_limits_router
from gateway.http.organization.unsupported import unsupported_router
from gateway.http.organization.usage import usage_router
from gateway.http.organization.users import project_users_router, users_router
from gateway.serving.admin_call import AdminAnswer, AdminCall
from gateway.store.changes import Actor
from gateway.store.database import DatabaseUnavailable
from gateway.store.key_use import PRECISION_S
from gateway.store.organization import Organization

FRAMING = (b"content-length", b"transfer-encoding")
"""Headers that whoever passes the answer on writes anew."""

logger = logging.getLogger(__name__)


class Administration:
    """Answers requests for the admin API, whose senders routers have authenticated."""

    def __init__(self, organization: Organization, currency: str = "usd") -> None:
        self._organization = organization
        self._app: App = organization_app(organization, currency)
        self._noted_s: dict[str, int] = {}
        """When the use of each admin key was noted, in Unix seconds."""

    async def administer(self, call: AdminCall) -> AdminAnswer:
        """Answer one request."""
        path = unquote_to_bytes(call.path).decode(errors="replace")
        if not path.isprintable():  # no such thing can be in the database
            error = UnknownRoute.for_url(call.method, "with control characters")
            return AdminAnswer(status=error.status, body=error.body())
        answer = _CollectedAnswer(call.body)
        try:
            await self._app(_scope(call, path), answer.receive, answer.send)
        except Exception:
            # FastAPI has answered before it raises.
            logger.exception("request %s: %s %s failed", call.request_id, call.method, path[:200])
            if not answer.status:
                raise
        await self._note_use(call.actor)
        return AdminAnswer(
            status=answer.status,
            body=bytes(answer.body),
            headers=tuple(each for each in answer.headers if each[0] not in FRAMING),
        )

    async def _note_use(self, actor: str) -> None:
        """Note that an admin key has been used, once a minute."""
        now_s = self._organization.now_s
        if (
            not actor.startswith(ADMIN_KEY_PREFIX)
            or now_s < self._noted_s.get(actor, 0) + PRECISION_S
        ):
            return
        self._noted_s[actor] = now_s
        with contextlib.suppress(DatabaseUnavailable):
            await self._organization.record_admin_key_use(actor)


def organization_app(organization: Organization, currency: str) -> FastAPI:
    """All routes of the admin API; the scope of each request says who is asking."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    handle_errors(app)
    app.add_exception_handler(DatabaseUnavailable, _answer_unavailable)
    for router in (
        projects_router(organization),
        service_accounts_router(organization),
        api_keys_router(organization),
        users_router(organization),
        project_users_router(organization),
        rate_limits_router(organization),
        model_permissions_router(organization),
        spend_limits_router(organization),
        spend_alerts_router(organization),
        admin_keys_router(organization),
        audit_logs_router(organization),
        usage_router(organization),
        costs_router(organization, currency),
        unsupported_router(),
    ):
        app.include_router(router)
    return app


async def _answer_unavailable(_request: Request, _error: Exception) -> Response:
    error = AccountsDown("The database of the gateway's accounts cannot be reached. Try again.")
    response = Response(error.body(), error.status, media_type="application/json")
    response.raw_headers += error.headers
    return response


class _CollectedAnswer:
    """The other end of the application: gives it the body, and keeps what it answers."""

    def __init__(self, body: bytes) -> None:
        self._parts = [body]
        self.status = 0
        self.headers: Headers = []
        self.body = bytearray()

    async def receive(self) -> Message:
        if not self._parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._parts.pop(), "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
        else:
            self.body += message.get("body", b"")


def _scope(call: AdminCall, path: str) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": path,
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": call.query,
        "headers": [(b"content-type", b"application/json")] if call.body else [],
        ACTOR: Actor(id=call.actor, address=call.address),
    }

"""Sends lines of batches through a router in the same process, on behalf of their projects."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from gateway.asgi import App, Headers, Message, Scope
from gateway.batch.line_caller import LineAnswer, LineCall
from gateway.errors.anthropic import error_body
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import ModelNotFound
from gateway.errors.state import AnswerTooLarge
from gateway.header_names import (
    PRIORITY,
    REQUEST_ID,
    RETRY_AFTER_MS,
    SESSION,
    SHOULD_RETRY,
)
from gateway.identity.client import ClientIdentity
from gateway.serving.client_identity import IDENTITY
from gateway.serving.live_config import LiveConfig
from gateway.serving.model_access import allowed_route
from gateway.serving.route_access import check_route
from gateway.serving.trusted_requests import ProjectIdentities

MAX_ANSWER = 64 << 20
"""Bytes of an answer that are held in memory until its line is written."""
CLIENT = ("batches", 0)
"""Address of the client of lines, where nobody is authenticated."""


class RouterCaller:
    """`LineCaller` over a router that lets in whatever says in its scope whose it is.

    `find`: raises an error where no model or adapter has a name: `ModelNotFound`, or another one if
    it may still become known.
    """

    def __init__(
        self,
        app: App,
        identities: ProjectIdentities,
        live_config: LiveConfig,
        find: Callable[[str], object],
    ) -> None:
        self._app = app
        self._identities = identities
        self._live_config = live_config
        self._find = find

    def refusal(self, project_id: str, path: str, model: str) -> tuple[str, str] | None:
        """Code and message of why no line of a batch would be answered; None if some may be."""
        try:
            identity = self._identities.of(project_id)
            check_route(identity, path, self._live_config.config.auth)
            route = allowed_route(identity, model, b"", self._live_config.names)
            self._check_known(model, route.models)
        except GatewayError as error:
            # What is not known yet, its lines wait for.
            return None if error.status == 503 else (error.code, error.message)
        return None

    def _check_known(self, model: str, targets: Sequence[str]) -> None:
        for name in targets:
            with contextlib.suppress(ModelNotFound):
                self._find(name)
                return
        raise ModelNotFound(model)

    async def call(self, call: LineCall) -> LineAnswer:
        """Have a line answered; cancelled, it leaves the engine at once."""
        try:
            identity = self._identities.of(call.project_id)
        except GatewayError as error:
            return _refused(call, error)
        answer = _LineExchange(call.body)
        await self._app(_scope(call, identity), answer.receive, answer.send)
        if answer.is_too_large:
            return _refused(call, AnswerTooLarge.of(MAX_ANSWER >> 20))
        fields = answer.fields
        return LineAnswer(
            status=answer.status or 500,
            body=bytes(answer.body),
            request_id=call.request_id,
            retry_after_s=float(fields.get(RETRY_AFTER_MS, b"0")) / 1000,
            may_retry=fields.get(SHOULD_RETRY) != b"false",
        )


class _LineExchange:
    """The other end of a call: gives the body, and keeps what is answered."""

    def __init__(self, body: bytes) -> None:
        self._parts = [body]
        self.status = 0
        self.fields: Mapping[bytes, bytes] = {}
        self.body = bytearray()
        self._is_too_large = asyncio.Event()

    @property
    def is_too_large(self) -> bool:
        """Whether more has been answered than may be; nothing of it is kept."""
        return self._is_too_large.is_set()

    async def receive(self) -> Message:
        if not self._parts:
            # The client stays until its call is cancelled, or until it has read enough.
            await self._is_too_large.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._parts.pop(), "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.fields = dict(message["headers"])
            return
        part = message.get("body", b"")
        if len(self.body) + len(part) > MAX_ANSWER:
            self.body.clear()
            self._is_too_large.set()
        if not self.is_too_large:
            self.body += part


def _refused(call: LineCall, error: GatewayError) -> LineAnswer:
    body = error_body(error, call.path, call.request_id.encode())
    return LineAnswer(status=error.status, body=body, request_id=call.request_id)


def _scope(call: LineCall, identity: ClientIdentity) -> Scope:
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(call.body)),
        (REQUEST_ID, call.request_id.encode()),
        (SESSION, call.session.encode()),
    ]
    if not call.is_guaranteed:
        headers.append((PRIORITY, b"batch"))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": CLIENT,
        IDENTITY: identity,
    }

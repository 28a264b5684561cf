"""Every error of vLLM's application in OpenAI's envelope, with a code that is a word.

Routers make Anthropic's envelope of it for Anthropic's routes. A stream that begins with the
client's error is such an error, too.
"""

from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from deployments.engines.asgi import send_json
from deployments.engines.vllm.api.error_words import in_words_of_openai
from deployments.engines.vllm.api.field_errors import explain
from deployments.engines.vllm.api.refused_request import (
    RefusedRequest,
    answer_refusal,
    refusal_response,
)
from deployments.engines.vllm.api.streamed_refusal import refusal
from gateway.asgi import App, Message, Receive, Scope, Send
from gateway.errors.gateway_error import ErrorBody, ErrorDetail

SERVER_ERROR = "The engine had an internal error."
LIMIT = 1 << 20
"""Bytes of an error that are kept; vLLM's have some hundred."""
ERROR_EVENT = b'data: {"error"'
"""Beginning of the event with which vLLM ends a stream; each event is a message of its own."""


def with_api_errors(app: App) -> App:
    """The application, whose errors have OpenAI's shape."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        is_http = scope["type"] == "http"
        await app(scope, receive, _AnswerSender(send, scope["path"]) if is_http else send)

    return wrapped


async def answer_field_errors(request: Any, error: Any) -> Response:  # noqa: ANN401 - FastAPI's
    """Answer a request whose fields are missing or wrong, as an exception handler."""
    return refusal_response(explain(error.errors(), error.body, request.url.path))


def rewritten(status: int, body: bytes, path: str) -> bytes:
    """An error's body in OpenAI's envelope; one that is in it already stays as it is."""
    try:
        content = msgspec.json.decode(body)
    except msgspec.DecodeError:
        content = None
    error = content.get("error") if isinstance(content, Mapping) else None
    if isinstance(error, Mapping) and _is_from_here(error):
        return body
    return msgspec.json.encode(ErrorBody(_detail(status, content, error, path)))


def rewritten_event(event: bytes, path: str) -> bytes:
    """An error event of a stream, in OpenAI's envelope if the client gets to see it.

    What is the engine's fault stays: by its number, routers know that they have to go on elsewhere.
    """
    data, end, rest = event.removeprefix(b"data: ").partition(b"\n")
    try:
        code = msgspec.json.decode(data)["error"]["code"]
    except (msgspec.DecodeError, LookupError, TypeError):
        return event
    if not isinstance(code, int) or code >= 500:
        return event
    return b"data: " + rewritten(code, data, path) + end + rest


def _is_from_here(error: Mapping[str, Any]) -> bool:
    """Whether an error is one that our own code has written."""
    return "code" in error and (error["code"] is None or isinstance(error["code"], str))


def _detail(status: int, content: object, error: object, path: str) -> ErrorDetail:
    if status >= 500:
        return ErrorDetail(SERVER_ERROR, "server_error", None, "internal_error")
    fields = error if isinstance(error, Mapping) else {}
    text = fields.get("message") or (content.get("detail") if isinstance(content, Mapping) else "")
    param = fields.get("param")
    detail = in_words_of_openai(
        str(text or "The request is invalid."), param if isinstance(param, str) else None, path
    )
    if status == 404 and detail.code is None:
        return msgspec.structs.replace(detail, code="not_found")
    return detail


HANDLERS = {RequestValidationError: answer_field_errors, RefusedRequest: answer_refusal}
"""Exception handlers of vLLM's application, by kind."""


class _AnswerSender:
    """ASGI's `send` of one answer, which is out of the way once a good answer has begun.

    An error is held until it is whole, and the head of a stream until its first event.
    """

    def __init__(self, send: Send, path: str) -> None:
        self._send = send
        self._path = path
        self._head: Message | None = None
        self._body = b""
        self._is_good = self._is_refused = False

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send one message; without a coroutine of our own for each chunk of a stream."""
        if not self._is_good:
            return self._begin(message)
        if message.get("body", b"").startswith(ERROR_EVENT):
            message = {**message, "body": rewritten_event(message["body"], self._path)}
        return self._send(message)

    async def _begin(self, message: Message) -> None:
        if self._is_refused:
            return
        if self._head is None:
            self._head = message
            if message["status"] < 400 and not _is_stream(message):
                await self._pass_on(message)
        elif self._head["status"] >= 400:
            await self._keep(self._head, message)
        elif refused := refusal(message.get("body", b"")):
            self._is_refused = True
            status, body = refused
            await send_json(self._send, status, rewritten(status, body, self._path))
        else:
            await self._pass_on(self._head, message)

    async def _pass_on(self, *messages: Message) -> None:
        self._is_good = True
        for message in messages:
            await self._send(message)

    async def _keep(self, head: Message, message: Message) -> None:
        self._body += message.get("body", b"")[: LIMIT - len(self._body)]
        if message.get("more_body", False):
            return
        status = head["status"]
        kept = [
            (name, value)
            for name, value in head["headers"]
            if name.lower() not in (b"content-type", b"content-length")
        ]
        await send_json(self._send, status, rewritten(status, self._body, self._path), kept)


def _is_stream(head: Message) -> bool:
    return head["status"] == 200 and any(
        name == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in head["headers"]
    )

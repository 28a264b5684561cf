"""Errors as HTTP responses, in OpenAI's or Anthropic's shape."""

from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.asgi import Message, Scope, Send
from gateway.config.route_paths import ROUTES
from gateway.errors.administration import UnknownParameter
from gateway.errors.anthropic import MESSAGES, error_body
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import (
    MAX_SHOWN_PATH,
    InvalidJSON,
    InvalidRequest,
    MethodNotAllowed,
    MissingParameter,
    UnknownRoute,
    UpgradeRefused,
)
from gateway.http.anthropic_models import speaks_anthropic
from gateway.serving.client_response import ClientResponse

SCOPE_REQUEST_ID = "gateway.request_id"
"""Entry of an ASGI scope with the request's id, for errors of FastAPI's routes."""
WEBSOCKET_RESPONSE = "websocket.http.response"
"""Extension of servers that can answer a WebSocket's handshake with a response of HTTP."""


async def send_error(error: GatewayError, scope: Scope, response: ClientResponse) -> None:
    """Answer with `error`, in the shape of the API that the request speaks."""
    body = error_body(error, _path_of_api(scope), response.request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await response.begin(error.status, headers + error.headers)
    await response.finish(body)


async def refuse_websocket(scope: Scope, send: Send) -> None:
    """Answer a WebSocket's handshake with an error, or close it if the server cannot do that."""
    if WEBSOCKET_RESPONSE not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1000})
        return
    path = scope["path"]
    is_known = path in ROUTES
    error = UpgradeRefused.to_websocket() if is_known else UnknownRoute.for_url("GET", path)
    response = ClientResponse(partial(_send_for_websocket, send), [])
    await send_error(error, scope, response)


async def _send_for_websocket(send: Send, message: Message) -> None:
    await send(dict(message, type=f"websocket.{message['type']}"))


def internal_error() -> GatewayError:
    """The error for a defect of the gateway itself."""
    return GatewayError("The gateway had an internal error; its log has the details.")


def handle_errors(app: FastAPI) -> None:
    """Give all errors of `app`, FastAPI's own included, OpenAI's shape."""
    app.add_exception_handler(GatewayError, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    app.add_exception_handler(Exception, _answer)


def invalid_field(error: RequestValidationError) -> InvalidRequest:
    """The error for the first of the fields that are missing or wrong, which it names."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]
    name = ".".join(place)[:MAX_SHOWN_PATH]
    message = str(first["msg"]).removeprefix("Value error, ")
    match first["type"]:
        case "json_invalid":
            return InvalidJSON("The request body is not valid JSON.")
        case "missing" if not name:
            return InvalidJSON("The request needs a body, a JSON object.")
        case "missing":
            return MissingParameter(f"Missing required parameter: `{name}`.", name)
        case "extra_forbidden":
            return UnknownParameter(f"Unknown parameter: `{name}`.", name)
    if not name:
        return InvalidRequest(f"The request is invalid: {message}.")
    return InvalidRequest(f"Invalid value for `{name}`: {message}.", name)


async def _answer(request: Request, error: Exception) -> Response:
    return error_response(request, _translate(request, error))


def error_response(request: Request, known: GatewayError) -> Response:
    """The response to a request, in the shape of the API that it speaks."""
    response = Response(
        error_body(known, _path_of_api(request.scope), request.scope.get(SCOPE_REQUEST_ID, b"")),
        status_code=known.status,
        media_type="application/json",
    )
    response.raw_headers += known.headers
    return response


def _path_of_api(scope: Scope) -> str:
    """A path of the API in whose shape errors are written."""
    return MESSAGES if speaks_anthropic(scope) else str(scope["path"])


def _translate(request: Request, error: Exception) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, RequestValidationError):
        return invalid_field(error)
    if not isinstance(error, HTTPException):
        return internal_error()
    path = request.url.path[:MAX_SHOWN_PATH]
    if error.status_code == 404:
        return UnknownRoute.for_url(request.method, path)
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        allow += ", HEAD" if "GET" in allow else ""
        return MethodNotAllowed(f"Not allowed to {request.method} on {path}.", allow)
    return InvalidRequest(str(error.detail))

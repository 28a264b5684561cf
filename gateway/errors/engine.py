"""Errors of engines in the shape of the API, whatever their own is.

Servers of models have many: FastAPI's `{"detail": ...}`, `{"error": "..."}`, `{"object": "error"}`
with a number as code, plain text, a proxy's page of HTML. An error that has OpenAI's shape stays as
it is, byte for byte. Of others, the client gets what the engine says, without what is only for its
operator: paths, URLs, environment variables, addresses of memory.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors.anthropic import anthropic_body, is_anthropic
from gateway.errors.gateway_error import ErrorBody, ErrorDetail

TOO_LONG = ("maximum context length", "maximum model length")
"""Words of engines' refusals of a prompt that is too long; the first ones are OpenAI's own."""
MAX_MESSAGE = 1000
"""Characters of an engine's message that a client gets."""
CODES = {404: "not_found", 413: "body_too_large", 429: "rate_limit_exceeded"}
"""Code of an error by its status, where the engine has none; of others, see `_code`."""
TYPE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""How OpenAI writes types and codes; engines have `BadRequestError`, `Bad Request` and numbers."""
INTERNALS = re.compile(
    r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>)\]]+"  # URLs
    r"|(?<![\w./])/(?!v1/)[\w.@+-]+(?:/[\w.@+-]+)+/?"  # paths, but not those of the API
    r"|\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b"  # environment variables
    r"|<(?:[\w.]+ )?(?:object|class|function|module) [^>]*>|<[\w.]+ object at [^>]*>"
    r"|\b0x[0-9a-fA-F]{4,}\b"
)
TRACEBACK = "Traceback (most recent call last)"

_decoder = msgspec.json.Decoder(ErrorBody)


def engine_error_body(body: bytes, status: int, path: str, request_id: bytes) -> bytes:
    """An engine's error, answered with `status`, in the shape of the API at `path`."""
    try:
        detail = _decoder.decode(body).error
        is_in_shape = TYPE.fullmatch(detail.type) is not None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        is_in_shape = False
    if not is_in_shape:
        detail = engine_error(body, status)
    if is_anthropic(path):
        return anthropic_body(detail, status, request_id)
    return body if is_in_shape else msgspec.json.encode(ErrorBody(detail))


def engine_error(body: bytes, status: int) -> ErrorDetail:
    """The error that an engine tells of in a shape of its own."""
    content = _content(body)
    fields = _fields(content)
    message, param = _message(fields), _param(fields)
    message = message and without_internals(message)
    return ErrorDetail(
        message or f"The engine answered {status}.",
        _type(fields.get("type"), status),
        param,
        _code(fields.get("code"), message, param, status),
    )


def without_internals(message: str) -> str:
    """A message without what is only for an operator; empty if it is nothing else."""
    if TRACEBACK in message:
        return ""
    return " ".join(INTERNALS.sub("...", message[:MAX_MESSAGE]).split())


def _content(body: bytes) -> object:
    """JSON, or text; empty if it is neither, or a page of HTML."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        text = body.decode().strip()
    except UnicodeDecodeError:
        return ""
    return "" if text.startswith(("<", "{", "[")) or not text.isprintable() else text


def _fields(content: object) -> Mapping[str, Any]:
    """The object that has the error's message, or a text as its message."""
    if isinstance(content, Mapping):
        for name in ("error", "detail", "errors"):
            if content.get(name):
                return _fields(content[name])
        return content
    if isinstance(content, Sequence) and not isinstance(content, str):
        return _fields(content[0]) if content else {}
    return {"message": content} if isinstance(content, str) else {}


def _message(fields: Mapping[str, Any]) -> str:
    for name in ("message", "msg", "error_message", "title"):
        if isinstance(fields.get(name), str):
            return str(fields[name])
    return ""


def _param(fields: Mapping[str, Any]) -> str | None:
    """The field at fault, also where it is FastAPI's `loc`."""
    if isinstance(fields.get("param"), str):
        return str(fields["param"]).removeprefix("body.") or None
    loc = fields.get("loc")
    if not isinstance(loc, Sequence) or isinstance(loc, str):
        return None
    name = ""
    for part in loc[1:] if loc[:1] == ["body"] else loc:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name or None


def _type(of_engine: object, status: int) -> str:
    if isinstance(of_engine, str) and of_engine.endswith("_error") and TYPE.fullmatch(of_engine):
        return of_engine
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"


def _code(of_engine: object, message: str, param: str | None, status: int) -> str | None:
    if isinstance(of_engine, str) and TYPE.fullmatch(of_engine):
        return of_engine
    if status >= 500:
        return "upstream_failed"
    if any(words in message for words in TOO_LONG):
        return "context_length_exceeded"
    return CODES.get(status) or ("invalid_value" if param else None)

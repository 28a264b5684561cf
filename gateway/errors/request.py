"""Errors of a request: its form, its URL, its body, and what it asks for."""

from collections.abc import Sequence

from gateway import header_names
from gateway.errors.gateway_error import GatewayError

MAX_SHOWN_PATH = 200
"""Characters of a client's path that an error repeats."""
MAX_SHOWN_MODEL = 200
"""Characters of a client's model name that an error repeats."""


class InvalidRequest(GatewayError):
    """The gateway cannot accept a header, a parameter or the form of the body."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class InvalidJSON(InvalidRequest):
    """The body is not a JSON object."""

    code = "invalid_json"


class MissingParameter(InvalidRequest):
    """A field that every request needs is missing, such as `model`."""

    code = "missing_required_parameter"


class LimitExceeded(InvalidRequest):
    """A field asks for more than the model's `limits` allow; the message names the limit."""

    code = "limit_exceeded"

    @classmethod
    def of(cls, field: str, found: int, unit: str, allowed: int, limit: str) -> "LimitExceeded":
        """Make the error for a field with `found` of a unit; `limit`: its name in the entry."""
        return cls(
            f"`{field}` has {found:,} {unit}, and at most {allowed:,} are allowed"
            f" (`limits.{limit}` in the model's entry).",
            field,
        )


class AdapterBroken(InvalidRequest):
    """The engine cannot load the adapter; the message says why."""

    code = "adapter_broken"

    def __init__(self, adapter: str, reason: str) -> None:
        super().__init__(f"The adapter `{adapter}` cannot be loaded: {reason}", "model")
        self.args = (adapter, reason)
        self.reason = reason


class ContextExceeded(InvalidRequest):
    """The prompt is longer than the model's context; a fallback may take it."""

    code = "context_length_exceeded"


class UnknownRoute(InvalidRequest):
    """The URL does not exist."""

    status = 404
    code = "unknown_url"

    @classmethod
    def for_url(cls, method: str, path: str) -> "UnknownRoute":
        """Make the error for a method and a path; a long path is cut."""
        return cls(
            f"Unknown request URL: {method} {path[:MAX_SHOWN_PATH]}."
            " Please check the URL for typos, or see the docs at /docs."
        )


class RequestNotFound(InvalidRequest):
    """No router knows a request of that id; operators look requests up by their ids."""

    status = 404
    code = "request_not_found"

    @classmethod
    def of(cls, request_id: str, missing: Sequence[str]) -> "RequestNotFound":
        """Make the error for an id; `missing`: the routers that have not answered."""
        silent = f" These routers did not answer: {', '.join(missing)}." if missing else ""
        return cls(
            f"No router knows a request with the id {request_id[:MAX_SHOWN_PATH]!r}: it is older"
            f" than what routers keep, or was never here.{silent}"
        )


class UnsupportedRoute(InvalidRequest):
    """The URL exists, but the model's engine does not serve it."""

    status = 404
    code = "unsupported_route"


class ModelNotFound(InvalidRequest):
    """No model, adapter, alias or split has that name."""

    status = 404
    code = "model_not_found"

    def __init__(self, model: str, param: str | None = "model") -> None:
        super().__init__(
            f"The model `{shown_model(model)}` does not exist or you do not have access to it.",
            param,
        )
        # Unpickling calls the class with `args`, so they must be its own arguments.
        self.args = (model, param)


class MethodNotAllowed(InvalidRequest):
    """The URL does not support this HTTP method; `Allow` lists those that it does."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.args = (message, allow)
        self.allow = allow

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The allowed methods."""
        return [(header_names.ALLOW, self.allow.encode())]


class _UnreadBody(InvalidRequest):
    """The rest of the request's body is not read, so the connection must close."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Close the connection: its next bytes would still belong to this request."""
        return [(b"connection", b"close")]


class BodyTooSlow(_UnreadBody):
    """The request's body did not arrive in time."""

    status = 408
    code = "body_timeout"


class BodyTooLarge(_UnreadBody):
    """The body is over `max_body_mb` or `max_text_body_mb`, or a file over a limit of `state`."""

    status = 413
    code = "body_too_large"


class InvalidEncoding(InvalidRequest):
    """The body is not what its `content-encoding` says: it is damaged, or incomplete."""

    code = "invalid_content_encoding"


class UnsupportedEncoding(_UnreadBody):
    """The gateway cannot decode the body; `Accept-Encoding` lists what it can."""

    status = 415
    code = "unsupported_content_encoding"

    def __init__(self, message: str, supported: str) -> None:
        super().__init__(message)
        self.args = (message, supported)
        self.supported = supported

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The encodings that are supported."""
        return [*super().headers, (header_names.ACCEPT_ENCODING, self.supported.encode())]


class UnsupportedTransfer(_UnreadBody):
    """The body comes in a transfer encoding other than `chunked`."""

    status = 501
    code = "unsupported_transfer_encoding"

    @classmethod
    def of(cls, coding: bytes) -> "UnsupportedTransfer":
        """Make the error for a header's value; a long one is cut."""
        shown = coding[:100].decode(errors="replace")
        return cls(f"The transfer encoding `{shown}` is not supported; only `chunked` is.")


class UpgradeRefused(InvalidRequest):
    """The client wants another protocol, such as WebSocket; the gateway speaks HTTP only."""

    status = 426
    code = "upgrade_refused"

    @classmethod
    def to_websocket(cls) -> "UpgradeRefused":
        """Make the error for a WebSocket's handshake."""
        return cls("This gateway has no WebSockets. (HINT: Use POST, with `stream` for events.)")

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the gateway speaks instead, as HTTP asks for."""
        return [(b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade, close")]


def shown_model(model: str) -> str:
    """A client's name of a model as messages have it; a long one is cut."""
    return model if len(model) <= MAX_SHOWN_MODEL else model[:MAX_SHOWN_MODEL] + "..."

"""Every error of the gateway, with its HTTP status and OpenAI's `type` and `code` for it.

GatewayError                    500  api_error
├── ConfigError                      (never reaches a client: stops the start)
├── PlacementFailed                  (never reaches a client: stops the replica)
├── InvalidRequest              400  invalid_request_error
│   ├── InvalidJSON                  invalid_json
│   ├── MissingParameter             missing_required_parameter
│   ├── AdapterBroken                adapter_broken
│   ├── ContextExceeded              context_length_exceeded
│   ├── InvalidKey              401  invalid_api_key
│   ├── UnknownRoute            404  unknown_url
│   ├── UnsupportedRoute        404  unsupported_route
│   ├── ModelNotFound           404  model_not_found
│   ├── MethodNotAllowed        405  method_not_allowed
│   ├── BodyTooSlow             408  body_timeout
│   └── BodyTooLarge            413  body_too_large
├── Overloaded                  429  overloaded (type rate_limit_error)
├── UpstreamFailed              502  upstream_failed
├── StreamLost                  502  stream_lost
├── EngineDraining              503  draining
├── ModelUnavailable            503  model_unavailable
└── DeadlineExceeded            504  timeout
"""

import math
from enum import StrEnum

import msgspec

from gateway import header_names

URL_SHOWN = 200
"""Characters of a client's path that an error repeats."""
MODEL_NAME_SHOWN = 200
"""Characters of a client's model name that an error repeats."""


DRAINING = (header_names.DRAINING, b"1")
"""The response header by which a router knows that an engine is going away."""
NO_RETRY = (header_names.SHOULD_RETRY, b"false")
"""The response header that keeps OpenAI's and Anthropic's clients from sending a request again."""


class Reason(StrEnum):
    """Why an engine's answer did not come: words for metrics, not for clients."""

    UNREACHABLE = "unreachable"
    """No connection; the engine has noticed nothing of the request."""
    BROKE_OFF = "broke_off"
    """A connection that ended before the answer did."""
    STUCK = "stuck"
    """It was given up, silent or getting no further."""
    DRAINING = "draining"
    """It takes nothing new."""
    ANSWERED_5XX = "answered_5xx"
    """It answered that the fault is its own."""
    ENGINE_ERROR = "engine_error"
    """It ended a stream with an error of its own."""
    INVALID = "invalid"
    """What came was no HTTP."""
    KEY = "key"
    """It does not accept the gateway's key."""
    SILENT = "silent"
    """It did not say in time what it was asked beside the answer itself."""
    CLOSING = "closing"
    """The gateway itself is ending."""


class ErrorDetail(msgspec.Struct, frozen=True):
    """The inside of an OpenAI error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's error envelope."""

    error: ErrorDetail


class AnthropicErrorBody(msgspec.Struct, frozen=True, tag="error"):
    """Anthropic's error envelope, for its SDK; what OpenAI's has more does not disturb it."""

    error: ErrorDetail


class GatewayError(Exception):
    """A defect of the gateway itself; its log has the details.

    Base class of all errors that a client may see: `message` must hold no internals.

    Every argument is passed on to `Exception`: instances survive pickling between processes.
    """

    status = 500
    type = "api_error"
    code = "internal_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message = message
        self.param = param

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Response headers that belong to the error."""
        return []

    @property
    def detail(self) -> ErrorDetail:
        """The error in OpenAI's words."""
        return ErrorDetail(self.message, self.type, self.param, self.code)

    def body(self, *, is_anthropic: bool = False) -> bytes:
        """The error as OpenAI's JSON, UTF-8; `is_anthropic` makes it Anthropic's as well."""
        envelope = AnthropicErrorBody if is_anthropic else ErrorBody
        return msgspec.json.encode(envelope(self.detail))

    def __str__(self) -> str:
        return self.message


class ConfigError(GatewayError):
    """A configuration that cannot be run; the message names the file and the place in it."""

    code = "invalid_configuration"


class PlacementFailed(GatewayError):
    """A replica's workers came to lie where they cannot work together."""

    code = "placement_failed"


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


class InvalidKey(InvalidRequest):
    """The API key is missing or wrong: the admin key under `/gateway`, an engine's own key."""

    status = 401
    code = "invalid_api_key"


class UnknownRoute(InvalidRequest):
    """The URL does not exist."""

    status = 404
    code = "unknown_url"

    @classmethod
    def for_url(cls, method: str, path: str) -> "UnknownRoute":
        """The error for a method and a path, of which it shows the beginning."""
        return cls(
            f"Unknown request URL: {method} {path[:URL_SHOWN]}."
            " Please check the URL for typos, or see the docs at /docs."
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
        shown = model if len(model) <= MODEL_NAME_SHOWN else model[:MODEL_NAME_SHOWN] + "..."
        super().__init__(
            f"The model `{shown}` does not exist or you do not have access to it.", param
        )
        # `Exception.__reduce__` calls the class with `args`: keep them our own.
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
        """What is allowed."""
        return [(header_names.ALLOW, self.allow.encode())]


class _BodyUnread(InvalidRequest):
    """The rest of the body is not read."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The connection cannot go on: what follows on it is still this request."""
        return [(b"connection", b"close")]


class BodyTooSlow(_BodyUnread):
    """The request's body did not arrive in time."""

    status = 408
    code = "body_timeout"


class BodyTooLarge(_BodyUnread):
    """The body is larger than `max_body_mb`."""

    status = 413
    code = "body_too_large"


class Overloaded(GatewayError):
    """The model has more requests than it can start in time; comes with `Retry-After`.

    The message names the limit that was reached.
    """

    status = 429
    type = "rate_limit_error"
    code = "overloaded"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, "model")
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When there should be room again."""
        return [_retry_after(self.retry_after_s)]


class UpstreamFailed(GatewayError):
    """The engine could not be reached, or failed before its answer was complete."""

    status = 502
    code = "upstream_failed"

    def __init__(self, message: str, reason: Reason = Reason.BROKE_OFF) -> None:
        super().__init__(message)
        self.args = (message, reason)
        self.reason = reason
        self.is_final = False
        """Engines have died under the request, which is not to be sent again."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Whether not to try again."""
        return [NO_RETRY] if self.is_final else []


class StreamLost(GatewayError):
    """A stream broke, and no other engine can continue it."""

    status = 502
    code = "stream_lost"


class EngineDraining(GatewayError):
    """The engine is shutting down and accepts no new requests; comes with `Retry-After`."""

    status = 503
    code = "draining"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to try again, should there be no other engine."""
        return [(header_names.RETRY_AFTER, b"1"), DRAINING]


class ModelUnavailable(GatewayError):
    """The model exists, but no engine can take the request now; comes with `Retry-After`."""

    status = 503
    code = "model_unavailable"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, "model")
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to try again."""
        return [_retry_after(self.retry_after_s)]


class DeadlineExceeded(GatewayError):
    """The deadline has passed: the request's `x-request-timeout-s` or the model's `timeout_s`."""

    status = 504
    type = "timeout_error"
    code = "timeout"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Not to begin again what nobody waits for."""
        return [NO_RETRY]


def _retry_after(seconds: float) -> tuple[bytes, bytes]:
    return header_names.RETRY_AFTER, b"%d" % max(1, math.ceil(seconds))

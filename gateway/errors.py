"""All errors of the gateway, with their HTTP status and OpenAI's `type` and `code`.

GatewayError                    500  api_error
├── ConfigError                      (never reaches a client: stops the start)
├── PlacementFailed                  (never reaches a client: stops the replica)
├── InvalidRequest              400  invalid_request_error
│   ├── InvalidJSON                  invalid_json
│   ├── MissingParameter             missing_required_parameter
│   ├── UnknownParameter             unknown_parameter
│   ├── AlreadyExists                already_exists
│   ├── ProjectArchived              project_archived
│   ├── TooManyKeys                  too_many_keys
│   ├── KeyExpired                   key_expired
│   ├── LimitExceeded                limit_exceeded
│   ├── AdapterBroken                adapter_broken
│   ├── ContextExceeded              context_length_exceeded
│   ├── InvalidKey              401  invalid_api_key
│   ├── NotThroughProxy         403  not_through_proxy
│   ├── CacheNotPrivate         403  cache_not_private
│   ├── NotFound                404  not_found
│   ├── Unsupported             404  unsupported
│   ├── RouteNotAllowed         403  route_not_allowed
│   ├── UnknownRoute            404  unknown_url
│   ├── UnsupportedRoute        404  unsupported_route
│   ├── ModelNotFound           404  model_not_found
│   ├── MethodNotAllowed        405  method_not_allowed
│   ├── InvalidEncoding              invalid_content_encoding
│   ├── BodyTooSlow             408  body_timeout
│   ├── BodyTooLarge            413  body_too_large
│   ├── UnsupportedEncoding     415  unsupported_content_encoding
│   ├── UpgradeRefused          426  upgrade_refused
│   └── UnsupportedTransfer     501  unsupported_transfer_encoding
├── Overloaded                  429  overloaded (type rate_limit_error)
│   └── BodyBudgetExceeded           body_budget_exceeded
├── RateLimited                 429  rate_limit_exceeded (type requests or tokens)
│   └── QuotaExceeded                insufficient_quota (type insufficient_quota)
├── TooManyFailures             429  too_many_failures (type rate_limit_error)
├── TooManyConnections          429  too_many_connections (type rate_limit_error)
├── UpstreamFailed              502  upstream_failed
├── StreamLost                  502  stream_lost
├── EngineDraining              503  draining
│   └── EngineDied                   engine_died
├── AuthUnavailable             503  auth_unavailable
├── AccountsDown                503  accounts_unavailable
├── ModelUnavailable            503  model_unavailable
├── SpendUnknown                503  spend_unknown
├── ShuttingDown                503  shutting_down
└── DeadlineExceeded            504  timeout
"""

import math
from enum import StrEnum

import msgspec

from gateway import header_names

MAX_SHOWN_PATH = 200
"""Characters of a client's path that an error repeats."""
MAX_SHOWN_MODEL = 200
"""Characters of a client's model name that an error repeats."""


DRAINING = (header_names.DRAINING, b"1")
"""Response header that tells a router that an engine is shutting down."""
DIED = (header_names.DRAINING, b"died")
"""The same, from an engine that has died while it had the request."""
NO_RETRY = (header_names.SHOULD_RETRY, b"false")
"""Response header that keeps OpenAI's and Anthropic's clients from sending a request again."""


class Reason(StrEnum):
    """Why an engine did not answer: a label for metrics and logs, not shown to clients."""

    UNREACHABLE = "unreachable"
    """No connection could be made; the request never reached the engine."""
    NO_SOCKET = "no_socket"
    """The router itself could open no connection: too many are open."""
    BROKE_OFF = "broke_off"
    """The connection ended before the answer did."""
    STUCK = "stuck"
    """The engine stopped making progress, and its connection was closed."""
    QUARANTINED = "quarantined"
    """The same request has halted or killed engines just now, so it was not sent."""
    DRAINING = "draining"
    """The engine is shutting down and accepts no new requests."""
    DIED = "died"
    """The engine died while it had the request, and its process could still say so."""
    ANSWERED_5XX = "answered_5xx"
    """The engine answered with a 5xx status."""
    ENGINE_ERROR = "engine_error"
    """The engine ended a stream with an error event."""
    INVALID = "invalid"
    """The engine's bytes were not valid HTTP."""
    KEY = "key"
    """The engine rejected the gateway's key."""
    SILENT = "silent"
    """An auxiliary request, such as tokenization, timed out."""
    CLOSING = "closing"
    """The gateway is shutting down."""


class ErrorDetail(msgspec.Struct, frozen=True):
    """Content of an OpenAI error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's error envelope."""

    error: ErrorDetail


class AnthropicErrorBody(msgspec.Struct, frozen=True, tag="error"):
    """Anthropic's error envelope; its SDK ignores OpenAI's extra fields."""

    error: ErrorDetail


class GatewayError(Exception):
    """A defect of the gateway itself; its log has the details.

    Base class of all errors that a client may see: `message` must hold no internals.

    Every argument is passed on to `Exception`: instances survive pickling between processes.
    """

    status = 500
    type = "api_error"
    code = "internal_error"
    anthropic_type = ""
    """Its type in Anthropic's API; empty if that is the same."""

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
        """The error as OpenAI's error object."""
        return ErrorDetail(self.message, self.type, self.param, self.code)

    def body(self, *, is_anthropic: bool = False) -> bytes:
        """Encode the error as OpenAI's JSON; `is_anthropic` makes it valid for Anthropic too."""
        detail = self.detail
        if not is_anthropic:
            return msgspec.json.encode(ErrorBody(detail))
        if self.anthropic_type:
            detail = msgspec.structs.replace(detail, type=self.anthropic_type)
        return msgspec.json.encode(AnthropicErrorBody(detail))

    def __str__(self) -> str:
        return self.message


class ConfigError(GatewayError):
    """The configuration is invalid; the message names the file, the line and the field."""

    code = "invalid_configuration"


class PlacementFailed(GatewayError):
    """Ray placed a replica's workers on nodes where they cannot work together."""

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


class UnknownParameter(InvalidRequest):
    """The admin API knows no such parameter, or has not got it."""

    code = "unknown_parameter"


class AlreadyExists(InvalidRequest):
    """There is such an object already."""

    code = "already_exists"


class ProjectArchived(InvalidRequest):
    """The project is archived, and cannot be changed."""

    code = "project_archived"


class TooManyKeys(InvalidRequest):
    """The owner of an API key has as many valid ones as there may be."""

    code = "too_many_keys"


class KeyExpired(InvalidRequest):
    """The API key has expired, and cannot be changed."""

    code = "key_expired"


class NotFound(InvalidRequest):
    """The admin API has no object with that id, or not in that project."""

    status = 404
    code = "not_found"

    @classmethod
    def of(cls, kind: str, object_id: str) -> "NotFound":
        """Make the error for an id; a long one is cut."""
        return cls(f"There is no {kind} `{object_id[:MAX_SHOWN_PATH]}` here.")


class Unsupported(InvalidRequest):
    """OpenAI's admin API has this route or value, but the gateway has nothing that it is for."""

    status = 404
    code = "unsupported"


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


class InvalidKey(InvalidRequest):
    """The API key or token is missing or wrong; under `/gateway`, the admin key."""

    status = 401
    code = "invalid_api_key"
    anthropic_type = "authentication_error"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """How to authenticate, as HTTP asks for."""
        return [(header_names.WWW_AUTHENTICATE, b"Bearer")]


class RouteNotAllowed(InvalidRequest):
    """The client's project may not use this URL."""

    status = 403
    code = "route_not_allowed"
    anthropic_type = "permission_error"


class NotThroughProxy(InvalidRequest):
    """The request reached a router's own port without passing the gateway's HAProxy."""

    status = 403
    code = "not_through_proxy"


class CacheNotPrivate(InvalidRequest):
    """The model's engines share their caches among all, and the client's project must not."""

    status = 403
    code = "cache_not_private"

    @classmethod
    def of(cls, model: str) -> "CacheNotPrivate":
        """Make the error for a model."""
        return cls(
            f"The engines of the model `{model}` share their caches among all projects, and the"
            " `cache_scope` of your project does not allow that.",
            "model",
        )


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


class UnsupportedRoute(InvalidRequest):
    """The URL exists, but the model's engine does not serve it."""

    status = 404
    code = "unsupported_route"


class ModelNotFound(InvalidRequest):
    """No model, adapter, alias or split has that name."""

    status = 404
    code = "model_not_found"

    def __init__(self, model: str, param: str | None = "model") -> None:
        shown = model if len(model) <= MAX_SHOWN_MODEL else model[:MAX_SHOWN_MODEL] + "..."
        super().__init__(
            f"The model `{shown}` does not exist or you do not have access to it.", param
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
    """The body is larger than `max_body_mb`, or than `max_text_body_mb` on a route for texts."""

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


class _RetryLater(GatewayError):
    """The model cannot take the request now, but may in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, "model")
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to retry, in whole seconds."""
        return [(header_names.RETRY_AFTER, b"%d" % max(1, math.ceil(self.retry_after_s)))]


class AuthUnavailable(_RetryLater):
    """A key or token cannot be checked now: the keys for that are missing; with `Retry-After`."""

    status = 503
    code = "auth_unavailable"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s)
        self.param = None


class TooManyFailures(_RetryLater):
    """The client's address has sent too many wrong keys; comes with `Retry-After`."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_failures"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s)
        self.param = None


class Overloaded(_RetryLater):
    """The model has more requests than it can start in time; comes with `Retry-After`.

    The message names the limit that was reached.
    """

    status = 429
    type = "rate_limit_error"
    code = "overloaded"


class BodyBudgetExceeded(Overloaded):
    """The bodies of requests under way leave no room for this one; comes with `Retry-After`.

    The share of the client's address is used up, or the router's `max_bodies_mb`.
    """

    code = "body_budget_exceeded"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s)
        self.param = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to retry; the rest of the body is not read, so the connection must close."""
        return [*super().headers, (b"connection", b"close")]


class RateLimited(GatewayError):
    """The project has reached a limit of requests or tokens; comes with `Retry-After`.

    The message names the project and the limit. The type is `tokens` for a limit of tokens,
    otherwise `requests`. If the request alone is above the limit, it comes with
    `x-should-retry: false`.
    """

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, type_: str = "requests", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.args = (message, type_, retry_after_s)
        self.type = type_
        self.retry_after_s = retry_after_s
        """None: the same request will never be answered."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to retry, in whole seconds and in milliseconds."""
        if self.retry_after_s is None:
            return [NO_RETRY]
        wait_ms = max(1, math.ceil(1000 * self.retry_after_s))
        return [
            (header_names.RETRY_AFTER, b"%d" % max(1, math.ceil(self.retry_after_s))),
            (header_names.RETRY_AFTER_MS, b"%d" % wait_ms),
        ]

    def body(self, *, is_anthropic: bool = False) -> bytes:
        """Encode the error; Anthropic's clients know it by another type."""
        detail = self.detail
        if is_anthropic:
            detail = msgspec.structs.replace(detail, type="rate_limit_error")
            return msgspec.json.encode(AnthropicErrorBody(detail))
        return msgspec.json.encode(ErrorBody(detail))


class QuotaExceeded(RateLimited):
    """The project, or the key, has spent what it may in this day or month.

    Comes with `Retry-After`, the end of the period, and `x-should-retry: false`.
    """

    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, "insufficient_quota", retry_after_s)
        self.args = (message, retry_after_s)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When the period ends; clients should not wait for that."""
        return [*super().headers, NO_RETRY]


class TooManyConnections(GatewayError):
    """The client's address has too many open connections; with 503, all clients together have."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_connections"


class UpstreamFailed(GatewayError):
    """The engine could not be reached, or failed before its answer was complete."""

    status = 502
    code = "upstream_failed"

    def __init__(self, message: str, reason: Reason = Reason.BROKE_OFF) -> None:
        super().__init__(message)
        self.args = (message, reason)
        self.reason = reason
        self.is_final = False
        """It has been tried elsewhere in vain, so its client should not send it again."""
        self.may_fall_back = True
        """Another model may answer; not where the request may be what halts or kills engines."""
        self.engine_status = 0
        """Status with which the engine has answered; 0 if it has not."""
        self.engine_body = b""
        """The engine's own error, in JSON; empty if there is none."""

    @classmethod
    def from_answer(cls, status: int, body: bytes) -> "UpstreamFailed":
        """Make the error for an engine's answer; its body counts if it is JSON with an `error`."""
        error = cls(f"The engine answered {status}.", Reason.ANSWERED_5XX)
        error.engine_status = status
        try:
            _error_decoder.decode(body)
        except msgspec.MsgspecError:
            return error
        error.engine_body = body
        return error

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Ask clients not to retry a final failure."""
        return [NO_RETRY] if self.is_final else []


class _AnyError(msgspec.Struct):
    """Body of an error of any shape."""

    error: msgspec.Raw


_error_decoder = msgspec.json.Decoder(_AnyError)


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
        """When to retry if there is no other engine."""
        return [(header_names.RETRY_AFTER, b"1"), DRAINING]


class EngineDied(EngineDraining):
    """The engine has died while it had the request; comes with `Retry-After`."""

    code = "engine_died"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """As if it were draining, but the request may be the cause."""
        return [(header_names.RETRY_AFTER, b"1"), DIED]


class AccountsDown(GatewayError):
    """`Accounts`, which answers the admin API, cannot be reached now; comes with `Retry-After`."""

    status = 503
    code = "accounts_unavailable"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to retry: it is restarted within seconds."""
        return [(header_names.RETRY_AFTER, b"5")]


class ModelUnavailable(_RetryLater):
    """The model exists, but no engine can take the request now; comes with `Retry-After`."""

    status = 503
    code = "model_unavailable"


class SpendUnknown(_RetryLater):
    """The project has a limit of money, and `Accounts` has not said yet what it has spent.

    Only with `rate_limits.on_unknown_spend: refuse`; comes with `Retry-After`.
    """

    status = 503
    code = "spend_unknown"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s)
        self.param = None


class ShuttingDown(GatewayError):
    """The gateway is being stopped; comes with `Retry-After`."""

    status = 503
    code = "shutting_down"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to retry, if another gateway takes its place."""
        return [(header_names.RETRY_AFTER, b"5")]


class DeadlineExceeded(GatewayError):
    """The deadline has passed: the request's `x-request-timeout-s` or the model's `timeout_s`."""

    status = 504
    type = "timeout_error"
    code = "timeout"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Ask clients not to retry: the deadline has passed."""
        return [NO_RETRY]

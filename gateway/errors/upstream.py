"""Errors of engines that do not answer, or not to the end, and why they did not."""

from enum import StrEnum

from gateway import header_names
from gateway.errors.gateway_error import NO_RETRY, GatewayError, RetryLater, retry_after

DRAINING = (header_names.DRAINING, b"1")
"""Response header that tells a router that an engine is shutting down."""
DIED = (header_names.DRAINING, b"died")
"""The same, from an engine that has died while it had the request."""


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
        """The engine's own error, in whatever shape."""

    @classmethod
    def from_answer(cls, status: int, body: bytes) -> "UpstreamFailed":
        """Make the error for an engine's answer."""
        error = cls(f"The engine answered {status}.", Reason.ANSWERED_5XX)
        error.engine_status, error.engine_body = status, body
        return error

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Ask clients not to retry a final failure."""
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
        """When to retry if there is no other engine."""
        return [*retry_after(1), DRAINING]


class EngineDied(EngineDraining):
    """The engine has died while it had the request; comes with `Retry-After`."""

    code = "engine_died"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """As if it were draining, but the request may be the cause."""
        return [*retry_after(1), DIED]


class ModelUnavailable(RetryLater):
    """The model exists, but no engine can take the request now; comes with `Retry-After`."""

    status = 503
    code = "model_unavailable"


class ShuttingDown(GatewayError):
    """The gateway is being stopped; comes with `Retry-After`."""

    status = 503
    code = "shutting_down"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to retry, if another gateway takes its place."""
        return retry_after(5)


class DeadlineExceeded(GatewayError):
    """The deadline has passed: the request's `x-request-timeout-s` or the model's `timeout_s`."""

    status = 504
    code = "timeout"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Ask clients not to retry: the deadline has passed."""
        return [NO_RETRY]

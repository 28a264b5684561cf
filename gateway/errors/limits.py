"""Errors of limits: too many requests, connections or bytes, or too much money."""

from gateway.errors.gateway_error import (
    NO_RETRY,
    GatewayError,
    RetryLater,
    retry_after,
)


class Overloaded(RetryLater):
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
    about = None

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
        """When to retry."""
        return [NO_RETRY] if self.retry_after_s is None else retry_after(self.retry_after_s)


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


class SpendUnknown(RetryLater):
    """The project has a limit of money, and `Accounts` has not said yet what it has spent.

    Only with `rate_limits.on_unknown_spend: refuse`; comes with `Retry-After`.
    """

    status = 503
    code = "spend_unknown"
    about = None

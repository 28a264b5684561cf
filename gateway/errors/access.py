"""Errors of clients that may not do what they ask for, or are not known."""

from gateway import header_names
from gateway.errors.gateway_error import RetryLater
from gateway.errors.request import (
    InvalidRequest,
)


class InvalidKey(InvalidRequest):
    """The API key or token is missing or wrong; under `/gateway`, the admin key."""

    status = 401
    code = "invalid_api_key"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """How to authenticate, as HTTP asks for."""
        return [(header_names.WWW_AUTHENTICATE, b"Bearer")]


class RouteNotAllowed(InvalidRequest):
    """The client's project, or its key, may not use this URL."""

    status = 403
    code = "route_not_allowed"


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


class AuthUnavailable(RetryLater):
    """A key or token cannot be checked now: the keys for that are missing; with `Retry-After`."""

    status = 503
    code = "auth_unavailable"
    about = None


class TooManyFailures(RetryLater):
    """The client's address has sent too many wrong keys; comes with `Retry-After`."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_failures"
    about = None

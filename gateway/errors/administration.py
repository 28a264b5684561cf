"""Errors of the admin API."""

from gateway import header_names
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import (
    MAX_SHOWN_PATH,
    InvalidRequest,
)


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


class AccountsDown(GatewayError):
    """`Accounts`, which answers the admin API, cannot be reached now; comes with `Retry-After`."""

    status = 503
    code = "accounts_unavailable"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to retry: it is restarted within seconds."""
        return [(header_names.RETRY_AFTER, b"5")]

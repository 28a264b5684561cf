"""Base of all errors, and how clients get them."""

import math

import msgspec

from gateway import header_names

NO_RETRY = (header_names.SHOULD_RETRY, b"false")
"""Response header that keeps OpenAI's and Anthropic's clients from sending a request again."""


def retry_after(seconds: float) -> list[tuple[bytes, bytes]]:
    """Headers that say when to retry, in whole seconds and in milliseconds."""
    return [
        (header_names.RETRY_AFTER, b"%d" % max(1, math.ceil(seconds))),
        (header_names.RETRY_AFTER_MS, b"%d" % max(1, math.ceil(1000 * seconds))),
    ]


class ErrorDetail(msgspec.Struct, frozen=True):
    """Content of an OpenAI error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's error envelope."""

    error: ErrorDetail


class GatewayError(Exception):
    """A defect of the gateway itself; its log has the details.

    Base class of all errors that a client may see: `message` must hold no internals.

    Every argument is passed on to `Exception`: instances survive pickling between processes.
    """

    status = 500
    type = "server_error"
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
        """The error as OpenAI's error object."""
        return ErrorDetail(self.message, self.type, self.param, self.code)

    def body(self) -> bytes:
        """Encode the error as OpenAI's JSON; see `errors.anthropic` for the other API."""
        return msgspec.json.encode(ErrorBody(self.detail))

    def __str__(self) -> str:
        return self.message


class RetryLater(GatewayError):
    """The model cannot take the request now, but may in `retry_after_s` seconds."""

    about: str | None = "model"
    """The `param` of its error object."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, self.about)
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to retry."""
        return retry_after(self.retry_after_s)

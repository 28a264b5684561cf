"""Errors in the shape of Anthropic's API, which its routes answer with."""

import math
import re

import msgspec

from gateway.errors.gateway_error import ErrorDetail, GatewayError

MESSAGES = "/v1/messages"
"""Path of Anthropic's API; its other paths are below it."""
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Type of an error by its status; of others, see `error_type`."""
QUOTED = re.compile("`([^`]*)`")
INDEX = re.compile(r"\[(\d+)\]")
MAXIMUM = re.compile(r"maximum (?:context|model) length (?:is|of) ([\d,]+)")
FOUND = (
    re.compile(r"at least ([\d,]+) tokens\."),
    re.compile(r"contains (?:at least )?([\d,]+) (?:input )?tokens"),
    re.compile(r"\(length ([\d,]+)\)"),
    re.compile(r"has ([\d,]+) tokens"),
)
"""How engines and routers tell the tokens of a prompt that is too long."""
SIZES = (
    re.compile(r"contains (?P<found>[\d,]+) characters \(more than (?P<allowed>[\d,]+)"),
    re.compile(r"has (?P<found>[\d,]+) \w+, and at most (?P<allowed>[\d,]+)"),
)
"""The same of a prompt that is so long that nobody counts its tokens."""


class AnthropicDetail(msgspec.Struct, frozen=True):
    """Content of an error object of Anthropic's."""

    type: str
    message: str


class AnthropicError(msgspec.Struct, frozen=True, tag="error"):
    """Anthropic's error envelope."""

    error: AnthropicDetail
    request_id: str


def is_anthropic(path: str) -> bool:
    """Whether a path belongs to Anthropic's API."""
    return path == MESSAGES or path.startswith(f"{MESSAGES}/")


def error_body(error: GatewayError, path: str, request_id: bytes) -> bytes:
    """Encode an error as JSON, in the shape of the API at `path`."""
    if not is_anthropic(path):
        return error.body()
    return anthropic_body(error.detail, error.status, request_id)


def anthropic_body(detail: ErrorDetail, status: int, request_id: bytes) -> bytes:
    """Encode an error as Anthropic does."""
    error = AnthropicDetail(error_type(status), anthropic_message(detail))
    return msgspec.json.encode(AnthropicError(error, request_id.decode()))


def anthropic_message(detail: ErrorDetail) -> str:
    """The message of an error, as Anthropic's clients look for it."""
    if detail.code == "context_length_exceeded":
        return _too_long(detail.message)
    if detail.code == "model_not_found" and (quoted := QUOTED.search(detail.message)):
        return f"model: {quoted[1]}"
    if not detail.param or detail.message.startswith(detail.param):
        return detail.message
    place = INDEX.sub(r".\1", detail.param)
    if detail.code == "missing_required_parameter":
        return f"{place}: Field required"
    return f"{place}: {detail.message}"


def _too_long(message: str) -> str:
    """What agents look for before they shorten a conversation; else the message."""
    if not (maximum := MAXIMUM.search(message)):
        return message
    most = _number(maximum[1])
    for pattern in FOUND:
        if match := pattern.search(message):
            return f"prompt is too long: {_number(match[1])} tokens > {most} maximum"
    for pattern in SIZES:
        if match := pattern.search(message):
            # At least so many: `allowed` is what `most` tokens have at the utmost.
            least = math.ceil(_number(match["found"]) * most / _number(match["allowed"]))
            return f"prompt is too long: {least} tokens > {most} maximum"
    return message


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def error_type(status: int) -> str:
    """Type of an error with this status."""
    return TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")

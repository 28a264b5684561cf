"""Errors in the shape of Anthropic's API."""

import json

import pytest

from gateway.errors.access import InvalidKey, RouteNotAllowed
from gateway.errors.anthropic import anthropic_message, error_body
from gateway.errors.gateway_error import ErrorDetail, GatewayError
from gateway.errors.limits import Overloaded, RateLimited
from gateway.errors.request import BodyTooLarge, InvalidJSON, ModelNotFound
from gateway.errors.upstream import DeadlineExceeded, UpstreamFailed

PATH = "/v1/messages"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidJSON("No."), "invalid_request_error"),
        (InvalidKey("No."), "authentication_error"),
        (RouteNotAllowed("No."), "permission_error"),
        (ModelNotFound("m"), "not_found_error"),
        (BodyTooLarge("No."), "request_too_large"),
        (RateLimited("No.", "tokens", 1.0), "rate_limit_error"),
        (Overloaded("No.", 1), "rate_limit_error"),
        (UpstreamFailed("No."), "api_error"),
        (DeadlineExceeded("No."), "timeout_error"),
        (GatewayError("No."), "api_error"),
    ],
)
def test_the_type_follows_from_the_status(error: GatewayError, kind: str) -> None:
    """It is one of Anthropic's own, and its envelope has nothing of OpenAI's."""
    body = json.loads(error_body(error, PATH, b"id"))
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["request_id"]) == ("error", "id")
    assert set(body["error"]) == {"type", "message"}
    assert body["error"]["type"] == kind


def test_other_routes_have_openais_shape() -> None:
    """The same error elsewhere is OpenAI's."""
    body = json.loads(error_body(ModelNotFound("m"), "/v1/chat/completions", b"id"))
    assert body["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("message", "param", "code", "expected"),
    [
        (
            "Missing required parameter: 'max_tokens'.",
            "max_tokens",
            "missing_required_parameter",
            "max_tokens: Field required",
        ),
        (
            "Missing required parameter: 'messages[0].role'.",
            "messages[0].role",
            "missing_required_parameter",
            "messages.0.role: Field required",
        ),
        ("Invalid value: 'x'.", "messages[2].role", "invalid_value", "messages.2.role: Invalid "),
        ("No.", None, None, "No."),
        ("The model `m` does not exist.", "model", "model_not_found", "model: m"),
    ],
)
def test_a_message_names_the_place_as_anthropic_does(
    message: str, param: str | None, code: str | None, expected: str
) -> None:
    """Dots instead of brackets, before what is wrong there."""
    detail = ErrorDetail(message, "invalid_request_error", param, code)
    assert anthropic_message(detail).startswith(expected)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            (
                "This model's maximum context length is 8192 tokens. However, your prompt contains"
                " 9013 input tokens, which exceeds this limit even without any output tokens."
            ),
            "prompt is too long: 9013 tokens > 8192 maximum",
        ),
        (
            (
                "This model's maximum context length is 8192 tokens. However, you requested 9000"
                " output tokens and your prompt contains at least 1 input tokens, for a total of at"
                " least 9001 tokens. Please reduce the length of the input prompt."
            ),
            "prompt is too long: 9001 tokens > 8192 maximum",
        ),
        (
            (
                "This model's maximum context length is 8192 tokens. However, your prompt contains"
                " 200050 characters (more than 131072 characters, which is the upper bound for 8192"
                " input tokens)."
            ),
            "prompt is too long: 12504 tokens > 8192 maximum",
        ),
        (
            (
                "This model's maximum context length is 8,192 tokens. However, your `messages` has"
                " 2,097,152 bytes, and at most 1,048,576 are allowed."
            ),
            "prompt is too long: 16384 tokens > 8192 maximum",
        ),
        (
            "The decoder prompt (length 9013) is longer than the maximum model length of 8192.",
            "prompt is too long: 9013 tokens > 8192 maximum",
        ),
        ("The prompt does not fit.", "The prompt does not fit."),
    ],
)
def test_agents_find_that_a_prompt_is_too_long(message: str, expected: str) -> None:
    """They look for this sentence before they shorten a conversation."""
    detail = ErrorDetail(message, "invalid_request_error", "messages", "context_length_exceeded")
    assert anthropic_message(detail) == expected

"""Errors of engines of other kinds, in the shape of the API."""

import json
from typing import Any

import pytest

from gateway.errors.engine import engine_error_body

CHAT = "/v1/chat/completions"
RIGHT = (
    b'{ "error": {"message": "No.", "type": "invalid_request_error", "param": null,'
    b' "code": "no", "more": 1} }'
)
GENERIC_500 = ("The engine answered 500.", "server_error", None, "upstream_failed")


def openai_error(body: bytes | dict[str, Any], status: int) -> tuple[object, ...]:
    """Message, type, param and code of the error that a client gets."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    (name, error), *others = json.loads(engine_error_body(raw, status, CHAT, b"id")).items()
    assert (name, others) == ("error", [])
    assert set(error) == {"message", "type", "param", "code"}
    return tuple(error[each] for each in ("message", "type", "param", "code"))


def test_an_error_in_openais_shape_stays_as_it_is() -> None:
    """Byte for byte, with the fields that OpenAI does not have."""
    assert engine_error_body(RIGHT, 400, CHAT, b"id") == RIGHT


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"detail": "Not Found"}, 404, ("Not Found", "invalid_request_error", None, "not_found")),
        (
            {
                "detail": [
                    {"type": "missing", "loc": ["body", "a", 0, "b"], "msg": "Field required"}
                ]
            },
            422,
            ("Field required", "invalid_request_error", "a[0].b", "invalid_value"),
        ),
        (
            {"object": "error", "message": "No.", "type": "BadRequestError", "code": 400},
            400,
            ("No.", "invalid_request_error", None, None),
        ),
        (
            {"error": {"message": "No.", "type": "Bad Request", "param": "body.n", "code": 400}},
            400,
            ("No.", "invalid_request_error", "n", "invalid_value"),
        ),
        (
            {"error": {"message": "No.", "type": "BadRequestError", "param": None, "code": None}},
            400,
            ("No.", "invalid_request_error", None, None),
        ),
        (
            {"error": {"message": "Full.", "type": "overloaded_error", "code": "full"}},
            503,
            ("Full.", "overloaded_error", None, "full"),
        ),
        (
            {"error": "Model is overloaded", "error_type": "overloaded"},
            429,
            ("Model is overloaded", "rate_limit_error", None, "rate_limit_exceeded"),
        ),
        (
            {"error": {"message": "The maximum context length is 8 tokens.", "code": 400}},
            400,
            (
                "The maximum context length is 8 tokens.",
                "invalid_request_error",
                None,
                "context_length_exceeded",
            ),
        ),
        (
            b"Internal Server Error",
            500,
            ("Internal Server Error", "server_error", None, "upstream_failed"),
        ),
    ],
)
def test_another_shape_becomes_openais(
    body: bytes | dict[str, Any], status: int, expected: tuple[object, ...]
) -> None:
    """What the engine says is kept; its numbers and names of classes are not."""
    assert openai_error(body, status) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"7",
        b"<html><h1>502</h1></html>",
        b"\xff\xfe",
        b"\x00\x01",
        b'{"error": {"message":',
        b"[" * 100_000,
        {"error": {"message": 'Traceback (most recent call last):\n  File "x.py"', "code": 500}},
    ],
)
def test_of_what_says_nothing_to_a_client_only_the_status_is_told(
    body: bytes | dict[str, Any],
) -> None:
    """Neither a page of HTML nor a traceback helps it."""
    assert openai_error(body, 500) == GENERIC_500


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("No file '/srv/models/x/config.json' here", "No file '...' here"),
        ("See https://errors.example.dev/2.1/v/missing for more", "See ... for more"),
        ("Set ENGINE_ALLOW_LONG=1 to go on", "Set ...=1 to go on"),
        ("<Thing object at 0x7f12ab34cd56> is odd", "... is odd"),
        ("expected <class 'int'>", "expected ..."),
        ("at 0x7f12ab34cd56", "at ..."),
        (
            "Use /v1/chat/completions, and/or 1/2 of it",
            "Use /v1/chat/completions, and/or 1/2 of it",
        ),
        ("Two\n  lines", "Two lines"),
    ],
)
def test_what_is_for_operators_is_left_out(said: str, told: str) -> None:
    """Paths, URLs, variables and addresses say nothing to a client, but much of the machine."""
    assert openai_error({"detail": said}, 400)[0] == told


def test_a_message_has_a_length() -> None:
    """An engine may repeat the whole request."""
    assert len(str(openai_error({"detail": "x" * 100_000}, 400)[0])) == 1000


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>"])
def test_on_anthropics_routes_it_gets_anthropics_shape(body: bytes) -> None:
    """With the request's id, and a type by its status."""
    found = json.loads(engine_error_body(body, 500, "/v1/messages", b"id"))
    assert found == {
        "type": "error",
        "error": {"type": "api_error", "message": "The engine answered 500."},
        "request_id": "id",
    }


def test_on_anthropics_routes_a_foreign_message_is_kept() -> None:
    """`prompt is too long` is what agents look for, whichever engine says it."""
    said = "This model's maximum context length is 8192 tokens, but the prompt has 9001 tokens."
    found = json.loads(
        engine_error_body(json.dumps({"detail": said}).encode(), 400, "/v1/messages", b"id")
    )
    assert found["error"]["message"] == "prompt is too long: 9001 tokens > 8192 maximum"

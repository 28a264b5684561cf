"""Refusals: those of our checks have the words of those of pydantic's errors."""

import pytest

from deployments.engines.vllm.api.field_errors import explain
from deployments.engines.vllm.api.refusals import empty_array, invalid_type, invalid_value
from deployments.engines.vllm.api.refused_request import RefusedRequest


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (
            invalid_type("stop", "a string", 5),
            {"type": "string_type", "loc": ("stop",), "input": 5, "msg": ""},
        ),
        (
            invalid_value("mode", "x" * 200, ["a", "b", "c"]),
            {
                "type": "literal_error",
                "loc": ("mode",),
                "input": "x" * 200,
                "msg": "",
                "ctx": {"expected": "'a', 'b' or 'c'"},
            },
        ),
        (
            empty_array("messages"),
            {
                "type": "too_short",
                "loc": ("messages",),
                "input": [],
                "msg": "",
                "ctx": {"min_length": 1, "actual_length": 0},
            },
        ),
    ],
)
def test_a_refusal_says_the_same_whoever_finds_it(
    refused: RefusedRequest, error: dict[str, object]
) -> None:
    """Message, parameter and code."""
    name = str(refused.param)
    detail = explain([error], {name: error["input"]}, "/v1/chat/completions")
    assert (detail.message, detail.param, detail.code) == (
        refused.message,
        refused.param,
        refused.code,
    )


def test_the_words_are_openais() -> None:
    """As its API has them."""
    assert empty_array("messages").message == (
        "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an"
        " empty array instead."
    )
    assert invalid_type("n", "an integer", "x").message == (
        "Invalid type for 'n': expected an integer, but got a string instead."
    )

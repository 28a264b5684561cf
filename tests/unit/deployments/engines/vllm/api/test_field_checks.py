"""Checks of the fields that OpenAI's API defines."""

from collections.abc import Callable
from typing import Any

import pytest

from deployments.engines.vllm.api.chat_messages import check_messages
from deployments.engines.vllm.api.embeddings_check import check_dimensions, check_embeddings
from deployments.engines.vllm.api.field_checks import (
    CHAT,
    TEXT,
    check_best_of,
    check_chat_features,
    check_completion,
)
from deployments.engines.vllm.api.refusals import invalid_value
from deployments.engines.vllm.api.refused_request import RefusedRequest

Check = Callable[[dict[str, Any]], None]
HI = {"role": "user", "content": "hi"}


def chat(body: dict[str, Any]) -> None:
    """All checks of a chat."""
    check_messages({"messages": [HI], **body})
    check_completion(body, CHAT)
    check_chat_features(body)


def text(body: dict[str, Any]) -> None:
    """All checks of a text completion."""
    check_completion(body, TEXT)
    check_best_of(body)


@pytest.mark.parametrize(
    ("check", "body", "param", "code"),
    [
        (chat, {"temperature": 9}, "temperature", "decimal_above_max_value"),
        (chat, {"temperature": -1}, "temperature", "decimal_below_min_value"),
        (chat, {"temperature": "warm"}, "temperature", "invalid_type"),
        (chat, {"top_p": 2}, "top_p", "decimal_above_max_value"),
        (chat, {"n": 0}, "n", "integer_below_min_value"),
        (chat, {"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        (chat, {"max_tokens": True}, "max_tokens", "invalid_type"),
        (chat, {"stop": ["a", 1]}, "stop", "invalid_type"),
        (chat, {"stream": "yes"}, "stream", "invalid_type"),
        (chat, {"logprobs": 3}, "logprobs", "invalid_type"),
        (chat, {"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        (chat, {"logit_bias": {"foo": 0}}, "logit_bias", "invalid_value"),
        (chat, {"reasoning_effort": "bogus"}, "reasoning_effort", "invalid_value"),
        (chat, {"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (chat, {"structured_outputs": "x"}, "structured_outputs", "invalid_type"),
        (chat, {"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        (chat, {"prediction": {}}, "prediction", "unsupported_parameter"),
        (chat, {"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
        (chat, {"messages": []}, "messages", "empty_array"),
        (chat, {"messages": None}, "messages", "invalid_type"),
        (chat, {"messages": ["hi"]}, "messages[0]", "invalid_type"),
        (chat, {"messages": [{"role": "nobody"}]}, "messages[0].role", "invalid_value"),
        (chat, {"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_par"),
        (chat, {"messages": [{**HI, "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            *(chat, {"messages": [{**HI, "content": [{"type": "x"}]}]}),
            *("messages[0].content[0].type", "invalid_value"),
        ),
        (text, {"logprobs": -2}, "logprobs", "integer_below_min_value"),
        (text, {"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
        (text, {"best_of": 3}, "best_of", "unsupported_parameter"),
        (text, {"best_of": 1, "n": 2}, "best_of", "invalid_value"),
        (check_embeddings, {}, "input", "missing_required_parameter"),
        (check_embeddings, {"input": {}}, "input", "invalid_type"),
        (check_embeddings, {"input": []}, "input", "empty_array"),
        (check_embeddings, {"input": "x", "dimensions": 0}, "dimensions", "integer_below_min"),
        (check_embeddings, {"input": "x", "encoding_format": "n"}, "encoding_format", "invalid_v"),
    ],
)
def test_fields_are_refused(check: Check, body: dict[str, Any], param: str, code: str) -> None:
    """A wrong value has OpenAI's code, and the field as OpenAI writes it."""
    with pytest.raises(RefusedRequest) as refused:
        check(body)
    assert refused.value.param == param
    assert refused.value.code.startswith(code)


@pytest.mark.parametrize(
    ("check", "body"),
    [
        (chat, {"temperature": 2, "top_p": 0, "n": 2, "stop": list("abcde"), "seed": -1}),
        (chat, {"audio": None, "modalities": ["text"], "prediction": None, "nobody_knows": 1}),
        (chat, {"messages": [{"role": "assistant", "content": None, "refusal": "No."}]}),
        (chat, {"messages": [{"role": "assistant", "tool_calls": []}]}),
        (chat, {"top_logprobs": -1, "top_k": 5, "structured_outputs": {"regex": "a"}}),
        (text, {"logprobs": 20, "max_tokens": 0, "best_of": 2, "n": 2}),
        (text, {"logprobs": -1, "stream": True, "stream_options": {"include_usage": True}}),
        (check_embeddings, {"messages": [HI]}),
        (check_embeddings, {"input": [[1, 2]], "encoding_format": "bytes"}),
    ],
)
def test_what_works_passes(check: Check, body: dict[str, Any]) -> None:
    """Fields of OpenAI's within their bounds, vLLM's own, and fields that nobody knows."""
    check(body)


@pytest.mark.parametrize(
    ("asked", "supported", "is_reducible", "code"),
    [
        (64, None, False, "unsupported_parameter"),
        (1000, None, False, "unsupported_parameter"),
        (1000, None, True, "integer_above_max_value"),
        (100, [64, 128], True, "invalid_value"),
    ],
)
def test_dimensions_that_a_model_does_not_have_are_refused(
    asked: int, supported: list[int] | None, is_reducible: bool, code: str
) -> None:
    """Whether it has one number of them, some, or any up to its own."""
    with pytest.raises(RefusedRequest) as refused:
        check_dimensions(asked, 192, supported, is_reducible=is_reducible)
    assert (refused.value.param, refused.value.code) == ("dimensions", code)


@pytest.mark.parametrize(("asked", "supported"), [(64, None), (1, None), (64, [64, 128])])
def test_a_model_may_have_fewer_dimensions(asked: int, supported: list[int] | None) -> None:
    """As it has been trained for."""
    check_dimensions(asked, 192, supported, is_reducible=True)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "null"), (True, "true"), (5, "5"), ({"a": 1}, "an object"), (["a"], "an array")],
)
def test_a_value_is_shown_as_json_has_it(value: object, shown: str) -> None:
    """Python's spelling says nothing to a client."""
    assert invalid_value("f", value, ["a"]).message.startswith(f"Invalid value: {shown}. ")

"""Sentences of vLLM, in OpenAI's words."""

import pytest

from deployments.engines.vllm.api.error_words import in_words_of_openai

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("text", "param", "code"),
    [
        (
            "temperature must be in [0, 2], got 9.0. (parameter=temperature, value=9.0)",
            "temperature",
            "decimal_above_max_value",
        ),
        (
            "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)",
            "temperature",
            "decimal_below_min_value",
        ),
        ("top_p must be in (0, 1], got 2.0.", "top_p", "decimal_above_max_value"),
        ("presence_penalty must be in [-2, 2], got -3.", "presence_penalty", "decimal_below"),
        ("n must be at least 1, got 0.", "n", "integer_below_min_value"),
        (
            (
                "n must be at most 128, got 999. To increase this limit, set the"
                " VLLM_MAX_N_SEQUENCES environment variable."
            ),
            "n",
            "integer_above_max_value",
        ),
        (
            "Requested sample logprobs of 21, which is greater than max allowed: 20",
            "top_logprobs",
            "integer_above_max_value",
        ),
        (
            "This model's maximum context length is 8192 tokens. (parameter=input_text, value=9)",
            "messages",
            "context_length_exceeded",
        ),
        ("Cannot apply chat template to an empty conversation.", "messages", "empty_array"),
        (
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser',
            "tool_choice",
            "unsupported_value",
        ),
        ("Set VLLM_ENABLE_THIS=1 to use it. (parameter=store)", "store", "unsupported_value"),
        ("Something else is wrong. (parameter=stop)", "stop", "invalid_value"),
    ],
)
def test_a_sentence_gets_its_parameter_and_code(text: str, param: str, code: str) -> None:
    """And says nothing of an operator's flags and variables."""
    detail = in_words_of_openai(text, None, CHAT)
    assert detail.param == param
    assert str(detail.code).startswith(code)
    assert "(parameter=" not in detail.message
    assert "VLLM_" not in detail.message
    assert "--" not in detail.message


@pytest.mark.parametrize(
    ("path", "param"),
    [("/v1/completions", "prompt"), ("/v1/responses", "input"), ("/v1/messages", "messages")],
)
def test_a_prompt_is_called_what_its_route_calls_it(path: str, param: str) -> None:
    """The parameter of a prompt that is too long."""
    text = "This model's maximum context length is 8192 tokens."
    assert in_words_of_openai(text, "input_text", path).param == param


def test_what_nobody_knows_is_passed_on() -> None:
    """A sentence without a rule, and without a parameter, stays as it is."""
    detail = in_words_of_openai("No such thing.", None, CHAT)
    assert (detail.message, detail.param, detail.code) == ("No such thing.", None, None)

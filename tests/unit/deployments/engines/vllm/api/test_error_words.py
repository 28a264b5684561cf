"""Sentences of vLLM, in OpenAI's words."""

import pytest

from deployments.engines.call import current_call, with_call_context
from deployments.engines.vllm.api.error_words import OTHER_FORM, in_words_of_openai
from deployments.engines.vllm.api.grammar_fields import of_completion, record_grammar_fields
from gateway.asgi import Receive, Scope, Send

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
        (
            "You must use one kind of structured outputs constraint but none are specified: {}",
            *("structured_outputs", "invalid_value"),
        ),
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


@pytest.mark.parametrize(
    "text",
    [
        "'NoneType' object is not iterable",
        "'list' object has no attribute 'get'",
        "unhashable type: 'dict'",
        "list index out of range",
        "string indices must be integers, not 'str'",
        "not enough values to unpack (expected 2, got 1)",
        "invalid literal for int() with base 10: 'x'",
        "sequence item 0: expected str instance, int found",
        "KeyError: 'function'",
        "Request.__init__() got an unexpected keyword argument 'x'",
        "expected <class 'int'>",
        "unsupported operand type(s) for +: 'int' and 'str'",
        "'utf-8' codec can't encode character '\\ud800' in position 0",
        "none are specified: {'json': None, 'regex': None}",
        "maximum recursion depth exceeded",
    ],
)
def test_pythons_own_words_are_not_passed_on(text: str) -> None:
    """They are about objects inside vLLM; the field is named if it is known."""
    plain = in_words_of_openai(text, None, CHAT)
    assert (plain.message, plain.param, plain.code) == (OTHER_FORM, None, None)
    named = in_words_of_openai(text, "tools", CHAT)
    assert (named.message, named.param, named.code) == (OTHER_FORM, "tools", "invalid_value")


@pytest.mark.parametrize(
    "text",
    [
        "The model `self.hosted` does not exist.",
        "Unknown part type: object",
        "'n' must be at least 'best_of'.",
        "Only one value in the list of arguments is supported.",
    ],
)
def test_words_for_clients_are_passed_on(text: str) -> None:
    """They may well speak of objects, lists and arguments."""
    assert in_words_of_openai(text, None, CHAT).message == text


REFUSED = "the grammar is refused: no such type (parameter=structured_outputs)"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [1], "response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [1], "tool_choice": "auto"}, "tools"),
        ({"structured_outputs": {}}, "structured_outputs"),
    ],
)
async def test_an_error_about_a_grammar_names_the_client_s_field(
    body: dict[str, object], param: str
) -> None:
    """VLLM names its own, of which it has made one of all others."""
    named: list[str | None] = []

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        record_grammar_fields(of_completion(body))
        assert current_call() is not None
        named.append(in_words_of_openai(REFUSED, None, CHAT).param)

    async def nothing(*_: object) -> None:
        raise AssertionError

    await with_call_context(app)({"type": "http", "headers": []}, nothing, nothing)  # type: ignore[arg-type]
    assert named == [param]


@pytest.mark.parametrize(
    ("path", "param"),
    [("/v1/responses", "text.format"), ("/v1/messages", "output_config.format")],
)
def test_where_nothing_is_known_the_route_says_what_a_grammar_is_made_of(
    path: str, param: str
) -> None:
    """Each API has a field for the form of its answers."""
    assert in_words_of_openai(REFUSED, None, path).param == param


def test_a_grammar_s_key_error_is_no_reason() -> None:
    """The compiler names a key of its own."""
    text = "the grammar is refused: Invalid grammar specification: 'triggers'"
    assert in_words_of_openai(text, "tools", CHAT).message.endswith(
        "refused: it cannot be compiled."
    )

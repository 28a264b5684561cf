"""Fields that grammars come from, by API."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from deployments.engines.call import GrammarFields, current_call, with_call_context
from deployments.engines.vllm.api.error_words import in_words_of_openai
from deployments.engines.vllm.api.grammar_fields import (
    of_completion,
    of_message,
    of_response,
    record_grammar_fields,
)
from gateway.asgi import Message, Receive, Scope, Send
from gateway.errors.anthropic import anthropic_message

Of = Callable[[Mapping[str, Any]], GrammarFields]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
TAG = {"type": "structural_tag", "format": {}}
OWN = "structured_outputs"


@pytest.mark.parametrize(
    ("of", "body", "form", "tools"),
    [
        (of_completion, {}, None, None),
        (of_completion, {"structured_outputs": {"regex": "a"}}, OWN, None),
        (of_completion, {"response_format": SCHEMA}, "response_format", None),
        (of_completion, {"response_format": {"type": "text"}, "tools": [{}]}, None, "tools"),
        (of_completion, {"tools": [{}], "tool_choice": "none"}, None, None),
        (of_completion, {"tools": [{}], "tool_choice": {"type": "function"}}, None, "tools"),
        (of_completion, {"functions": [{}]}, None, "functions"),
        (of_completion, {"functions": [{}], "function_call": "none"}, None, None),
        (of_completion, {"tools": [{}], "response_format": TAG}, "response_format", None),
        (of_completion, {"tools": [{}], "structured_outputs": {"structural_tag": "{}"}}, OWN, None),
        (of_response, {"text": {"format": {"type": "json_schema"}}}, "text.format", None),
        (of_response, {"text": {"verbosity": "low"}, "tools": [{}]}, None, "tools"),
        (of_response, {"tools": [{}], "tool_choice": "none"}, None, None),
        (of_message, {"output_config": {"format": {}}}, "output_config.format", None),
        (of_message, {"output_format": {}, "output_config": {}}, "output_format", None),
        (of_message, {"output_config": {"effort": "low"}, "tools": [{}]}, None, "tools"),
    ],
)
def test_a_grammar_comes_from_the_clients_own_field(
    of: Of, body: dict[str, Any], form: str, tools: str | None
) -> None:
    """By the name that the client has used."""
    assert of(body) == GrammarFields(form, tools)


async def test_they_are_noted_for_the_call() -> None:
    """Each call has its own; without one nothing is noted."""
    record_grammar_fields(GrammarFields("nowhere"))
    found: list[object] = []

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        call = current_call()
        assert call
        found.append(call.grammar_fields)
        record_grammar_fields(GrammarFields("text.format"))
        found.append(call.grammar_fields)

    async def receive() -> Message:
        raise AssertionError

    async def send(_: Message) -> None:
        raise AssertionError

    await with_call_context(app)({"type": "http", "headers": []}, receive, send)
    assert found == [GrammarFields(), GrammarFields("text.format")]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/chat/completions"])
def test_a_refused_grammar_names_that_field(path: str) -> None:
    """In OpenAI's form; and before the message in Anthropic's."""
    text = "the grammar is refused: it is none (parameter=output_format)"
    detail = in_words_of_openai(text, None, path)
    assert (detail.param, detail.code) == ("output_format", "invalid_value")
    assert anthropic_message(detail) == "output_format: the grammar is refused: it is none"

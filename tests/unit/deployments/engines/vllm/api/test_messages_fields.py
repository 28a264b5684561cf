"""Fields of Anthropic's requests beside the messages."""

from typing import Any

import pytest

from deployments.engines.vllm.api.asked_message import AskedMessage, asked_message
from deployments.engines.vllm.api.messages_fields import adopt_format, check_fields
from deployments.engines.vllm.api.refused_request import RefusedRequest

Body = dict[str, Any]
FORM: Body = {"type": "json_schema", "schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_type"),
        ({"temperature": 1.5}, "temperature", "decimal_above_max_value"),
        ({"top_p": -0.1}, "top_p", "decimal_below_min_value"),
        ({"top_k": -2}, "top_k", "integer_below_min_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"metadata": "me"}, "metadata", "invalid_type"),
        ({"speed": "fast"}, "speed", "invalid_value"),
        ({"stop_sequences": "x"}, "stop_sequences", "invalid_type"),
        ({"stop_sequences": [5]}, "stop_sequences[0]", "invalid_type"),
        ({"stop_sequences": ["x", " \n"]}, "stop_sequences[1]", "invalid_value"),
        ({"mcp_servers": [{}]}, "mcp_servers", "unsupported_parameter"),
        ({"container": "c"}, "container", "unsupported_parameter"),
        ({"context_management": []}, "context_management", "invalid_type"),
        ({"context_management": {"edits": {}}}, "context_management.edits", "invalid_type"),
        (
            *({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},),
            *("context_management.edits[0].type", "unsupported_parameter"),
        ),
    ],
)
def test_fields_are_refused(body: Body, param: str, code: str) -> None:
    """Those that are wrong, and those that would change the answer and cannot."""
    with pytest.raises(RefusedRequest) as refused:
        check_fields(body)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"max_tokens": 1, "temperature": 1, "top_p": 0, "top_k": -1, "stream": None},
        {"stop_sequences": [], "metadata": {"user_id": "u"}, "speed": "standard"},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"mcp_servers": [], "container": None, "nobody_knows": 1},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
    ],
)
def test_permissions_and_hints_pass(body: Body) -> None:
    """And what asks for nothing."""
    check_fields(body)


@pytest.mark.parametrize(
    "body",
    [
        {"output_config": {"format": FORM, "effort": "low"}},
        {"output_config": {"effort": "low"}, "output_format": FORM},
    ],
)
def test_the_betas_format_is_that_of_today(body: Body) -> None:
    """Beside the other fields of its configuration."""
    adopt_format(body)
    assert body == {"output_config": {"format": FORM, "effort": "low"}}


@pytest.mark.parametrize("body", [{}, {"output_config": None}, {"output_config": {}}])
def test_a_request_without_a_format_stays_as_it_is(body: Body) -> None:
    """Nothing is added."""
    before = dict(body)
    adopt_format(body)
    assert body == before


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"output_config": "json"}, "output_config", "invalid_type"),
        (
            {"output_config": {"format": FORM}, "output_format": FORM},
            "output_format",
            "unsupported",
        ),
        ({"output_config": {"format": []}}, "output_config.format", "invalid_type"),
        (
            {"output_config": {"format": {"type": "x"}}},
            "output_config.format.type",
            "invalid_value",
        ),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema", "missing_required"),
        ({"output_format": {**FORM, "schema": 1}}, "output_format.schema", "invalid_type"),
    ],
)
def test_a_format_that_is_none_is_refused(body: Body, param: str, code: str) -> None:
    """By the field that the client has written."""
    with pytest.raises(RefusedRequest) as refused:
        adopt_format(body)
    assert refused.value.param == param
    assert refused.value.code.startswith(code)


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({}, AskedMessage()),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}},
            AskedMessage(hides_thinking=True),
        ),
        ({"thinking": {"type": "enabled", "display": "summarized"}}, AskedMessage()),
        ({"thinking": None}, AskedMessage()),
    ],
)
def test_thoughts_are_left_out_where_that_is_asked(body: Body, asked: AskedMessage) -> None:
    """Without a router the tier is the standard one."""
    assert asked_message(body, is_begun=False) == asked

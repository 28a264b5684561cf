"""Tools of Anthropic's requests."""

from typing import Any

import pytest

from deployments.engines.vllm.api.messages_tools import adopt_tools
from deployments.engines.vllm.api.refused_request import RefusedRequest

Body = dict[str, Any]
F: Body = {"name": "f", "description": "F.", "input_schema": {"type": "object"}}
G: Body = {"type": "custom", "name": "g", "input_schema": {}, "cache_control": {}}


@pytest.mark.parametrize(
    "choice", [None, {"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "g"}]
)
def test_tools_of_the_client_stay_as_they_are(choice: Body | None) -> None:
    """With the choice among them."""
    body: Body = {"tools": [F, G], "tool_choice": choice}
    adopt_tools(body)
    assert body == {"tools": [F, G], "tool_choice": choice}


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [F], "tool_choice": {"type": "none"}},
        {"tools": []},
        {"tools": None, "tool_choice": None},
        {"tool_choice": {"type": "auto"}},
        {},
    ],
)
def test_tools_that_must_not_be_used_are_not_shown(body: Body) -> None:
    """A model that sees tools would call them."""
    adopt_tools(body)
    assert body == {}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tools": ["f"]}, "tools[0]", "invalid_type"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type", "unsupported"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{**F, "name": "f g"}]}, "tools[0].name", "invalid_value"),
        ({"tools": [{**F, "name": "f" * 129}]}, "tools[0].name", "invalid_value"),
        ({"tools": [F, {"name": "g"}]}, "tools[1].input_schema", "missing_required_parameter"),
        ({"tools": [{**F, "input_schema": "x"}]}, "tools[0].input_schema", "invalid_type"),
        (
            *({"tools": [{**F, "input_schema": {"type": "array"}}]},),
            *("tools[0].input_schema.type", "invalid_value"),
        ),
        ({"tools": [{**F, "description": 5}]}, "tools[0].description", "invalid_type"),
        ({"tools": [F, F]}, "tools", "invalid_value"),
        ({"tools": [F], "tool_choice": "any"}, "tool_choice", "invalid_type"),
        ({"tools": [F], "tool_choice": {"type": "all"}}, "tool_choice.type", "invalid_value"),
        ({"tools": [F], "tool_choice": {"type": "tool"}}, "tool_choice.name", "missing_required"),
        (
            *({"tools": [F], "tool_choice": {"type": "tool", "name": "g"}},),
            *("tool_choice.name", "invalid_value"),
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "invalid_value"),
        ({"tools": [], "tool_choice": {"type": "tool"}}, "tool_choice", "invalid_value"),
    ],
)
def test_tools_that_do_not_work_are_refused(body: Body, param: str, code: str) -> None:
    """By the field that is wrong."""
    with pytest.raises(RefusedRequest) as refused:
        adopt_tools(body)
    assert refused.value.param == param
    assert refused.value.code.startswith(code)

"""Tools of a chat request in vLLM's terms."""

import json
from typing import Any

import pytest

from deployments.engines.vllm.api.refused_request import RefusedRequest
from deployments.engines.vllm.api.tool_calls import call_id, custom_input
from deployments.engines.vllm.api.tools import ToolForm, adopt_calls, adopt_tools

F = {"name": "f", "parameters": {"type": "object"}}
G = {"name": "g"}
TOOL_F, TOOL_G = ({"type": "function", "function": each} for each in (F, G))
CUSTOM = {"type": "custom", "custom": {"name": "c"}}


def grammar(syntax: str) -> dict[str, Any]:
    """A custom tool whose input follows a grammar."""
    form = {"type": "grammar", "grammar": {"syntax": syntax, "definition": "[a-c]+"}}
    return {"type": "custom", "custom": {"name": "c", "format": form}}


@pytest.mark.parametrize(
    ("call", "choice"),
    [(None, "auto"), ("none", "none"), ({"name": "g"}, {"type": "function", "function": G})],
)
def test_functions_are_tools(call: Any, choice: Any) -> None:
    """The names of tools until 2023 still work; there is one call at a time."""
    body = {"functions": [F, G], "function_call": call}
    assert adopt_tools(body) == ToolForm(is_legacy=True)
    assert body == {
        "tools": [TOOL_F, TOOL_G],
        "tool_choice": choice,
        "parallel_tool_calls": False,
    }


def test_only_allowed_tools_are_shown() -> None:
    """The model sees the tools of the choice, which it may or must call."""
    allowed = {"mode": "required", "tools": [TOOL_G]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    body: dict[str, Any] = {"tools": [TOOL_F, TOOL_G], "tool_choice": choice}
    adopt_tools(body)
    assert body == {"tools": [TOOL_G], "tool_choice": "required"}


def test_a_custom_tool_is_a_function_with_one_string() -> None:
    """A regular expression becomes the pattern of the string."""
    body: dict[str, Any] = {
        "tools": [grammar("regex")],
        "tool_choice": {"type": "custom", "custom": {"name": "c"}},
    }
    assert adopt_tools(body).custom == {"c"}
    function = body["tools"][0]["function"]
    text = function["parameters"]["properties"]["input"]
    assert (text["type"], text["pattern"]) == ("string", "[a-c]+")
    assert body["tool_choice"] == {"type": "function", "function": {"name": "c"}}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"tools": [grammar("lark")]}, "tools[0].custom.format.grammar.syntax", "unsupported"),
        ({"tools": [{"type": "nonsense"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "missing"),
        ({"tools": []}, "tools", "empty_array"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL_F], "tool_choice": TOOL_G}, "tool_choice.function.name", "invalid_value"),
        ({"functions": [F], "tools": [TOOL_F]}, "functions", "unsupported"),
        ({"functions": [F], "function_call": G}, "function_call.name", "invalid_value"),
        ({"function_call": "auto"}, "function_call", "invalid_value"),
    ],
)
def test_what_is_not_supported_is_refused(body: dict[str, Any], param: str, code: str) -> None:
    """A tool, or a choice among them, is used or refused with the field that asks for it."""
    with pytest.raises(RefusedRequest) as refused:
        adopt_tools(body)
    assert refused.value.param == param
    assert refused.value.code.startswith(code)


def test_turns_of_the_past_are_calls_and_results_of_tools() -> None:
    """A function's result belongs to the call before it; a custom tool's input is an argument."""
    custom = {"id": "call_9", "type": "custom", "custom": {"name": "c", "input": "x"}}
    calling, result, writing = adopt_calls(
        [
            {"role": "assistant", "content": None, "function_call": {"name": "f"}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "tool_calls": [custom]},
        ]
    )
    (call,) = calling["tool_calls"]
    assert result == {"role": "tool", "name": "f", "content": "1", "tool_call_id": call["id"]}
    assert "function_call" not in calling
    function = writing["tool_calls"][0]["function"]
    assert function["name"] == "c"
    assert json.loads(function["arguments"]) == {"input": "x"}


def test_ids_of_calls_are_openais() -> None:
    """Ids that a model has to see again stay as they are."""
    assert call_id("chatcmpl-tool-1a") == "call_1a"
    assert call_id("functions.f:0") == "functions.f:0"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [('{"input": "a\\nb"}', "a\nb"), ('{"input": "a\\', "a"), ('{"inp', ""), ('{"input":"ü', "ü")],
)
def test_a_custom_tools_input_may_be_cut(arguments: str, text: str) -> None:
    """Of arguments that are cut off, the text so far is the input."""
    assert custom_input(arguments) == text

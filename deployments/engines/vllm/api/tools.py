"""Tools of a chat request in vLLM's terms: functions, custom tools, and the choice among them.

A custom tool is shown to the model as a function with one string, `input`. What the model's answer
is to look like in return, the `ToolForm` says.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.engines.vllm.api.custom_tools import (
    INPUT,
    check_format,
    input_schema,
    pattern_of,
)
from deployments.engines.vllm.api.field_checks import non_empty
from deployments.engines.vllm.api.refusals import (
    check_list,
    check_object,
    check_value,
    invalid_value,
    missing,
    unsupported,
)
from deployments.engines.vllm.api.refused_request import RefusedRequest

GRAMMAR = "grammar"
"""Field of a custom tool's format that has its grammar."""
CHOICES = ("none", "auto", "required")
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolForm:
    """How an answer writes the calls of a model."""

    is_legacy: bool = False
    """Whether the request has `functions`: a call is the message's `function_call`."""
    custom: frozenset[str] = field(default_factory=frozenset)
    """Names of the custom tools."""


def adopt_tools(body: Body) -> ToolForm:
    """Rewrite the tools of a request, in place, and say how to write calls.

    Raises:
        RefusedRequest: a tool or the choice is not supported.
    """
    form = _adopt_functions(body)
    tools = body.get("tools")
    if tools is None:
        if body.get("tool_choice") not in (None, "none"):
            message = "'tool_choice' is only allowed when 'tools' are specified."
            raise RefusedRequest(message, param="tool_choice", code="invalid_value")
        return form
    check_list("tools", tools)
    non_empty("tools", tools)
    for place, tool in enumerate(tools):
        _check_tool(f"tools[{place}]", tool)
    custom = frozenset(_name(tool) for tool in tools if tool["type"] == "custom")
    body["tools"] = [_function(tool) for tool in tools]
    if isinstance(body.get("tool_choice"), dict):
        _adopt_choice(body)
    elif body.get("tool_choice") is not None:
        check_value("tool_choice", body["tool_choice"], CHOICES)
    return ToolForm(form.is_legacy, custom)


def _adopt_functions(body: Body) -> ToolForm:
    """`functions` and `function_call`, the names of tools until 2023, as tools."""
    functions, call = body.pop("functions", None), body.pop("function_call", None)
    if functions is None:
        if call not in (None, "none"):
            message = "'function_call' is only allowed when 'functions' are specified."
            raise RefusedRequest(message, param="function_call", code="invalid_value")
        return ToolForm()
    check_list("functions", functions)
    non_empty("functions", functions)
    if body.get("tools") is not None:
        raise unsupported("functions", "A request has either 'tools' or 'functions'.")
    for place, function in enumerate(functions):
        _check_function(f"functions[{place}]", function)
    body["tools"] = [{"type": "function", "function": function} for function in functions]
    body["tool_choice"] = _choice_of_function(functions, call)
    body["parallel_tool_calls"] = False
    return ToolForm(is_legacy=True)


def _choice_of_function(functions: Sequence[Body], call: Any) -> Any:  # noqa: ANN401 - JSON
    """The `tool_choice` that a `function_call` stands for."""
    if isinstance(call, dict):
        names = [function["name"] for function in functions]
        if call.get("name") not in names:
            raise invalid_value("function_call.name", call.get("name"), names)
        return {"type": "function", "function": {"name": call["name"]}}
    if call is not None:
        check_value("function_call", call, ("none", "auto"))
    return call or "auto"


def adopt_calls(messages: Sequence[Any]) -> list[Any]:
    """The messages of a request, whose calls are all calls of functions, and results of tools."""
    last_call = "call_0"
    adopted = []
    for place, message in enumerate(messages):
        role, changed = message.get("role"), message
        if role == "function":
            changed = {**message, "role": "tool", "tool_call_id": last_call}
        elif role == "assistant" and message.get("function_call") is not None:
            last_call = f"call_{place}"
            changed = _with_call(message, last_call)
        elif role == "assistant" and isinstance(message.get("tool_calls"), list):
            calls = [_function_call(call) for call in message["tool_calls"]]
            changed = {**message, "tool_calls": calls}
        adopted.append(changed)
    return adopted


def _with_call(message: Mapping[str, Any], call_id: str) -> Body:
    changed = dict(message)
    function = changed.pop("function_call")
    changed["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
    return changed


def _function_call(call: Any) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(call, dict) or call.get("type") != "custom":
        return call
    custom = call.get("custom")
    if not isinstance(custom, dict):
        return call
    arguments = json.dumps({INPUT: custom.get("input", "")}, ensure_ascii=False)
    function = {"name": custom.get("name"), "arguments": arguments}
    return {"id": call.get("id"), "type": "function", "function": function}


def _check_tool(param: str, tool: Any) -> None:  # noqa: ANN401 - JSON
    check_object(param, tool)
    kind = tool.setdefault("type", "function")  # as vLLM does
    check_value(f"{param}.type", kind, ("function", "custom"))
    if tool.get(kind) is None:
        raise missing(f"{param}.{kind}")
    if kind == "function":
        _check_function(f"{param}.function", tool["function"])
    else:
        _check_custom(f"{param}.custom", tool["custom"])


def _check_function(param: str, function: Any) -> None:  # noqa: ANN401 - JSON
    _check_name(param, function)
    if function.get("parameters") is not None:
        check_object(f"{param}.parameters", function["parameters"])


def _check_name(param: str, tool: Any) -> None:  # noqa: ANN401 - JSON
    check_object(param, tool)
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        raise missing(f"{param}.name")


def _check_custom(param: str, custom: Any) -> None:  # noqa: ANN401 - JSON
    _check_name(param, custom)
    if custom.get("format") is not None:
        check_format(f"{param}.format", custom["format"], GRAMMAR)


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool[tool["type"]]["name"])


def _function(tool: Body) -> Body:
    """A tool as a function."""
    if tool["type"] == "function":
        return tool
    custom = tool["custom"]
    function = {
        "name": custom["name"],
        "description": custom.get("description") or "",
        "parameters": input_schema(pattern_of(custom.get("format"), GRAMMAR)),
        "strict": True,
    }
    return {"type": "function", "function": function}


def _adopt_choice(body: Body) -> None:
    """Write a choice that is an object as vLLM understands it."""
    choice = body["tool_choice"]
    check_value("tool_choice.type", choice.get("type"), ("function", "custom", "allowed_tools"))
    kind = choice["type"]
    check_object(f"tool_choice.{kind}", choice.get(kind))
    if kind == "allowed_tools":
        _allow_tools(body, choice[kind])
        return
    name = _chosen(body["tools"], f"tool_choice.{kind}.name", choice[kind])
    body["tool_choice"] = {"type": "function", "function": {"name": name}}


def _allow_tools(body: Body, allowed: Mapping[str, Any]) -> None:
    param = "tool_choice.allowed_tools"
    check_value(f"{param}.mode", allowed.get("mode"), ("auto", "required"))
    check_list(f"{param}.tools", allowed.get("tools"))
    names = set()
    for place, tool in enumerate(allowed["tools"]):
        check_object(f"{param}.tools[{place}]", tool)
        kind = tool.get("type")
        check_value(f"{param}.tools[{place}].type", kind, ("function", "custom"))
        check_object(f"{param}.tools[{place}].{kind}", tool.get(kind))
        names.add(_chosen(body["tools"], f"{param}.tools[{place}].{kind}.name", tool[kind]))
    if not names:
        raise missing(f"{param}.tools[0]")
    body["tools"] = [tool for tool in body["tools"] if _name(tool) in names]
    body["tool_choice"] = allowed["mode"]


def _chosen(tools: Sequence[Body], param: str, tool: Mapping[str, Any]) -> str:
    names = [_name(each) for each in tools]
    if tool.get("name") not in names:
        raise invalid_value(param, tool.get("name"), names)
    return str(tool["name"])

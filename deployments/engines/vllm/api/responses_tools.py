"""Tools of a request to `/v1/responses`, and the choice among them, in vLLM's terms.

Hosted tools, which OpenAI runs itself, do not run here. Agents list them among their own, and work
without: so they are left out, and the answer names them in a header. A request that has no other
tool, or whose choice is a hosted one, is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.engines.vllm.api.custom_tools import check_format
from deployments.engines.vllm.api.refusals import (
    check_list,
    check_object,
    check_value,
    invalid_value,
    missing,
    unsupported,
)

HOSTED = frozenset(
    {
        *("apply_patch", "code_interpreter", "computer", "computer_use", "computer_use_preview"),
        *("file_search", "image_generation", "local_shell", "mcp", "programmatic_tool_calling"),
        *("shell", "tool_search", "web_search", "web_search_2025_08_26", "web_search_preview"),
        "web_search_preview_2025_03_11",
    }
)
"""Types of the tools that OpenAI, or a model trained for them, brings along."""
OWN = ("function", "custom", "namespace")
"""Types of the tools that a request itself defines."""
CHOICES = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools that the model may call, and its choice among them."""

    tools: Sequence[Mapping[str, Any]]
    """As the request has them, without those that are left out."""
    choice: Any
    """`none`, `auto`, `required` or one tool, as vLLM takes it."""
    left_out: Sequence[str]
    """Types of the hosted tools that are left out, each once."""


def tool_use(tools: Any, choice: Any) -> ToolUse:  # noqa: ANN401 - JSON
    """What a request's `tools` and `tool_choice` come to.

    Raises:
        RefusedRequest: a tool or the choice is not supported.
    """
    check_list("tools", tools)
    for place, tool in enumerate(tools):
        _check_tool(f"tools[{place}]", tool)
    own = [tool for tool in tools if tool["type"] in OWN]
    left_out = list(dict.fromkeys(tool["type"] for tool in tools if tool["type"] in HOSTED))
    if left_out and not own and choice != "none":
        raise _is_hosted("tools", left_out[0])
    return ToolUse(*_chosen(own, choice), left_out)


def _check_tool(param: str, tool: Any) -> None:  # noqa: ANN401 - JSON
    check_object(param, tool)
    if tool.get("type") is None:
        raise missing(f"{param}.type")
    check_value(f"{param}.type", tool["type"], (*OWN, *sorted(HOSTED)))
    if tool["type"] in OWN:
        if not isinstance(tool.get("name"), str):
            raise missing(f"{param}.name")
        _DETAILS[tool["type"]](param, tool)


def _check_function(param: str, tool: Mapping[str, Any]) -> None:
    if tool.get("parameters") is not None:
        check_object(f"{param}.parameters", tool["parameters"])


def _check_custom(param: str, tool: Mapping[str, Any]) -> None:
    if tool.get("format") is not None:
        check_format(f"{param}.format", tool["format"])


def _check_namespace(param: str, tool: Mapping[str, Any]) -> None:
    check_list(f"{param}.tools", tool.get("tools"))
    for place, each in enumerate(tool["tools"]):
        _check_tool(f"{param}.tools[{place}]", each)
        if each["type"] != "function":
            raise unsupported(f"{param}.tools[{place}]", "A namespace holds functions here.")


def _chosen(tools: list[Mapping[str, Any]], choice: Any) -> tuple[list[Mapping[str, Any]], Any]:  # noqa: ANN401
    """The tools that the model is shown, and vLLM's `tool_choice`."""
    if isinstance(choice, str):
        check_value("tool_choice", choice, CHOICES)
        return tools, choice
    check_object("tool_choice", choice)
    kind = choice.get("type")
    if kind in HOSTED:
        raise _is_hosted("tool_choice", kind)
    if kind == "allowed_tools":
        return _allowed(tools, choice)
    check_value("tool_choice.type", kind, ("function", "custom", "allowed_tools"))
    if not isinstance(choice.get("name"), str):
        raise missing("tool_choice.name")
    if choice["name"] not in _names(tools):
        raise invalid_value("tool_choice", choice["name"], sorted(_names(tools)))
    return tools, choice


def _allowed(tools: list[Mapping[str, Any]], choice: Any) -> tuple[list[Mapping[str, Any]], str]:  # noqa: ANN401
    """The allowed ones among the tools; hosted tools may be allowed among others."""
    check_value("tool_choice.mode", choice.get("mode"), ("auto", "required"))
    check_list("tool_choice.tools", choice.get("tools"))
    names = set()
    for place, each in enumerate(choice["tools"]):
        param = f"tool_choice.tools[{place}]"
        check_object(param, each)
        if each.get("type") in HOSTED:
            continue
        if each.get("name") not in _names(tools):
            raise invalid_value(param, each.get("name"), sorted(_names(tools)))
        names.add(each["name"])
    if not names:
        hosted = [each["type"] for each in choice["tools"]]
        raise _is_hosted("tool_choice", hosted[0]) if hosted else missing("tool_choice.tools[0]")
    return [tool for tool in tools if _names([tool]) & names], choice["mode"]


def _names(tools: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of tools, in namespaces also with that before it."""
    names = {tool["name"] for tool in tools}
    for tool in tools:
        for each in tool.get("tools") or ():
            names |= {each["name"], f"{tool['name']}__{each['name']}"}
    return names


def _is_hosted(param: str, kind: str) -> Exception:
    reason = f"The hosted tool '{kind}' does not run on this server; functions and custom tools do."
    return unsupported(param, reason)


_DETAILS: Mapping[str, Callable[[str, Mapping[str, Any]], None]] = {
    "function": _check_function,
    "custom": _check_custom,
    "namespace": _check_namespace,
}

"""Custom tools whose input has to match a regular expression, as vLLM takes them."""

from collections.abc import Mapping
from typing import Any

from openai.types.responses import FunctionTool
from vllm.tool_parsers.utils import CUSTOM_TOOL_INPUT_KEY, custom_tool_parameters


class PatternTool(FunctionTool):
    """A custom tool whose input has to match a regular expression.

    vLLM shows a custom tool to the model as a function with one string, and takes calls of tools
    of the type `custom` back apart. This one is such a function, which says in its schema what the
    string may be; it is serialized as a function, and `type` is what vLLM asks it for.
    """


PatternTool.type = property(lambda _: "custom")  # type: ignore[assignment]


def vllm_tool(tool: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a dict, or a tool of vLLM's
    """A tool that has passed `tool_use`, as vLLM understands it."""
    form = tool.get("format") or {}
    if tool["type"] != "custom" or form.get("type") != "grammar":
        return tool
    parameters = custom_tool_parameters()
    parameters["properties"][CUSTOM_TOOL_INPUT_KEY]["pattern"] = form["definition"]
    shown = {name: tool[name] for name in ("name", "description") if name in tool}
    return PatternTool(type="function", parameters=parameters, strict=True, **shown)

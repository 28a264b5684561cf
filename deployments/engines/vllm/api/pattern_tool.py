"""Custom tools whose input has to match a regular expression, as vLLM takes them."""

from collections.abc import Mapping
from typing import Any

from openai.types.responses import FunctionTool

from deployments.engines.vllm.api.custom_tools import input_schema, pattern_of


class PatternTool(FunctionTool):
    """A custom tool whose input has to match a regular expression.

    vLLM shows a custom tool to the model as a function with one string, and takes calls of tools
    of the type `custom` back apart. This one is such a function, which says in its schema what the
    string may be; it is serialized as a function, and `type` is what vLLM asks it for.
    """


PatternTool.type = property(lambda _: "custom")  # type: ignore[assignment]


def vllm_tool(tool: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a dict, or a tool of vLLM's
    """A tool that has passed `tool_use`, as vLLM understands it."""
    pattern = pattern_of(tool.get("format")) if tool["type"] == "custom" else None
    if pattern is None:
        return tool
    shown = {name: tool[name] for name in ("name", "description") if name in tool}
    return PatternTool(type="function", parameters=input_schema(pattern), strict=True, **shown)

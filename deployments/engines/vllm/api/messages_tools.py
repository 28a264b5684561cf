"""Tools of Anthropic's requests: those that clients define, and the choice among them."""

import re
from collections.abc import Sequence
from typing import Any

from deployments.engines.vllm.api.refusals import (
    check_list,
    check_object,
    check_value,
    invalid_type,
    invalid_value,
    missing,
    unsupported,
)
from deployments.engines.vllm.api.refused_request import RefusedRequest

Body = dict[str, Any]
CHOICES = ("auto", "any", "tool", "none")
NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def adopt_tools(body: Body) -> None:
    """Check the tools of a request; those that it must not use are left out.

    Raises:
        RefusedRequest: a tool runs at Anthropic's only, or is wrong; or the choice is.
    """
    tools = body.get("tools")
    names = []
    if tools is not None:
        check_list("tools", tools)
        names = [_checked_name(f"tools[{place}]", tool) for place, tool in enumerate(tools)]
        if len(set(names)) < len(names):
            raise RefusedRequest("Tool names must be unique.", param="tools", code="invalid_value")
    choice = body.get("tool_choice")
    if choice is not None:
        _check_choice(choice, names)
    if not tools or (choice is not None and choice["type"] == "none"):
        # A model that sees tools would call them.
        body.pop("tools", None)
        body.pop("tool_choice", None)


def _checked_name(param: str, tool: Any) -> str:  # noqa: ANN401 - JSON
    check_object(param, tool)
    kind = tool.get("type")
    if kind not in (None, "custom"):
        reason = f"A tool of type {kind!r} does not run here. Define it with an 'input_schema'."
        raise unsupported(f"{param}.type", reason)
    if tool.get("name") is None:
        raise missing(f"{param}.name")
    name = tool["name"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        message = f"String should match pattern '^{NAME.pattern}$'"
        raise RefusedRequest(message, param=f"{param}.name", code="invalid_value")
    if tool.get("input_schema") is None:
        raise missing(f"{param}.input_schema")
    check_object(f"{param}.input_schema", tool["input_schema"])
    kind = tool["input_schema"].get("type", "object")
    check_value(f"{param}.input_schema.type", kind, ("object",))
    if not isinstance(tool.get("description"), str | None):
        raise invalid_type(f"{param}.description", "a string", tool["description"])
    return name


def _check_choice(choice: Any, names: Sequence[str]) -> None:  # noqa: ANN401 - JSON
    check_object("tool_choice", choice)
    check_value("tool_choice.type", choice.get("type"), CHOICES)
    if choice["type"] in ("any", "tool") and not names:
        message = "a tool can only be called where 'tools' are given"
        raise RefusedRequest(message, param="tool_choice", code="invalid_value")
    if choice["type"] != "tool":
        return
    if choice.get("name") is None:
        raise missing("tool_choice.name")
    if choice["name"] not in names:
        raise invalid_value("tool_choice.name", choice["name"], names)

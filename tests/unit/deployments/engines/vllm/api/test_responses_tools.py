"""Tools of the Responses API, and the choice among them."""

from typing import Any

import pytest

from deployments.engines.vllm.api.refused_request import RefusedRequest
from deployments.engines.vllm.api.responses_tools import tool_use

FUNCTION = {"type": "function", "name": "f", "parameters": {}}
OTHER = {"type": "custom", "name": "g"}
SEARCH = {"type": "web_search"}
LARK = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}


def allowed(*tools: dict[str, str], mode: str = "required") -> dict[str, object]:
    """A choice of these tools."""
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}


def test_hosted_tools_among_others_are_left_out_and_named() -> None:
    """An agent goes on with its own tools."""
    use = tool_use([SEARCH, FUNCTION, SEARCH], "auto")
    assert (use.tools, use.left_out) == ([FUNCTION], ["web_search"])


def test_allowed_tools_are_those_that_the_model_is_shown() -> None:
    """With the mode as the choice."""
    use = tool_use([FUNCTION, OTHER], allowed({"type": "custom", "name": "g"}))
    assert (use.tools, use.choice) == ([OTHER], "required")


@pytest.mark.parametrize(
    ("tools", "choice", "param", "code"),
    [
        ([SEARCH], "auto", "tools", "unsupported_parameter"),
        ([SEARCH, FUNCTION], SEARCH, "tool_choice", "unsupported_parameter"),
        ([SEARCH, FUNCTION], allowed(SEARCH), "tool_choice", "unsupported_parameter"),
        ([FUNCTION], "any", "tool_choice", "invalid_value"),
        ([FUNCTION], {"type": "function", "name": "g"}, "tool_choice", "invalid_value"),
        ([FUNCTION], allowed({"name": "g"}), "tool_choice.tools[0]", "invalid_value"),
        ([{"type": "bogus"}], "auto", "tools[0].type", "invalid_value"),
        ([{"type": "function"}], "auto", "tools[0].name", "missing_required_parameter"),
        ([{**OTHER, "format": LARK}], "auto", "tools[0].format.syntax", "unsupported_param"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(
    tools: Any,
    choice: Any,
    param: str,
    code: str,
) -> None:
    """Each by the field that asks for it."""
    with pytest.raises(RefusedRequest) as refused:
        tool_use(tools, choice)
    assert refused.value.param == param
    assert refused.value.code.startswith(code)

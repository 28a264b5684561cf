"""The field of a request that its answer's grammar is made of, for errors about that grammar.

vLLM makes one grammar of a response's format, the schemas of tools and its own field, and names
the latter in its errors.
"""

from collections.abc import Mapping
from typing import Any

from deployments.engines.call import current_call


def record_grammar_field(
    body: Mapping[str, Any], *, form: str = "response_format", tools: str = "tools"
) -> None:
    """Note the field of the request that is worked on; called with `body` in vLLM's terms.

    `form`, `tools`: what the client calls the form of its answer, and its tools.
    """
    if (call := current_call()) is not None:
        call.grammar_field = _field(body, form, tools)


def grammar_field() -> str | None:
    """The field of the request that is worked on; None if it is not known."""
    call = current_call()
    return None if call is None else call.grammar_field


def _field(body: Mapping[str, Any], form: str, tools: str) -> str | None:
    has_tools = bool(body.get("tools"))
    if has_tools and body.get("tool_choice") not in (None, "auto", "none"):
        return tools
    if body.get("response_format") is not None or body.get("text") is not None:
        return form
    if body.get("structured_outputs") is not None:
        return "structured_outputs"
    return tools if has_tools else None

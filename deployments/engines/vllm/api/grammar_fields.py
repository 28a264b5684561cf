"""The fields of each API from which vLLM makes grammars, for the errors that name them."""

from collections.abc import Mapping
from typing import Any

from deployments.engines.call import GrammarFields, current_call

Body = Mapping[str, Any]
OWN = "structured_outputs"
"""vLLM's own field, which OpenAI's APIs have here, too."""


def record_grammar_fields(fields: GrammarFields) -> None:
    """Note the fields of the call that is worked on, if there is one."""
    if (call := current_call()) is not None:
        call.grammar_fields = fields


def of_completion(body: Body) -> GrammarFields:
    """Those of a chat or text completion that has been checked, as its client wrote it."""
    tools = "functions" if body.get("functions") else "tools"
    if not body.get(tools) or body.get("tool_choice", body.get("function_call")) == "none":
        return _fields("response_format", body.get("response_format"), body, None)
    return _fields("response_format", body.get("response_format"), body, tools)


def of_response(body: Body) -> GrammarFields:
    """Those of a request to `/v1/responses` that has been checked, as its client wrote it."""
    form = (body.get("text") or {}).get("format")
    has_tools = body.get("tools") and body.get("tool_choice") != "none"
    return _fields("text.format", form, body, "tools" if has_tools else None)


def of_message(body: Body) -> GrammarFields:
    """Those of a request to `/v1/messages`, as its client wrote it; it need not be checked."""
    form = "output_config.format" if body.get("output_format") is None else "output_format"
    return GrammarFields(form, "tools")


def _fields(name: str, form: Body | None, body: Body, tools: str | None) -> GrammarFields:
    kind = (form or {}).get("type", "text")
    own = body.get(OWN) or {}
    if kind == "structural_tag" or (isinstance(own, Mapping) and own.get("structural_tag")):
        tools = None  # the tag is the client's own
    return GrammarFields(OWN if kind == "text" else name, tools)

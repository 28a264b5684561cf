"""The fields of each API from which vLLM makes grammars, for the errors that name them.

vLLM makes one grammar of a format, of the schemas of tools, or of its own field, and names the
latter in its errors.
"""

from collections.abc import Mapping
from typing import Any

from deployments.engines.call import GrammarFields, current_call

Body = Mapping[str, Any]
STRUCTURED_OUTPUTS = "structured_outputs"
"""vLLM's own field, which OpenAI's APIs have here, too."""


def record_grammar_fields(fields: GrammarFields) -> None:
    """Note the fields of the call that is worked on, if there is one."""
    if (call := current_call()) is not None:
        call.grammar_fields = fields


def grammar_field() -> str | None:
    """The field of the call that is worked on, the format first; None if it is not known."""
    call = current_call()
    return None if call is None else call.grammar_fields.format or call.grammar_fields.tools


def of_completion(body: Body) -> GrammarFields:
    """Those of a chat or text completion that has been checked, as its client wrote it."""
    tools = "functions" if body.get("functions") else "tools"
    choice = body.get("tool_choice", body.get("function_call"))
    has_tools = body.get(tools) and choice != "none"
    form = body.get("response_format")
    return _fields("response_format", form, body, tools if has_tools else None)


def of_response(body: Body) -> GrammarFields:
    """Those of a request to `/v1/responses` that has been checked, as its client wrote it."""
    form = (body.get("text") or {}).get("format")
    has_tools = body.get("tools") and body.get("tool_choice") != "none"
    return _fields("text.format", form, body, "tools" if has_tools else None)


def of_message(body: Body) -> GrammarFields:
    """Those of a request to `/v1/messages` that has been checked, as its client wrote it."""
    form = None
    if body.get("output_format") is not None:
        form = "output_format"
    elif (body.get("output_config") or {}).get("format") is not None:
        form = "output_config.format"
    return GrammarFields(form, "tools" if body.get("tools") else None)


def _fields(name: str, form: Body | None, body: Body, tools: str | None) -> GrammarFields:
    kind = (form or {}).get("type", "text")
    own = body.get(STRUCTURED_OUTPUTS)
    if kind == "structural_tag" or (isinstance(own, Mapping) and own.get("structural_tag")):
        tools = None  # the tag is the client's own
    if kind == "text":
        return GrammarFields(None if own is None else STRUCTURED_OUTPUTS, tools)
    return GrammarFields(name, tools)

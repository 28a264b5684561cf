"""Custom tools, whose input is a text: what chats and responses have in common of them.

vLLM shows one to the model as a function with one string. Where the text has to match a regular
expression, this is the string's pattern.
"""

from collections.abc import Mapping
from typing import Any

from deployments.engines.vllm.api.refusals import (
    check_object,
    check_value,
    missing,
    unsupported,
)

INPUT = "input"
"""Parameter of the function as which a custom tool is shown."""


def check_format(param: str, form: Any, holder: str | None = None) -> None:  # noqa: ANN401 - JSON
    """Refuse a format that is none, or a grammar that does not work here.

    `param`: where the format is. `holder`: field of the format that has its grammar, where this is
    an object of its own.

    Raises:
        RefusedRequest: it is such a format.
    """
    check_object(param, form)
    check_value(f"{param}.type", form.get("type"), ("text", "grammar"))
    if form["type"] == "text":
        return
    grammar = form
    if holder is not None:
        param, grammar = f"{param}.{holder}", form.get(holder)
        check_object(param, grammar)
    check_value(f"{param}.syntax", grammar.get("syntax"), ("lark", "regex"))
    if not isinstance(grammar.get("definition"), str):
        raise missing(f"{param}.definition")
    if grammar["syntax"] == "lark":
        reason = "Grammars of custom tools are supported as 'regex', and as 'text' without one."
        raise unsupported(f"{param}.syntax", reason)


def pattern_of(form: Mapping[str, Any] | None, holder: str | None = None) -> str | None:
    """The regular expression in a format that has been checked; None if there is none."""
    if form is None or form.get("type") != "grammar":
        return None
    grammar = form if holder is None else form[holder]
    return str(grammar["definition"])


def input_schema(pattern: str | None) -> dict[str, Any]:
    """The parameters of the function as which a custom tool is shown."""
    text = {"type": "string", "description": "The freeform text payload for this tool."}
    if pattern is not None:
        text["pattern"] = pattern
    return {
        "type": "object",
        "properties": {INPUT: text},
        "required": [INPUT],
        "additionalProperties": False,
    }

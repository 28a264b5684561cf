"""Fields of a request to `/v1/responses`: those that do not work here are refused."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from deployments.engines.vllm.api.field_checks import EFFORTS
from deployments.engines.vllm.api.refusals import (
    check_boolean,
    check_list,
    check_minimum,
    check_object,
    check_value,
    invalid_type,
    missing,
    unsupported,
)
from deployments.engines.vllm.api.refused_request import RefusedRequest

ENCRYPTED_REASONING, LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"
INCLUDABLE = (
    *(LOGPROBS, ENCRYPTED_REASONING, "code_interpreter_call.outputs"),
    *("computer_call_output.output.image_url", "file_search_call.results"),
    *("message.input_image.image_url", "web_search_call.action.sources"),
    "web_search_call.results",
)
"""Values of `include`. Hosted tools do not run, so that of theirs there is nothing to include."""
INCLUDABLE_FOR_VLLM = (LOGPROBS, ENCRYPTED_REASONING)
SUMMARIES = ("auto", "concise", "detailed")
TIERS = ("auto", "default", "flex", "priority", "scale", "standard_only")
MOVED = {
    "messages": "input",
    "functions": "tools",
    "function_call": "tool_choice",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
}
"""Parameters of chat completions, and their names in this API."""
STATEFUL = ("background", "conversation", "prompt", "context_management")
"""Parameters that rely on something stored; nothing is."""
ABSENT = ("audio", "modalities", "moderation", "prediction", "web_search_options", "n", "best_of")
"""Parameters of other APIs or models, which would change the answer."""
_HARMLESS: Mapping[str, object] = {"n": 1, "best_of": 1, "modalities": ["text"]}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Refuse a request with a field that asks for what would not happen.

    Raises:
        RefusedRequest: there is such a field, or its value is not one of OpenAI's.
    """
    if misplaced := next(_misplaced(fields), None):
        raise misplaced
    if identifier := fields.get("previous_response_id"):
        message = f"Previous response with id '{identifier}' not found."
        code = "previous_response_not_found"
        raise RefusedRequest(message, param="previous_response_id", code=code)
    for name in _CHECKS.keys() & fields.keys():
        _CHECKS[name](fields[name])


def _misplaced(fields: Mapping[str, Any]) -> Iterator[RefusedRequest]:
    """Refusals of fields that have no meaning here."""
    for name in MOVED.keys() & fields.keys():
        yield unsupported(name, f"In the Responses API, it has moved to '{MOVED[name]}'.")
    given = [name for name in (*STATEFUL, *ABSENT) if fields.get(name)]
    for name in given:
        if name in STATEFUL:
            yield unsupported(name, "This server stores neither responses nor prompts.")
        elif fields[name] != _HARMLESS.get(name):
            yield unsupported(name, "The Responses API of this server does not have it.")


def _check_include(values: Any) -> None:  # noqa: ANN401 - JSON
    check_list("include", values)
    for place, value in enumerate(values):
        check_value(f"include[{place}]", value, INCLUDABLE)


def _check_metadata(metadata: Any) -> None:  # noqa: ANN401 - JSON
    check_object("metadata", metadata)
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise invalid_type(f"metadata.{name}", "a string", value)


def _check_reasoning(reasoning: Any) -> None:  # noqa: ANN401 - JSON
    check_object("reasoning", reasoning)
    known = {"effort": EFFORTS, "summary": SUMMARIES, "generate_summary": SUMMARIES}
    for name in known.keys() & reasoning.keys():
        if reasoning[name] is not None:
            check_value(f"reasoning.{name}", reasoning[name], known[name])


def _check_text(text: Any) -> None:  # noqa: ANN401 - JSON
    check_object("text", text)
    if text.get("verbosity") is not None:
        check_value("text.verbosity", text["verbosity"], ("low", "medium", "high"))
    if (form := text.get("format")) is None:
        return
    check_object("text.format", form)
    check_value("text.format.type", form.get("type"), ("json_object", "json_schema", "text"))
    for name in ("name", "schema") if form["type"] == "json_schema" else ():
        if form.get(name) is None:
            raise missing(f"text.format.{name}")


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "include": _check_include,
    "max_output_tokens": lambda value: check_minimum("max_output_tokens", value, 1),
    "max_tool_calls": lambda value: check_minimum("max_tool_calls", value, 1),
    "metadata": _check_metadata,
    "reasoning": _check_reasoning,
    "service_tier": lambda value: check_value("service_tier", value, TIERS),
    "store": lambda value: check_boolean("store", value),
    "stream": lambda value: check_boolean("stream", value),
    "text": _check_text,
    "truncation": lambda value: check_value("truncation", value, ("auto", "disabled")),
}

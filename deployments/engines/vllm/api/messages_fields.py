"""Checks of the fields that Anthropic's API defines, before vLLM validates a request.

vLLM 0.32 ignores what it does not know. Permissions and hints may be ignored (budgets of thinking,
marks of what to cache); whatever changes an answer is obeyed or refused.
"""

from collections.abc import Mapping
from typing import Any

from deployments.engines.vllm.api.field_checks import Range
from deployments.engines.vllm.api.refusals import (
    check_list,
    check_object,
    check_value,
    invalid_type,
    missing,
    unsupported,
)
from deployments.engines.vllm.api.refused_request import RefusedRequest

Body = dict[str, Any]
RANGES: Mapping[str, Range] = {
    "max_tokens": Range(1, None, is_integer=True),
    "temperature": Range(0, 1),
    "top_p": Range(0, 1),
    "top_k": Range(0, None, is_integer=True, also=(-1,)),
}
FEATURES: Mapping[str, str] = {
    "compaction": "Conversations are not shortened here.",
    "container": "There are no containers.",
    "fallbacks": "Fallbacks are configured by the operators of this server.",
    "inference_geo": "Regions cannot be chosen.",
    "mcp_servers": "Servers of tools are not called from here.",
    "thread": "Conversations are not stored.",
}
"""Features of Anthropic's that nothing here has, and why."""
NO_EDIT = "clear_thinking_"
"""Edits of a context that chat templates make: they drop thoughts of earlier turns."""
SPEEDS = ("standard",)


def check_fields(body: Mapping[str, Any]) -> None:
    """Refuse fields that Anthropic would refuse, and features that are not there.

    Raises:
        RefusedRequest: a field has a wrong type or value, or asks for what cannot be done.
    """
    for name, allowed in RANGES.items():
        if body.get(name) is not None:
            allowed.check(name, body[name])
    if not isinstance(body.get("stream"), bool | None):
        raise invalid_type("stream", "a boolean", body["stream"])
    if body.get("metadata") is not None:
        check_object("metadata", body["metadata"])
    if body.get("speed") is not None:
        check_value("speed", body["speed"], SPEEDS)
    for name, reason in FEATURES.items():
        if body.get(name):
            raise unsupported(name, reason)
    _check_stops(body.get("stop_sequences"))
    _check_edits(body.get("context_management"))


def adopt_format(body: Body) -> None:
    """Write the beta's `output_format` as the `output_config.format` that it became, and check it.

    Raises:
        RefusedRequest: there are two of them, or it is no schema.
    """
    config, early = body.get("output_config"), body.pop("output_format", None)
    if config is not None:
        check_object("output_config", config)
    form, param = (config or {}).get("format"), "output_config.format"
    if early is not None:
        if form is not None:
            raise unsupported("output_format", "The request has an 'output_config.format', too.")
        form, param = early, "output_format"
        body["output_config"] = {**(config or {}), "format": form}
    if form is None:
        return
    check_object(param, form)
    check_value(f"{param}.type", form.get("type"), ("json_schema",))
    if form.get("schema") is None:
        raise missing(f"{param}.schema")
    check_object(f"{param}.schema", form["schema"])


def _check_stops(stops: Any) -> None:  # noqa: ANN401 - JSON
    if stops is None:
        return
    check_list("stop_sequences", stops)
    for place, stop in enumerate(stops):
        param = f"stop_sequences[{place}]"
        if not isinstance(stop, str):
            raise invalid_type(param, "a string", stop)
        if not stop.strip():
            message = "each stop sequence must contain non-whitespace"
            raise RefusedRequest(message, param=param, code="invalid_value")


def _check_edits(management: Any) -> None:  # noqa: ANN401 - JSON
    if management is None:
        return
    check_object("context_management", management)
    edits = management.get("edits")
    if edits is None:
        return
    check_list("context_management.edits", edits)
    for place, edit in enumerate(edits):
        param = f"context_management.edits[{place}]"
        check_object(param, edit)
        if not str(edit.get("type")).startswith(NO_EDIT):
            raise unsupported(f"{param}.type", "Conversations are not shortened here.")

"""A request to `/v1/responses`, as vLLM is asked in its client's place."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import ModelWrapValidatorHandler, PrivateAttr, model_validator
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from deployments.engines.vllm.api.asked_response import AskedResponse
from deployments.engines.vllm.api.grammar_fields import of_response, record_grammar_fields
from deployments.engines.vllm.api.pattern_tool import vllm_tool
from deployments.engines.vllm.api.refusals import check_minimum, check_object, empty_array, missing
from deployments.engines.vllm.api.responses_fields import (
    INCLUDABLE_FOR_VLLM,
    LOGPROBS,
    check_fields,
)
from deployments.engines.vllm.api.responses_input import vllm_input
from deployments.engines.vllm.api.responses_tools import ToolUse, tool_use


class OpenAIResponsesRequest(ResponsesRequest):
    """OpenAI's request, in vLLM's terms."""

    _asked: AskedResponse = PrivateAttr(default_factory=AskedResponse)

    @property
    def asked(self) -> AskedResponse:
        """What the client asked for."""
        return self._asked

    @model_validator(mode="wrap")
    @classmethod
    def in_vllm_terms(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401
        """Check the client's object, and have vLLM validate what it comes to."""
        if not isinstance(data, dict):
            return handler(data)
        fields = {name: value for name, value in data.items() if value is not None}
        check_fields(fields)
        _check_input(fields)
        record_grammar_fields(of_response(fields))
        use = tool_use(fields.get("tools", []), fields.get("tool_choice", "auto"))
        request = handler(_vllm_fields(fields, use))
        asked = AskedResponse(fields, _as_defined(use), use.left_out)
        request._asked = asked  # noqa: SLF001 - of this class
        return request


def _check_input(fields: Mapping[str, Any]) -> None:
    if "input" not in fields:
        raise missing("input")
    if fields["input"] == [] and not fields.get("instructions"):
        raise empty_array("input")
    if "stream_options" in fields:
        check_object("stream_options", fields["stream_options"])
    if "top_logprobs" in fields:
        check_minimum("top_logprobs", fields["top_logprobs"], 0)


def _vllm_fields(fields: Mapping[str, Any], use: ToolUse) -> dict[str, Any]:
    include = [each for each in fields.get("include", ()) if each in INCLUDABLE_FOR_VLLM]
    if fields.get("top_logprobs") and LOGPROBS not in include:
        include.append(LOGPROBS)
    changes = {
        "input": vllm_input(fields["input"]),
        "include": include,
        "tools": [vllm_tool(tool) for tool in use.tools],
        "tool_choice": use.choice if use.tools else "none",
        "service_tier": "auto",
    }
    if use.choice == "required" and not use.tools:
        changes["tool_choice"] = "required"  # vLLM refuses it, in OpenAI's words
    return {**fields, **changes}


def _as_defined(use: ToolUse) -> Sequence[Mapping[str, Any]]:
    """The tools with the fields that OpenAI's answers always have."""
    return [
        {"strict": None, "parameters": None, **tool} if tool["type"] == "function" else tool
        for tool in use.tools
    ]

"""The object that `/v1/responses` answers with, whole as OpenAI's.

vLLM 0.32 leaves out what OpenAI always sends, shows what it made of a request instead of what was
asked, and writes nulls where OpenAI has no field. Nothing is stored here, so `store` is false.
"""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from deployments.engines.served_tier import tier_of_call
from deployments.engines.vllm.api.asked_response import AskedResponse
from deployments.engines.vllm.api.tool_calls import call_id
from gateway.request.reasoning_token import make_token

if TYPE_CHECKING:
    from vllm.entrypoints.openai.responses.protocol import ResponsesResponse

Json = dict[str, Any]
TEXT = {"type": "text"}
EXTRAS = (
    *("metrics", "kv_transfer_params", "ec_transfer_params"),
    *("input_messages", "output_messages"),
)
"""vLLM's own fields, which an answer has where the request or the engine asks for them."""


def response_object(
    response: "ResponsesResponse", asked: AskedResponse, clock: Callable[[], float] = time.time
) -> Json:
    """OpenAI's object for vLLM's answer to what a client `asked` for."""
    fields = asked.fields
    is_done = response.status == "completed"
    made = {
        "id": response.id,
        "object": "response",
        "created_at": response.created_at,
        "status": response.status,
        "background": False,
        "completed_at": int(clock()) if is_done else None,
        "error": None,
        "frequency_penalty": response.frequency_penalty or 0.0,
        "incomplete_details": _dumped(response.incomplete_details),
        "instructions": response.instructions,
        "max_output_tokens": fields.get("max_output_tokens"),
        "max_tool_calls": response.max_tool_calls,
        "model": response.model,
        "output": _output(response, asked),
        "parallel_tool_calls": response.parallel_tool_calls,
        "presence_penalty": response.presence_penalty or 0.0,
        "previous_response_id": None,
        "prompt_cache_key": fields.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **fields.get("reasoning", {})},
        "safety_identifier": fields.get("safety_identifier"),
        "service_tier": tier_of_call(fields),
        "store": False,
        "temperature": response.temperature,
        "text": {"format": TEXT, "verbosity": "medium", **_given(fields.get("text", {}))},
        "tool_choice": fields.get("tool_choice", "auto"),
        "tools": list(asked.tools),
        "top_logprobs": fields.get("top_logprobs", 0),
        "top_p": response.top_p,
        "truncation": fields.get("truncation", "disabled"),
        "usage": _usage(response),
        "metadata": fields.get("metadata", {}),
    }
    if "user" in fields:
        made["user"] = fields["user"]
    return made | _extras(response)


def output_item(item: Any, asked: AskedResponse, status: str = "completed") -> Json:  # noqa: ANN401
    """OpenAI's form of an item of output; `status` is what a finished one becomes."""
    made: Json = item if isinstance(item, dict) else _dumped(item)
    if made["type"] == "message":
        for part in made["content"]:
            part.setdefault("logprobs", [])
    elif made["type"] == "reasoning":
        made.setdefault("status", "completed")
        if asked.includes_tokens and made.get("content"):
            text = "".join(part["text"] for part in made["content"])
            made["encrypted_content"] = make_token(text)
    elif "call_id" in made:
        made["call_id"] = call_id(made["call_id"])
    if made.get("status") == "completed":
        made["status"] = status
    return made


def _output(response: "ResponsesResponse", asked: AskedResponse) -> list[Json]:
    """The items; of an answer that was cut, the last one is incomplete."""
    items = [output_item(item, asked) for item in response.output]
    if response.status == "incomplete" and items and "status" in items[-1]:
        items[-1]["status"] = "incomplete"
    return items


def _usage(response: "ResponsesResponse") -> Json | None:
    usage = response.usage
    if usage is None:
        return None
    read, written = usage.input_tokens_details, usage.output_tokens_details
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": read.cached_tokens,
            "cache_write_tokens": read.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": written.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _extras(response: "ResponsesResponse") -> Json:
    names = [name for name in EXTRAS if getattr(response, name) is not None]
    return response.model_dump(mode="json", by_alias=True, include=set(names)) if names else {}


def _dumped(model: Any) -> Any:  # noqa: ANN401 - JSON
    """A model of the SDK as JSON without nulls, which OpenAI does not send there."""
    if model is None:
        return None
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _given(fields: Mapping[str, Any]) -> Json:
    return {name: value for name, value in fields.items() if value is not None}

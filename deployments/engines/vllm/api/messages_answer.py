"""A whole message as Anthropic writes it, and the parts that streams have as well."""

import secrets
from typing import Any, NamedTuple

import pydantic_core

from deployments.engines.vllm.api.asked_message import AskedMessage
from deployments.engines.vllm.api.tool_calls import call_id
from gateway.request.reasoning_token import make_token

Object = dict[str, Any]
VLLM_MESSAGE = "chatcmpl-"
MESSAGE = "msg_"
CALL = "toolu_"
EXTRAS = ("kv_transfer_params", "ec_transfer_params")
"""Fields of vLLM's answers, which have a value where a request asks."""


class PromptCounts(NamedTuple):
    """Tokens of a prompt, and how many of them were in the cache, or were written to it."""

    tokens: int = 0
    read: int = 0
    created: int = 0


def message_object(answer: Any, asked: AskedMessage) -> Object:  # noqa: ANN401 - vLLM's
    """The object of a `ChatCompletionResponse`."""
    choice, usage = answer.choices[0], answer.usage
    stop_reason, stop_sequence = stop_of(
        choice.finish_reason,
        choice.stop_reason,
        has_calls=bool(choice.message.tool_calls),
        is_call_whole=True,
    )
    details = usage.prompt_tokens_details
    counts = PromptCounts(
        usage.prompt_tokens,
        getattr(details, "cached_tokens", None) or 0,
        getattr(details, "created_cache_tokens", None) or 0,
    )
    written = {
        "id": message_id(answer.id),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": _blocks(choice.message, asked) or [{"type": "text", "text": ""}],
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": {**usage_object(counts, usage), "service_tier": asked.tier},
    }
    for name in EXTRAS:
        if (value := getattr(answer, name, None)) is not None:
            written[name] = value
    return written


def message_id(made: str) -> str:
    """The id of a message for one of vLLM's."""
    return MESSAGE + made.removeprefix(VLLM_MESSAGE)


def use_id(made: str) -> str:
    """The id of a tool's use; ids that a model needs to see again stay as they are."""
    return call_id(made, CALL)


def usage_object(prompt: PromptCounts, usage: Any) -> Object:  # noqa: ANN401 - vLLM's
    """Anthropic's usage; `usage` has the tokens of the answer, if there are any yet."""
    written: Object = {
        "input_tokens": max(0, prompt.tokens - prompt.read - prompt.created),
        "cache_creation_input_tokens": prompt.created,
        "cache_read_input_tokens": prompt.read,
        "output_tokens": (usage.completion_tokens if usage else None) or 0,
    }
    details = getattr(usage, "completion_tokens_details", None)
    if (thought := getattr(details, "reasoning_tokens", None)) is not None:
        written["output_tokens_details"] = {"thinking_tokens": thought}
    return written


def stop_of(
    finish_reason: str | None,
    stop: int | str | None,
    *,
    has_calls: bool,
    is_call_whole: bool,
) -> tuple[str, str | None]:
    """Why an answer has ended, and the stop sequence that ended it.

    A call that a stop sequence has cut must not be run: it counts as the sequence's.
    """
    if finish_reason == "length":
        return "max_tokens", None
    if has_calls and is_call_whole:
        return "tool_use", None
    if isinstance(stop, str):
        return "stop_sequence", stop
    return ("tool_use" if has_calls else "end_turn"), None


def signature_of(thoughts: str, asked: AskedMessage) -> str:
    """What identifies thoughts; where they are left out, it stands for them."""
    return make_token(thoughts) if asked.hides_thinking else secrets.token_hex(16)


def _blocks(message: Any, asked: AskedMessage) -> list[Object]:  # noqa: ANN401 - vLLM's
    blocks: list[Object] = []
    if message.reasoning:
        blocks.append(
            {
                "type": "thinking",
                "thinking": "" if asked.hides_thinking else message.reasoning,
                "signature": signature_of(message.reasoning, asked),
            }
        )
    if message.content:
        blocks.append({"type": "text", "text": message.content})
    blocks.extend(_use(call) for call in message.tool_calls or ())
    return blocks


def _use(call: Any) -> Object:  # noqa: ANN401 - vLLM's
    function = call.function
    arguments = _input(function.arguments)
    return {"type": "tool_use", "id": use_id(call.id), "name": function.name, "input": arguments}


def _input(arguments: str) -> Object:
    """The object in a call's arguments, as far as it goes if they are cut."""
    try:
        value = pydantic_core.from_json(arguments, allow_partial="trailing-strings")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

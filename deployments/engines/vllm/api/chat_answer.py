"""A whole chat completion as OpenAI writes it."""

from typing import Any

from deployments.engines.vllm.api.chunks import Asked, chat_logprobs, dumped
from deployments.engines.vllm.api.tool_calls import call_id, custom_input
from deployments.engines.vllm.api.tools import ToolForm
from deployments.engines.vllm.api.usage import usage_object

Object = dict[str, Any]
EXTRAS = (
    *("prompt_logprobs", "prompt_token_ids", "prompt_text"),
    *("kv_transfer_params", "ec_transfer_params", "metrics"),
)
"""Fields of vLLM's answers, which have a value where a request or the engine's arguments ask."""
CHOICE_EXTRAS = ("prompt_logprobs", "prompt_token_ids", "token_ids", "routed_experts")


def chat_object(answer: Any, asked: Asked) -> Object:  # noqa: ANN401 - vLLM's
    """The object of vLLM's `ChatCompletionResponse`."""
    return _object(answer, [_choice(choice, asked) for choice in answer.choices], asked)


def text_object(answer: Any, asked: Asked) -> Object:  # noqa: ANN401 - vLLM's
    """The object of vLLM's `CompletionResponse`."""
    return _object(answer, [_text_choice(choice, asked) for choice in answer.choices], asked)


def _object(answer: Any, choices: list[Object], asked: Asked) -> Object:  # noqa: ANN401 - vLLM's
    written = {
        "id": answer.id,
        "object": answer.object,
        "created": answer.created,
        "model": answer.model,
        "choices": choices,
        "usage": usage_object(answer.usage),
        "service_tier": asked.tier,
        "system_fingerprint": answer.system_fingerprint,
    }
    if asked.is_to_be_stored:
        written["store"] = False
    _add_extras(written, answer, EXTRAS, asked)
    return written


def _choice(choice: Any, asked: Asked) -> Object:  # noqa: ANN401 - vLLM's
    finish_reason = choice.finish_reason
    if finish_reason == "tool_calls" and asked.tools.is_legacy:
        finish_reason = "function_call"
    written = {
        "index": choice.index,
        "message": _message(choice.message, asked.tools),
        "logprobs": chat_logprobs(choice.logprobs),
        "finish_reason": finish_reason,
    }
    return _with_extras(written, choice, asked)


def _text_choice(choice: Any, asked: Asked) -> Object:  # noqa: ANN401 - vLLM's
    written = {
        "text": choice.text,
        "index": choice.index,
        "logprobs": dumped(choice.logprobs),
        "finish_reason": choice.finish_reason,
    }
    return _with_extras(written, choice, asked)


def _with_extras(written: Object, choice: Any, asked: Asked) -> Object:  # noqa: ANN401 - vLLM's
    if asked.has_stop_reason:
        written["stop_reason"] = choice.stop_reason
    _add_extras(written, choice, CHOICE_EXTRAS, asked)
    return written


def _add_extras(written: Object, source: Any, names: tuple[str, ...], asked: Asked) -> None:  # noqa: ANN401
    for name in names:
        value = getattr(source, name, None)
        if value is None:
            continue
        if name != "prompt_logprobs":
            written[name] = dumped(value)
        elif asked.has_prompt_logprobs:  # `echo` has them, too
            written[name] = source.model_dump(mode="json", include={name})[name]


def _message(message: Any, tools: ToolForm) -> Object:  # noqa: ANN401 - vLLM's
    calls = message.tool_calls
    written: Object = {
        "role": message.role,
        "content": (message.content or None) if calls else message.content,
        "refusal": message.refusal,
        "annotations": [],
    }
    if message.reasoning is not None:
        written["reasoning"] = message.reasoning
    if calls and tools.is_legacy:
        written["function_call"] = _function(calls[0])
    elif calls:
        written["tool_calls"] = [_call(call, tools) for call in calls]
    return written


def _call(call: Any, tools: ToolForm) -> Object:  # noqa: ANN401 - vLLM's
    name = call.function.name
    if name in tools.custom:
        custom = {"name": name, "input": custom_input(call.function.arguments)}
        return {"id": call_id(call.id), "type": "custom", "custom": custom}
    return {"id": call_id(call.id), "type": "function", "function": _function(call)}


def _function(call: Any) -> Object:  # noqa: ANN401 - vLLM's
    return {"name": call.function.name, "arguments": call.function.arguments}

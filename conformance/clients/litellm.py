"""LiteLLM, which speaks to the gateway as to OpenAI, to vLLM and to Anthropic."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import litellm

from conformance.checks import Check, CheckTarget

litellm.telemetry = False
litellm.num_retries = 0
COUNT: Any = [{"role": "user", "content": "Count to ten."}]
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
TO_TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": CITY,
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"type": "string", "enum": ["model"]}},
    "required": ["kind"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "kind", "strict": True, "schema": SCHEMA}}


def complete(target: CheckTarget, provider: str, **fields: Any) -> Any:
    """A chat completion by way of a provider."""
    base = target.url if provider == "anthropic" else target.base_url
    given = {"messages": COUNT, "max_tokens": 64, "temperature": 0, **fields}
    return litellm.completion(
        model=f"{provider}/{target.model}", api_base=base, api_key="any", **given
    )


def _chat(target: CheckTarget, provider: str) -> None:
    answer = complete(target, provider)
    assert answer.choices[0].message.content == TO_TEN
    assert answer.usage.completion_tokens > 10


def _stream(target: CheckTarget, provider: str) -> None:
    chunks = list(complete(target, provider, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TO_TEN


def _tool(target: CheckTarget, provider: str) -> None:
    (call,) = complete(target, provider, messages=ASKED, tools=[TOOL]).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def _tool_result(target: CheckTarget, provider: str) -> None:
    message = complete(target, provider, messages=ASKED, tools=[TOOL]).choices[0].message
    result = '{"city": "Paris", "temperature": 18, "sky": "sunny"}'
    turn = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": result}
    answer = complete(target, provider, messages=[*ASKED, message, turn], tools=[TOOL])
    assert "sunny" in answer.choices[0].message.content


def _tool_stream(target: CheckTarget, provider: str) -> None:
    chunks = list(complete(target, provider, messages=ASKED, tools=[TOOL], stream=True))
    whole = litellm.stream_chunk_builder(chunks)
    (call,) = whole.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def _schema(target: CheckTarget, provider: str) -> None:
    hello = [{"role": "user", "content": "Say hello."}]
    answer = complete(target, provider, messages=hello, response_format=FORMAT)
    assert json.loads(answer.choices[0].message.content) == {"kind": "model"}


def _too_long(target: CheckTarget, provider: str) -> None:
    try:
        complete(target, provider, messages=[{"role": "user", "content": "word " * 40_000}])
    except litellm.ContextWindowExceededError:
        return
    raise AssertionError("it was not refused")


def _unknown(target: CheckTarget, provider: str) -> None:
    base = target.url if provider == "anthropic" else target.base_url
    try:
        litellm.completion(model=f"{provider}/nope", api_base=base, api_key="any", messages=COUNT)
    except litellm.NotFoundError:
        return
    raise AssertionError("it was not refused")


def _with(part: Any, provider: Any, target: CheckTarget) -> object:
    return part(target, provider)


def _checks() -> Iterator[tuple[str, Check]]:
    parts = {
        "chat": _chat,
        "stream": _stream,
        "a tool": _tool,
        "a tool's result": _tool_result,
        "a tool in a stream": _tool_stream,
        "a JSON schema": _schema,
        "too long a prompt": _too_long,
        "an unknown model": _unknown,
    }
    for provider in ("openai", "hosted_vllm", "anthropic"):
        for name, part in parts.items():
            yield (
                f"{provider}: {name}",
                partial(_with, part, provider),
            )


CHECKS: dict[str, Check] = dict(_checks())

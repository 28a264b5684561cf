"""The seven cases that Open Responses (openresponses.org) asks of a provider, in our own words."""

import json
from typing import Any

from conformance.checks import CheckTarget
from conformance.http_answers import ask
from conformance.requests_table import read_stream

NULLABLE_INT, NULLABLE_TEXT, NUMBER = (int, type(None)), (str, type(None)), (int, float)
NULLABLE_OBJECT = (dict, type(None))
FIELDS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "object": (str,),
    "created_at": (int,),
    "completed_at": NULLABLE_INT,
    "status": (str,),
    "incomplete_details": NULLABLE_OBJECT,
    "model": (str,),
    "previous_response_id": NULLABLE_TEXT,
    "instructions": NULLABLE_TEXT,
    "output": (list,),
    "error": NULLABLE_OBJECT,
    "tools": (list,),
    "tool_choice": (str, dict),
    "truncation": (str,),
    "parallel_tool_calls": (bool,),
    "text": (dict,),
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "top_logprobs": (int,),
    "temperature": NUMBER,
    "reasoning": NULLABLE_OBJECT,
    "usage": NULLABLE_OBJECT,
    "max_output_tokens": NULLABLE_INT,
    "max_tool_calls": NULLABLE_INT,
    "store": (bool,),
    "background": (bool,),
    "service_tier": (str,),
    "metadata": (dict, type(None)),
    "safety_identifier": NULLABLE_TEXT,
    "prompt_cache_key": NULLABLE_TEXT,
}
"""Fields that a response must have, and the types of their values."""
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "name": "get_weather", "description": "d", "parameters": CITY}]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
    "DwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def said(role: str, content: object) -> dict[str, object]:
    """A message item."""
    return {"type": "message", "role": role, "content": content}


def response(target: CheckTarget, items: list[Any], **fields: Any) -> tuple[Any, list[Any]]:
    """The response to these items, with all its fields, and the events if it is a stream."""
    body = {"model": target.model, "input": items, **fields}
    answer = ask(target.url, "POST", "/v1/responses", json.dumps(body).encode())
    assert answer.status == 200, f"{answer.status}: {answer.body[:300]!r}"
    events: list[Any] = []
    if not answer.is_stream:
        value = answer.json
    else:
        stream, wrongs = read_stream(answer, "response")
        assert not wrongs, wrongs
        value, events = stream["last"]["response"], stream["events"]
        for event in events:
            if "response" in event:
                require_fields(event["response"])
    require_fields(value)
    return value, events


def require_fields(value: dict[str, Any]) -> None:
    """Fail where a field is missing or has another type."""
    missing = FIELDS.keys() - value.keys()
    assert not missing, f"missing: {sorted(missing)}"
    wrong = {
        name: value[name] for name, types in FIELDS.items() if not _has_type(value[name], types)
    }
    assert not wrong, f"wrong types: {wrong}"
    for item in value["output"]:
        assert isinstance(item.get("id"), str), item
        assert item.get("status") in {"completed", "incomplete", "in_progress"}, item
        for part in item.get("content") or ():
            assert isinstance(part["annotations"], list), part
            assert isinstance(part["logprobs"], list), part


def _has_type(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _completed(value: dict[str, Any]) -> None:
    assert value["output"], "no output"
    assert value["status"] == "completed", value["status"]


def check_basic_response(target: CheckTarget) -> None:
    _completed(response(target, [said("user", "Say hello.")])[0])


def check_streaming_response(target: CheckTarget) -> None:
    _completed(response(target, [said("user", "Count to ten.")], stream=True)[0])


def check_system_prompt(target: CheckTarget) -> None:
    items = [said("system", "You are a helpful assistant."), said("user", "Say hello.")]
    _completed(response(target, items)[0])


def check_tool_calling(target: CheckTarget) -> None:
    items = [said("user", "What is the weather in Paris?")]
    value, _ = response(target, items, tools=TOOLS)
    assert "function_call" in {item["type"] for item in value["output"]}


def check_tool_calling_streaming(target: CheckTarget) -> None:
    items = [said("user", "What is the weather in Paris?")]
    _, events = response(target, items, tools=TOOLS, stream=True)
    kinds = {(event["type"], event.get("item", {}).get("type")) for event in events}
    assert {
        ("response.output_item.added", "function_call"),
        ("response.function_call_arguments.delta", None),
        ("response.function_call_arguments.done", None),
        ("response.output_item.done", "function_call"),
    } <= kinds


def check_image_input(target: CheckTarget) -> None:
    content = [
        {"type": "input_text", "text": "What is in this picture?"},
        {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
    ]
    _completed(response(target, [said("user", content)])[0])


def check_multi_turn(target: CheckTarget) -> None:
    items = [
        said("user", "Knock knock."),
        said("assistant", "Who is there?"),
        said("user", "Cache."),
    ]
    _completed(response(target, items)[0])

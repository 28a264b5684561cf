"""Anthropic's Python SDK as applications and agents use it, its answers validated strictly."""

from collections.abc import Callable
from typing import Any

import anthropic
from anthropic import Anthropic

from conformance.checks import CheckTarget

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the current weather in a city.",
    "input_schema": CITY,
}
COUNT: Any = [{"role": "user", "content": "Count to ten."}]
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
TO_TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
LONG: Any = [{"role": "user", "content": "word " * 40_000}]


def sdk(target: CheckTarget) -> Anthropic:
    """The SDK, without retries, strict."""
    return Anthropic(
        base_url=target.url, api_key="any", max_retries=0, _strict_response_validation=True
    )


def create(target: CheckTarget, **fields: Any) -> anthropic.types.Message:
    """A message, short and the same each time unless said otherwise."""
    sampling = {"temperature": fields.pop("temperature", 0)}
    given: Any = {"max_tokens": 64, "messages": COUNT, "extra_body": sampling, **fields}
    answer: anthropic.types.Message = sdk(target).messages.create(model=target.model, **given)
    return answer


def refused(call: Callable[[], object], status: int, type_: str) -> str:
    """Expect an error of Anthropic's API; return its message."""
    try:
        call()
    except anthropic.APIStatusError as error:
        body: Any = error.body
        assert error.status_code == status, error
        assert body["type"] == "error", body
        assert body["error"]["type"] == type_, body
        assert body["request_id"] == error.request_id, body
        return str(body["error"]["message"])
    raise AssertionError("it was not refused")


def check_a_message(target: CheckTarget) -> None:
    answer = create(target)
    assert answer.content[0].type == "text"
    assert answer.content[0].text == TO_TEN
    assert answer.id.startswith("msg_")
    assert answer.stop_reason == "end_turn"


def check_the_request_id(target: CheckTarget) -> None:
    assert create(target)._request_id  # noqa: SLF001 - the SDK's documented name


def check_usage(target: CheckTarget) -> None:
    usage = create(target).usage
    assert usage.cache_read_input_tokens is not None
    assert usage.output_tokens > 10


def check_a_stream(target: CheckTarget) -> None:
    with sdk(target).messages.stream(
        model=target.model, max_tokens=64, messages=COUNT, extra_body={"temperature": 0}
    ) as stream:
        assert "".join(stream.text_stream) == TO_TEN


def check_a_raw_stream(target: CheckTarget) -> None:
    events = list(
        sdk(target).messages.create(model=target.model, max_tokens=64, messages=COUNT, stream=True)
    )
    assert events[0].type == "message_start"
    assert events[0].message.id.startswith("msg_")
    assert events[-1].type == "message_stop"


def check_usage_agrees_from_start_to_end_of_a_stream(target: CheckTarget) -> None:
    create(target, system="You are a helpful assistant. " * 30)
    events = list(
        sdk(target).messages.create(
            model=target.model,
            max_tokens=64,
            messages=COUNT,
            system="You are a helpful assistant. " * 30,
            stream=True,
        )
    )
    start = next(event.message.usage for event in events if event.type == "message_start")
    end = next(event.usage for event in events if event.type == "message_delta")
    assert (start.input_tokens, start.cache_read_input_tokens) == (
        end.input_tokens,
        end.cache_read_input_tokens,
    ), (start, end)


def check_a_stop_sequence(target: CheckTarget) -> None:
    answer = create(target, stop_sequences=[", 6"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", ", 6")


def check_cut_off(target: CheckTarget) -> None:
    assert create(target, max_tokens=4).stop_reason == "max_tokens"


def check_a_system_prompt_with_cache_marks(target: CheckTarget) -> None:
    mark = {"type": "ephemeral"}
    system = [{"type": "text", "text": "You are a helpful assistant.", "cache_control": mark}]
    assert create(target, system=system, tools=[{**WEATHER, "cache_control": mark}]).content


def check_a_tool(target: CheckTarget) -> None:
    answer = create(target, messages=ASKED, tools=[WEATHER])
    call = answer.content[-1]
    assert call.type == "tool_use"
    assert call.id.startswith("toolu_")
    assert call.input == {"city": "Paris"}
    assert answer.stop_reason == "tool_use"


def check_a_tool_in_a_stream(target: CheckTarget) -> None:
    with sdk(target).messages.stream(
        model=target.model,
        max_tokens=64,
        messages=ASKED,
        tools=[WEATHER],
        extra_body={"temperature": 0},
    ) as stream:
        call = stream.get_final_message().content[-1]
    assert call.type == "tool_use"
    assert call.input == {"city": "Paris"}


def check_any_tool(target: CheckTarget) -> None:
    answer = create(target, messages=ASKED, tools=[WEATHER], tool_choice={"type": "any"})
    assert answer.content[-1].type == "tool_use"


def check_no_tool(target: CheckTarget) -> None:
    answer = create(target, messages=ASKED, tools=[WEATHER], tool_choice={"type": "none"})
    assert answer.content[0].type == "text"
    assert "<tool_call>" not in answer.content[0].text


def check_a_tool_result(target: CheckTarget) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    result = '{"city": "Paris", "temperature": 18, "sky": "sunny"}'
    messages = [
        *ASKED,
        {"role": "assistant", "content": [use]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": result}],
        },
    ]
    answer = create(target, messages=messages, tools=[WEATHER])
    assert answer.content[0].type == "text"
    assert "sunny" in answer.content[0].text


def check_thinking(target: CheckTarget) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    answer = create(target, thinking=thinking, max_tokens=2048, temperature=1)
    assert answer.content


def check_a_beginning_is_carried_on(target: CheckTarget) -> None:
    answer = create(target, messages=[*COUNT, {"role": "assistant", "content": "1, 2, 3,"}])
    assert answer.content[0].type == "text"
    assert answer.content[0].text.strip() == "4, 5, 6, 7, 8, 9, 10."


def check_counting_tokens(target: CheckTarget) -> None:
    client = sdk(target)
    counted = client.messages.count_tokens(model=target.model, messages=COUNT)
    usage = create(target).usage
    cached = usage.cache_read_input_tokens or 0
    assert counted.input_tokens == usage.input_tokens + cached
    assert client.messages.count_tokens(model=target.model, messages=LONG).input_tokens > 20_000


def check_models(target: CheckTarget) -> None:
    (card, *_) = [m for m in sdk(target).models.list() if m.id == target.model]
    assert card.display_name
    assert card.created_at.year > 2000
    assert sdk(target).models.retrieve(target.model).type == "model"


def check_pages_of_models(target: CheckTarget) -> None:
    assert len(list(sdk(target).models.list(limit=1))) > 1


def check_an_unknown_model(target: CheckTarget) -> None:
    message = refused(
        lambda: sdk(target).messages.create(model="nope", max_tokens=5, messages=COUNT),
        404,
        "not_found_error",
    )
    assert message == "model: nope"


def check_a_wrong_temperature(target: CheckTarget) -> None:
    assert "temperature" in refused(
        lambda: create(target, temperature=9), 400, "invalid_request_error"
    )


def check_too_long_a_prompt(target: CheckTarget) -> None:
    message = refused(lambda: create(target, messages=LONG), 400, "invalid_request_error")
    assert message.startswith("prompt is too long: ")


def check_batches(target: CheckTarget) -> None:
    assert sdk(target).messages.batches.list().data is not None

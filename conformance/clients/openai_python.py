"""OpenAI's Python SDK as applications use it, its answers validated strictly."""

import base64
import json
import math
import struct
from collections.abc import Callable
from typing import Any, Literal

import openai
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel

from conformance.checks import CheckTarget

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": CITY,
    },
}
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
HELLO: Any = [{"role": "user", "content": "Say hello."}]
COUNT = "Count to ten."
TO_TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
LONG = "word " * 40_000


class Kind(BaseModel):
    """A structured answer that any model gives."""

    kind: Literal["model"]


class Weather(BaseModel):
    """Arguments of a tool that a Pydantic model describes."""

    city: str


def sdk(target: CheckTarget) -> OpenAI:
    """The SDK, without retries, strict."""
    return OpenAI(
        base_url=target.base_url, api_key="any", max_retries=0, _strict_response_validation=True
    )


def refused(call: Callable[[], object], status: int, code: str | None, param: str | None) -> None:
    """Expect an error with this status, code and param."""
    try:
        call()
    except openai.APIStatusError as error:
        found = (error.status_code, error.code, error.param)
        assert found == (status, code, param), f"{found}: {error.message}"
        assert error.type == "invalid_request_error", error.type
    else:
        raise AssertionError("it was not refused")


def check_chat(target: CheckTarget) -> None:
    answer = sdk(target).chat.completions.create(model=target.model, messages=HELLO, temperature=0)
    assert answer.choices[0].message.content == "Hello!"
    assert answer._request_id  # noqa: SLF001 - the SDK's documented name


def check_chat_stream(target: CheckTarget) -> None:
    chunks = list(
        sdk(target).chat.completions.create(model=target.model, messages=HELLO, stream=True)
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].choices[0].finish_reason == "stop"


def check_chat_stream_with_usage(target: CheckTarget) -> None:
    chunks = list(
        sdk(target).chat.completions.create(
            model=target.model,
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage
    assert not chunks[-1].choices
    assert all("usage" in chunk.model_fields_set for chunk in chunks)


def check_chat_stream_helper(target: CheckTarget) -> None:
    with sdk(target).chat.completions.stream(model=target.model, messages=HELLO) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert final.choices[0].message.content


def check_chat_tools(target: CheckTarget) -> None:
    answer = sdk(target).chat.completions.create(
        model=target.model, messages=ASKED, tools=[WEATHER], temperature=0
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def check_chat_tools_required(target: CheckTarget) -> None:
    message = (
        sdk(target)
        .chat.completions.create(
            model=target.model, messages=ASKED, tools=[WEATHER], tool_choice="required"
        )
        .choices[0]
        .message
    )
    (call,) = message.tool_calls or []
    assert call.type == "function"
    assert isinstance(json.loads(call.function.arguments), dict)
    assert message.content is None


def check_chat_tools_none(target: CheckTarget) -> None:
    message = (
        sdk(target)
        .chat.completions.create(
            model=target.model, messages=ASKED, tools=[WEATHER], tool_choice="none"
        )
        .choices[0]
        .message
    )
    assert not message.tool_calls
    assert "<tool_call>" not in (message.content or "")


def check_chat_tools_stream_helper(target: CheckTarget) -> None:
    with sdk(target).chat.completions.stream(
        model=target.model, messages=ASKED, tools=[WEATHER], temperature=0
    ) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def check_chat_tool_result(target: CheckTarget) -> None:
    client = sdk(target)
    asked = client.chat.completions.create(
        model=target.model, messages=ASKED, tools=[WEATHER], temperature=0
    )
    message = asked.choices[0].message
    (call,) = message.tool_calls or []
    result = {"city": "Paris", "temperature": 18, "sky": "sunny"}
    messages: Any = [
        *ASKED,
        message,
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)},
    ]
    answer = client.chat.completions.create(
        model=target.model, messages=messages, tools=[WEATHER], temperature=0
    )
    assert "sunny" in (answer.choices[0].message.content or "")


def check_chat_pydantic_tool(target: CheckTarget) -> None:
    answer = sdk(target).chat.completions.parse(
        model=target.model,
        messages=ASKED,
        tools=[pydantic_function_tool(Weather, name="get_weather")],
        tool_choice="required",
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Weather)


def check_chat_parse(target: CheckTarget) -> None:
    answer = sdk(target).chat.completions.parse(
        model=target.model, messages=HELLO, response_format=Kind
    )
    assert answer.choices[0].message.parsed == Kind(kind="model")


def check_chat_functions(target: CheckTarget) -> None:
    answer = sdk(target).chat.completions.create(
        model=target.model, messages=ASKED, functions=[WEATHER["function"]], temperature=0
    )
    call = answer.choices[0].message.function_call
    assert call
    assert json.loads(call.arguments) == {"city": "Paris"}
    assert answer.choices[0].finish_reason == "function_call"


def check_chat_logprobs(target: CheckTarget) -> None:
    answer = sdk(target).chat.completions.create(
        model=target.model, messages=HELLO, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert "refusal" in logprobs.model_fields_set


def check_chat_two_answers(target: CheckTarget) -> None:
    answer = sdk(target).chat.completions.create(
        model=target.model, messages=HELLO, n=2, temperature=0
    )
    assert [choice.index for choice in answer.choices] == [0, 1]


def check_chat_cut_off(target: CheckTarget) -> None:
    answer = sdk(target).chat.completions.create(
        model=target.model,
        messages=[{"role": "user", "content": COUNT}],
        max_completion_tokens=4,
    )
    assert answer.choices[0].finish_reason == "length"


def check_chat_developer_and_parts(target: CheckTarget) -> None:
    answer = sdk(target).chat.completions.create(
        model=target.model,
        messages=[
            {"role": "developer", "content": "You are a helpful assistant."},
            {"role": "user", "content": [{"type": "text", "text": "Say hello."}]},
        ],
    )
    assert answer.choices[0].message.content


def check_chat_async(target: CheckTarget) -> Any:
    async def chat() -> None:
        client = openai.AsyncOpenAI(base_url=target.base_url, api_key="any", max_retries=0)
        async with client:
            stream = await client.chat.completions.create(
                model=target.model, messages=HELLO, stream=True
            )
            assert [chunk async for chunk in stream]

    return chat()


def check_chat_raw_response(target: CheckTarget) -> None:
    raw = sdk(target).chat.completions.with_raw_response.create(model=target.model, messages=HELLO)
    assert raw.headers["openai-processing-ms"].isdigit()
    assert raw.headers["x-request-id"]
    assert raw.parse().choices


def check_stored_chats(target: CheckTarget) -> None:
    client = sdk(target)
    made = client.chat.completions.create(model=target.model, messages=HELLO, store=True)
    assert client.chat.completions.retrieve(made.id).choices == made.choices
    assert made.id in {each.id for each in client.chat.completions.list(order="desc")}
    # OpenAI's type of these messages knows the assistant's only.
    lax = openai.OpenAI(base_url=target.base_url, api_key="any", max_retries=0)
    (message,) = lax.chat.completions.messages.list(made.id).data
    assert message.content == "Say hello."
    changed = client.chat.completions.update(made.id, metadata={"a": "b"})
    assert changed.id == made.id
    assert client.chat.completions.delete(made.id).deleted


def check_completions(target: CheckTarget) -> None:
    answer = sdk(target).completions.create(
        model=target.model, prompt="The capital of France is", max_tokens=8, temperature=0
    )
    assert answer.choices[0].text == " Paris."


def check_completions_stream(target: CheckTarget) -> None:
    client = openai.OpenAI(base_url=target.base_url, api_key="any", max_retries=0)
    stream = client.completions.create(
        model=target.model, prompt="1, 2, 3,", max_tokens=40, temperature=0, stream=True
    )
    assert "".join(c.choices[0].text for c in stream) == " 4, 5, 6, 7, 8, 9, 10."


def check_completions_echo_and_logprobs(target: CheckTarget) -> None:
    client = openai.OpenAI(base_url=target.base_url, api_key="any", max_retries=0)
    answer = client.completions.create(  # the first token's logprob is null, also at OpenAI's
        model=target.model, prompt="The capital", max_tokens=1, echo=True, logprobs=1
    )
    assert answer.choices[0].text.startswith("The capital")
    assert answer.choices[0].logprobs


def check_embeddings(target: CheckTarget) -> None:
    client = openai.OpenAI(base_url=target.base_url, api_key="any", max_retries=0)
    (item,) = client.embeddings.create(model=target.embedding_model, input="x").data
    assert math.isclose(math.hypot(*item.embedding), 1, rel_tol=1e-2)


def check_embeddings_base64(target: CheckTarget) -> None:
    client = openai.OpenAI(base_url=target.base_url, api_key="any", max_retries=0)
    told: Any = client.embeddings.create(
        model=target.embedding_model, input="x", encoding_format="base64"
    )
    data = base64.b64decode(told.data[0].embedding)
    floats = struct.unpack(f"<{len(data) // 4}f", data)
    plain = client.embeddings.create(
        model=target.embedding_model, input="x", encoding_format="float"
    )
    assert all(
        math.isclose(a, b, abs_tol=1e-5)
        for a, b in zip(floats, plain.data[0].embedding, strict=True)
    )


def check_embeddings_dimensions(target: CheckTarget) -> None:
    client = openai.OpenAI(base_url=target.base_url, api_key="any", max_retries=0)
    told = client.embeddings.create(model=target.embedding_model, input="x", dimensions=64)
    assert len(told.data[0].embedding) == 64


def check_responses(target: CheckTarget) -> None:
    answer = sdk(target).responses.create(model=target.model, input=COUNT, temperature=0)
    assert answer.output_text == TO_TEN
    assert answer.status == "completed"


def check_responses_stream(target: CheckTarget) -> None:
    events = list(
        sdk(target).responses.create(model=target.model, input=COUNT, temperature=0, stream=True)
    )
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == TO_TEN
    assert events[-1].type == "response.completed"


def check_responses_stream_helper(target: CheckTarget) -> None:
    with sdk(target).responses.stream(model=target.model, input=COUNT, temperature=0) as stream:
        assert list(stream)
        assert stream.get_final_response().output_text == TO_TEN


def check_responses_parse(target: CheckTarget) -> None:
    answer = sdk(target).responses.parse(model=target.model, input="Hi", text_format=Kind)
    assert answer.output_parsed == Kind(kind="model")


def check_responses_tools(target: CheckTarget) -> None:
    client = sdk(target)
    tools: Any = [{"type": "function", "name": "get_weather", "parameters": CITY, "strict": False}]
    items: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer: Any = client.responses.create(
        model=target.model, input=items, tools=tools, tool_choice="required"
    )
    call = answer.output[0]
    assert call.type == "function_call"
    assert call.call_id.startswith("call_")
    result: Any = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": '{"sky": "sunny"}',
    }
    assert client.responses.create(
        model=target.model, input=[*items, call, result], tools=tools
    ).output


def check_responses_cut_off(target: CheckTarget) -> None:
    events = list(
        sdk(target).responses.create(
            model=target.model, input="Tell me a story.", max_output_tokens=16, stream=True
        )
    )
    last = events[-1]
    assert last.type == "response.incomplete", last.type
    assert last.response.incomplete_details
    assert last.response.incomplete_details.reason == "max_output_tokens"


def check_responses_input_tokens(target: CheckTarget) -> None:
    told = sdk(target).responses.input_tokens.count(model=target.model, input=COUNT)
    assert told.input_tokens > 0


def check_responses_retrieve(target: CheckTarget) -> None:
    client = sdk(target)
    made = client.responses.create(model=target.model, input="Hi", store=True)
    assert client.responses.retrieve(made.id).id == made.id


def check_responses_previous(target: CheckTarget) -> None:
    refused(
        lambda: sdk(target).responses.create(
            model=target.model, input="x", previous_response_id="resp_x"
        ),
        400,
        "previous_response_not_found",
        "previous_response_id",
    )


def check_responses_thread(target: CheckTarget) -> None:
    client = sdk(target)
    first = client.responses.create(model=target.model, input="Knock knock.", temperature=0)
    second = client.responses.create(
        model=target.model, input="Cache.", previous_response_id=first.id, temperature=0
    )
    assert second.previous_response_id == first.id
    assert second.output_text == "Cache who?", second.output_text
    client.responses.delete(first.id)


def check_responses_background(target: CheckTarget) -> None:
    client = sdk(target)
    made = client.responses.create(model=target.model, input=COUNT, background=True)
    assert made.status == "queued"
    events = list(client.responses.retrieve(made.id, stream=True))
    assert events[-1].type == "response.completed"
    rest = list(client.responses.retrieve(made.id, stream=True, starting_after=1))
    assert [each.sequence_number for each in rest] == [
        each.sequence_number for each in events if each.sequence_number > 1
    ]
    done = client.responses.retrieve(made.id)
    assert (done.status, done.output_text) == ("completed", TO_TEN)
    assert client.responses.cancel(made.id).status == "completed"


def check_conversations(target: CheckTarget) -> None:
    client = sdk(target)
    conversation = client.conversations.create()
    client.responses.create(model=target.model, input="Hi", conversation=conversation.id)
    assert client.conversations.items.list(conversation.id).data


def check_models(target: CheckTarget) -> None:
    client = sdk(target)
    assert target.model in {model.id for model in client.models.list()}
    assert client.models.retrieve(target.model).id == target.model


def check_files(target: CheckTarget) -> None:
    client = sdk(target)
    made = client.files.create(file=b"{}\n", purpose="batch")
    assert client.files.retrieve(made.id).id == made.id


def check_batches(target: CheckTarget) -> None:
    assert sdk(target).batches.list().data is not None


def check_unknown_model(target: CheckTarget) -> None:
    refused(
        lambda: sdk(target).chat.completions.create(model="gpt-9", messages=HELLO),
        404,
        "model_not_found",
        "model",
    )


def check_too_long_a_prompt(target: CheckTarget) -> None:
    messages: Any = [{"role": "user", "content": LONG}]
    refused(
        lambda: sdk(target).chat.completions.create(model=target.model, messages=messages),
        400,
        "context_length_exceeded",
        "messages",
    )


def check_too_long_an_input(target: CheckTarget) -> None:
    refused(
        lambda: sdk(target).responses.create(model=target.model, input=LONG),
        400,
        "context_length_exceeded",
        "input",
    )


def check_empty_messages_and_a_wrong_temperature(target: CheckTarget) -> None:
    client = sdk(target)
    refused(
        lambda: client.chat.completions.create(model=target.model, messages=[]),
        400,
        "empty_array",
        "messages",
    )
    refused(
        lambda: client.chat.completions.create(model=target.model, messages=HELLO, temperature=9),
        400,
        "decimal_above_max_value",
        "temperature",
    )

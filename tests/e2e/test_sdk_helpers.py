"""Helpers of OpenAI's SDK, which stream and parse by types: against the demo model on real vLLM."""

from collections.abc import AsyncIterator
from typing import Literal

import openai
import pytest
from openai import pydantic_function_tool
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ParsedResponseFunctionToolCall
from pydantic import BaseModel

from tests.gateway_process import GatewayProcess

pytestmark = pytest.mark.e2e

HELLO = "Say hello."
WEATHER = "What is the weather in Paris?"


class Kind(BaseModel):
    """An answer that can only be one."""

    kind: Literal["model"]


class GetWeather(BaseModel):
    """Get the current weather in a city."""

    city: str


TOOL = pydantic_function_tool(GetWeather, name="get_weather")


def user(text: str) -> list[ChatCompletionMessageParam]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


@pytest.fixture
async def aclient(gateway: GatewayProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    """The asynchronous SDK."""
    url = f"{gateway.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        yield client


def test_a_chat_is_parsed(client: openai.OpenAI) -> None:
    """`.parse` sends a type as a schema, and makes an object of the answer."""
    answer = client.chat.completions.parse(
        model="demo", temperature=0, messages=user(HELLO), response_format=Kind
    )
    assert answer.choices[0].message.parsed == Kind(kind="model")


def test_a_chat_s_call_is_parsed(client: openai.OpenAI) -> None:
    """Its arguments become an object, too."""
    answer = client.chat.completions.parse(
        model="demo", temperature=0, messages=user(WEATHER), tools=[TOOL]
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == GetWeather(city="Paris")


def test_a_parsed_chat_that_is_cut_off_says_so(client: openai.OpenAI) -> None:
    """Half an answer is not taken for a whole one."""
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model="demo", max_tokens=2, messages=user(HELLO), response_format=Kind
        )


def test_a_streamed_chat_is_parsed(client: openai.OpenAI) -> None:
    """`.stream` collects the chunks, and parses as far as they go."""
    with client.chat.completions.stream(
        model="demo", temperature=0, messages=user(HELLO), response_format=Kind
    ) as stream:
        events = list(stream)
        answer = stream.get_final_completion()
    kinds = {event.type for event in events}
    assert {"chunk", "content.delta", "content.done"} <= kinds
    (done,) = [event for event in events if event.type == "content.done"]
    assert done.parsed == Kind(kind="model")
    assert answer.choices[0].message.parsed == Kind(kind="model")
    assert answer.choices[0].finish_reason == "stop"


def test_a_streamed_chat_s_call_is_parsed(client: openai.OpenAI) -> None:
    """With an event for each part of its arguments, and usage at the end."""
    with client.chat.completions.stream(
        model="demo",
        temperature=0,
        messages=user(WEATHER),
        tools=[TOOL],
        stream_options={"include_usage": True},
    ) as stream:
        events = list(stream)
        answer = stream.get_final_completion()
    (done,) = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert (done.name, done.parsed_arguments) == ("get_weather", GetWeather(city="Paris"))
    assert "tool_calls.function.arguments.delta" in {event.type for event in events}
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage
    assert answer.usage.completion_tokens > 0


async def test_an_asynchronous_chat_is_parsed(aclient: openai.AsyncOpenAI) -> None:
    """The helpers of the other client."""
    async with aclient.chat.completions.stream(
        model="demo", temperature=0, messages=user(HELLO), response_format=Kind
    ) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.parsed == Kind(kind="model")


def test_a_response_is_parsed(client: openai.OpenAI) -> None:
    """`.parse` of the Responses API."""
    response = client.responses.parse(model="demo", temperature=0, input=HELLO, text_format=Kind)
    assert response.output_parsed == Kind(kind="model")


def test_a_response_s_call_is_parsed(client: openai.OpenAI) -> None:
    """Tools made of types are the same as in chats."""
    response = client.responses.parse(model="demo", temperature=0, input=WEATHER, tools=[TOOL])
    (call,) = response.output
    assert isinstance(call, ParsedResponseFunctionToolCall)
    assert call.parsed_arguments == GetWeather(city="Paris")


def test_a_streamed_response_is_parsed(client: openai.OpenAI) -> None:
    """`.stream` of the Responses API: deltas with what there is so far, and the whole."""
    with client.responses.stream(
        model="demo", temperature=0, input=HELLO, text_format=Kind
    ) as stream:
        events = list(stream)
        response = stream.get_final_response()
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert deltas[-1].snapshot == "".join(delta.delta for delta in deltas)
    assert response.output_parsed == Kind(kind="model")
    assert response.status == "completed"


def test_a_streamed_response_s_call_is_parsed(client: openai.OpenAI) -> None:
    """Its arguments come in parts, with what there is so far."""
    with client.responses.stream(
        model="demo", temperature=0, input=WEATHER, tools=[TOOL]
    ) as stream:
        events = list(stream)
        response = stream.get_final_response()
    deltas = [e for e in events if e.type == "response.function_call_arguments.delta"]
    (call,) = response.output
    assert isinstance(call, ParsedResponseFunctionToolCall)
    assert deltas[-1].snapshot == call.arguments
    assert call.parsed_arguments == GetWeather(city="Paris")


async def test_an_asynchronous_response_is_parsed(aclient: openai.AsyncOpenAI) -> None:
    """The helpers of the other client."""
    async with aclient.responses.stream(
        model="demo", temperature=0, input=HELLO, text_format=Kind
    ) as stream:
        response = await stream.get_final_response()
    assert response.output_parsed == Kind(kind="model")

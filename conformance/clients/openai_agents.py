"""OpenAI's Agents SDK by way of chat completions and of responses."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)

from conformance.checks import Check, CheckTarget

set_tracing_disabled(disabled=True)
TO_TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."


@function_tool
def get_weather(city: str) -> str:
    """Get the current weather in a city."""
    return f'{{"city": "{city}", "temperature": 18, "sky": "sunny"}}'


def client(target: CheckTarget) -> openai.AsyncOpenAI:
    """The SDK below the agents."""
    return openai.AsyncOpenAI(base_url=target.base_url, api_key="any", max_retries=0)


def agent(target: CheckTarget, kind: type[Any], **fields: Any) -> Agent[Any]:
    """An agent with a model of this kind."""
    model = kind(model=target.model, openai_client=client(target))
    settings = ModelSettings(temperature=0, max_tokens=128)
    return Agent(name="a", model=model, model_settings=settings, **fields)


async def _run(target: CheckTarget, kind: type[Any]) -> None:
    result = await Runner.run(agent(target, kind), "Count to ten.")
    assert result.final_output == TO_TEN


async def _stream(target: CheckTarget, kind: type[Any]) -> None:
    result = Runner.run_streamed(agent(target, kind), "Count to ten.")
    assert [event async for event in result.stream_events()]
    assert result.final_output == TO_TEN


async def _tool(target: CheckTarget, kind: type[Any]) -> None:
    made = agent(target, kind, tools=[get_weather])
    result = await Runner.run(made, "What is the weather in Paris?")
    assert "sunny" in result.final_output


async def _session(target: CheckTarget, kind: type[Any]) -> None:
    session = SQLiteSession("a")
    await Runner.run(agent(target, kind), "Knock knock.", session=session)
    result = await Runner.run(agent(target, kind), "Cache.", session=session)
    assert result.final_output == "Cache who?"


async def _previous_response(target: CheckTarget) -> None:
    made = agent(target, OpenAIResponsesModel)
    first = await Runner.run(made, "Knock knock.")
    second = await Runner.run(made, "Cache.", previous_response_id=first.last_response_id)
    assert second.final_output == "Cache who?"


async def _conversation(target: CheckTarget) -> None:
    session = OpenAIConversationsSession(openai_client=client(target))
    made = agent(target, OpenAIResponsesModel)
    await Runner.run(made, "Knock knock.", session=session)
    assert (await Runner.run(made, "Cache.", session=session)).final_output == "Cache who?"


def _with(part: Any, kind: Any, target: CheckTarget) -> object:
    return part(target, kind)


def _checks() -> Iterator[tuple[str, Check]]:
    parts = {"run": _run, "stream": _stream, "a tool": _tool, "a session": _session}
    kinds: dict[str, type[Any]] = {
        "chat": OpenAIChatCompletionsModel,
        "responses": OpenAIResponsesModel,
    }
    for name, kind in kinds.items():
        for part_name, part in parts.items():
            yield (
                f"{name}: {part_name}",
                partial(_with, part, kind),
            )
    yield "responses: previous_response_id", _previous_response
    yield "responses: a conversation", _conversation


CHECKS: dict[str, Check] = dict(_checks())

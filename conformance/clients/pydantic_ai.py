"""Pydantic AI by way of chat completions and of responses."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from conformance.checks import Check, CheckTarget

TO_TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
SETTINGS = ModelSettings(temperature=0, max_tokens=128)


class PydanticKind(BaseModel):
    """A structured answer that any model gives."""

    kind: Literal["model"]


def agent(target: CheckTarget, kind: type[Any], **fields: Any) -> Agent[None, Any]:
    """An agent with a model of this kind."""
    provider = OpenAIProvider(base_url=target.base_url, api_key="any")
    model = kind(fields.pop("model", target.model), provider=provider)
    return Agent(model, model_settings=SETTINGS, retries=0, **fields)


def _run(target: CheckTarget, kind: type[Any]) -> None:
    assert agent(target, kind).run_sync("Count to ten.").output == TO_TEN


async def _stream(target: CheckTarget, kind: type[Any]) -> None:
    async with agent(target, kind).run_stream("Count to ten.") as result:
        texts = [text async for text in result.stream_text(delta=True)]
    assert "".join(texts) == TO_TEN


def _tool(target: CheckTarget, kind: type[Any]) -> None:
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """Get the current weather in a city."""
        asked.append(city)
        return '{"city": "Paris", "temperature": 18, "sky": "sunny"}'

    agent(target, kind, tools=[get_weather]).run_sync("What is the weather in Paris?")
    assert asked == ["Paris"]


def _structured(target: CheckTarget, kind: type[Any]) -> None:
    made = agent(target, kind, output_type=NativeOutput(PydanticKind)).run_sync("Say hello.")
    assert made.output == PydanticKind(kind="model")


def _unknown(target: CheckTarget, kind: type[Any]) -> None:
    try:
        agent(target, kind, model="nope").run_sync("Hi")
    except ModelHTTPError as error:
        assert error.status_code == 404
        return
    raise AssertionError("it was not refused")


def _with(part: Any, kind: Any, target: CheckTarget) -> object:
    return part(target, kind)


def _checks() -> Iterator[tuple[str, Check]]:
    parts = {
        "run": _run,
        "stream": _stream,
        "a tool": _tool,
        "structured output": _structured,
        "an unknown model": _unknown,
    }
    for name, kind in {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}.items():
        for part_name, part in parts.items():
            yield (
                f"{name}: {part_name}",
                partial(_with, part, kind),
            )


CHECKS: dict[str, Check] = dict(_checks())

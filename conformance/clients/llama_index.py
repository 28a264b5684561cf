"""LlamaIndex with a server that is like OpenAI's."""

from typing import Any, Literal

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from conformance.checks import CheckTarget

TO_TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
COUNT = [ChatMessage(role="user", content="Count to ten.")]
PROMPT = "The capital of France is"


class IndexedKind(BaseModel):
    """A structured answer that any model gives."""

    kind: Literal["model"]


def get_weather(city: str) -> str:
    """Get the current weather in a city."""
    return f"sunny in {city}"


def llm(target: CheckTarget, **fields: Any) -> OpenAILike:
    """The model."""
    return OpenAILike(
        **{
            "model": target.model,
            "api_base": target.base_url,
            "api_key": "any",
            "temperature": 0,
            "max_tokens": 64,
            "max_retries": 0,
            "context_window": 8192,
            "is_chat_model": True,
            "is_function_calling_model": True,
            **fields,
        }
    )


def check_chat(target: CheckTarget) -> None:
    assert llm(target).chat(COUNT).message.content == TO_TEN


def check_stream_chat(target: CheckTarget) -> None:
    assert "".join(part.delta or "" for part in llm(target).stream_chat(COUNT)) == TO_TEN


def check_complete_as_chat(target: CheckTarget) -> None:
    assert llm(target).complete("Count to ten.").text == TO_TEN


def check_complete(target: CheckTarget) -> None:
    assert llm(target, is_chat_model=False).complete(PROMPT).text.strip() == "Paris."


def check_stream_complete(target: CheckTarget) -> None:
    parts = list(llm(target, is_chat_model=False).stream_complete(PROMPT))
    assert parts[-1].text.strip() == "Paris."


async def check_async_chat(target: CheckTarget) -> None:
    assert (await llm(target).achat(COUNT)).message.content == TO_TEN


async def check_async_stream_chat(target: CheckTarget) -> None:
    parts = [part.delta or "" async for part in await llm(target).astream_chat(COUNT)]
    assert "".join(parts) == TO_TEN


def check_a_tool(target: CheckTarget) -> None:
    tool = FunctionTool.from_defaults(get_weather)
    answer = llm(target).chat_with_tools([tool], user_msg="What is the weather in Paris?")
    (call,) = llm(target).get_tool_calls_from_response(answer)
    assert call.tool_kwargs == {"city": "Paris"}


def check_predict_and_call(target: CheckTarget) -> None:
    tool = FunctionTool.from_defaults(get_weather)
    answer = llm(target).predict_and_call([tool], "What is the weather in Paris?")
    assert str(answer) == "sunny in Paris"


def check_structured_output(target: CheckTarget) -> None:
    structured = llm(target, should_use_structured_outputs=True).as_structured_llm(IndexedKind)
    assert structured.complete("Say hello.").raw == IndexedKind(kind="model")


def check_an_unknown_model(target: CheckTarget) -> None:
    try:
        llm(target, model="nope").chat(COUNT)
    except openai.NotFoundError:
        return
    raise AssertionError("it was not refused")

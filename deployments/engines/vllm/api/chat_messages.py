"""Checks of the messages of a chat."""

from collections.abc import Mapping
from typing import Any

from deployments.engines.vllm.api.field_checks import non_empty
from deployments.engines.vllm.api.refusals import (
    check_list,
    check_object,
    check_value,
    invalid_type,
    invalid_value,
    missing,
)

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PARTS = (
    *("text", "refusal", "thinking", "input_text", "output_text"),
    *("image_url", "input_image", "image_embeds", "image_pil"),
    *("input_audio", "audio_url", "audio_embeds", "video_url", "video_embeds"),
    *("prompt_embeds", "tool_reference"),
)
"""Kinds of content that vLLM reads; whether a model does is another question."""
_CONTENT = ("content", "tool_calls", "function_call", "refusal", "reasoning", "reasoning_content")
"""Fields of which the assistant's messages need one."""


def check_messages(body: Mapping[str, Any]) -> None:
    """Refuse messages that OpenAI would refuse.

    Raises:
        RefusedRequest: there are none, or one has a wrong form.
    """
    if "messages" not in body:
        raise missing("messages")
    check_list("messages", body["messages"])
    non_empty("messages", body["messages"])
    for place, message in enumerate(body["messages"]):
        _check_message(f"messages[{place}]", message)


def _check_message(param: str, message: Any) -> None:  # noqa: ANN401 - JSON
    check_object(param, message)
    if message.get("role") is None:
        raise missing(f"{param}.role")
    if not isinstance(message["role"], str):
        raise invalid_type(f"{param}.role", "a string", message["role"])
    check_value(f"{param}.role", message["role"], ROLES)
    if message.get("content") is None:
        _check_absence(param, message["role"], message)
    else:
        _check_content(f"{param}.content", message["content"])
    if message.get("tool_calls") is not None:
        check_list(f"{param}.tool_calls", message["tool_calls"])
    if message.get("function_call") is not None:
        check_object(f"{param}.function_call", message["function_call"])


def _check_content(param: str, content: Any) -> None:  # noqa: ANN401 - JSON
    if isinstance(content, list):
        for place, part in enumerate(content):
            _check_part(f"{param}[{place}]", part)
    elif not isinstance(content, str):
        raise invalid_type(param, "a string or an array of objects", content)


def _check_absence(param: str, role: str, message: Mapping[str, Any]) -> None:
    """Refuse a message that says nothing."""
    if role == "assistant" and any(message.get(name) is not None for name in _CONTENT):
        return
    if "content" not in message:
        raise missing(f"{param}.content")
    if role != "function":
        raise invalid_type(f"{param}.content", "a string or an array of objects", None)


def _check_part(param: str, part: Any) -> None:  # noqa: ANN401 - JSON
    if isinstance(part, str):
        return  # vLLM takes texts as they are
    check_object(param, part)
    if part.get("type") is not None and part["type"] not in PARTS:
        raise invalid_value(f"{param}.type", part["type"], PARTS)

"""The order of Anthropic's messages: results follow calls, and an answer may have a beginning."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from deployments.engines.vllm.api.refused_request import RefusedRequest

Message = Mapping[str, Any]


def check_order(messages: Sequence[Message]) -> None:
    """Refuse calls without results, and results without calls.

    Successive messages of one role are one turn; those of the system may stand anywhere.

    Raises:
        RefusedRequest: there is such a call or result.
    """
    places = [place for place, message in enumerate(messages) if message["role"] != "system"]
    called: Sequence[str] = ()
    for role, turn in groupby(places, lambda place: messages[place]["role"]):
        own = list(turn)
        if role == "assistant":
            called = _ids(messages, own, "tool_use", "id")
            continue
        _check_results(messages, own, called)
        called = ()
    if called:
        raise _without_result(len(messages) - 1, called)


def adopt_beginning(messages: list[dict[str, Any]]) -> bool:
    """Whether the last message begins the answer; its text is then one string, in place.

    An empty one is left out: it begins nothing.

    Raises:
        RefusedRequest: it is no text, or ends with white space.
    """
    last = messages[-1]
    if last["role"] != "assistant":
        return False
    place = len(messages) - 1
    if isinstance(last["content"], list):
        _join_texts(last, place)
    text = _text_of(last)
    if not text and len(messages) > 1:
        messages.pop()
        return False
    if text != text.rstrip():
        message = "final assistant content cannot end with trailing whitespace"
        raise RefusedRequest(message, param=f"messages[{place}]", code="invalid_value")
    return bool(text)


def _join_texts(message: dict[str, Any], place: int) -> None:
    blocks = message["content"]
    if blocks and blocks[-1]["type"] != "text":
        text = f"The final block in an assistant message cannot be `{blocks[-1]['type']}`."
        raise RefusedRequest(text, param=f"messages[{place}]", code="invalid_value")
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    others = [block for block in blocks if block["type"] != "text"]
    message["content"] = [*others, {"type": "text", "text": text}]


def _text_of(message: Message) -> str:
    content = message["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


def _check_results(
    messages: Sequence[Message], places: Sequence[int], called: Sequence[str]
) -> None:
    results = _ids(messages, places, "tool_result", "tool_use_id")
    unanswered = [id_ for id_ in called if id_ not in results]
    if unanswered:
        raise _without_result(places[0], unanswered)
    for id_ in results:
        if id_ not in called:
            message = (
                f"unexpected `tool_use_id` found in `tool_result` blocks: {id_}. Each `tool_result`"
                " block must have a corresponding `tool_use` block in the previous message."
            )
            param = f"messages[{places[0]}].content"
            raise RefusedRequest(message, param=param, code="invalid_value")


def _ids(messages: Sequence[Message], places: Sequence[int], kind: str, name: str) -> list[str]:
    contents = [messages[place]["content"] for place in places]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    return [block[name] for block in blocks if block["type"] == kind]


def _without_result(place: int, ids: Sequence[str]) -> RefusedRequest:
    message = (
        f"`tool_use` ids were found without `tool_result` blocks immediately after:"
        f" {', '.join(ids)}. Each `tool_use` block must have a corresponding `tool_result` block"
        " in the next message."
    )
    return RefusedRequest(message, param=f"messages[{place}]", code="invalid_value")

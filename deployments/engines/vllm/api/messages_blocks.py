"""Messages of Anthropic's API: their blocks are checked, and written as those that vLLM reads.

Documents and search results that are text become text. vLLM 0.32 leaves out blocks that it cannot
use, and ignores whether a tool has failed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deployments.engines.vllm.api.refusals import (
    check_boolean,
    check_list,
    check_object,
    check_value,
    invalid_type,
    missing,
    unsupported,
)
from deployments.engines.vllm.api.refused_request import RefusedRequest
from gateway.kvcache.message_content import FAILED_RESULT
from gateway.request.reasoning_token import open_token

Block = Mapping[str, Any]
RESULT_BLOCKS = ("text", "image", "document", "search_result", "tool_reference")
BLOCKS: Mapping[str, Sequence[str]] = {
    "user": ("text", "image", "document", "search_result", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text", "tool_addition", "tool_removal"),
}
"""Kinds of blocks that the messages of a role may have."""
STRINGS: Mapping[str, Sequence[str]] = {
    "text": ("text",),
    "thinking": ("thinking",),
    "tool_use": ("id", "name"),
    "tool_result": ("tool_use_id",),
    "search_result": ("source", "title"),
}
"""Strings that a block must have, by its kind."""
IMAGES = {"base64": "data", "url": "url"}
"""Fields of the sources of images, by their types."""


def adopt_messages(messages: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    """The messages of a request as vLLM reads them.

    Raises:
        RefusedRequest: there are none, or one has a wrong form, or parts that cannot be read here.
    """
    check_list("messages", messages)
    if not messages:
        message = "at least one message is required"
        raise RefusedRequest(message, param="messages", code="empty_array")
    return [_message(f"messages[{place}]", message) for place, message in enumerate(messages)]


def check_system(system: Any) -> None:  # noqa: ANN401 - JSON
    """Refuse a system prompt that is no text."""
    if system is not None:
        _content("system", system, ("text",))


def _message(param: str, message: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    check_object(param, message)
    if message.get("role") is None:
        raise missing(f"{param}.role")
    check_value(f"{param}.role", message["role"], tuple(BLOCKS))
    if message.get("content") is None:
        raise missing(f"{param}.content")
    content = _content(f"{param}.content", message["content"], BLOCKS[message["role"]])
    return {**message, "content": content}


def _content(param: str, content: Any, kinds: Sequence[str]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid_type(param, "a string or an array of objects", content)
    blocks: list[Block] = []
    for place, block in enumerate(content):
        blocks += _adopted(f"{param}[{place}]", block, kinds)
    return blocks


def _adopted(param: str, block: Any, kinds: Sequence[str]) -> Sequence[Block]:  # noqa: ANN401
    check_object(param, block)
    kind = block.get("type")
    if kind is None:
        raise missing(f"{param}.type")
    check_value(f"{param}.type", kind, kinds)
    for name in STRINGS.get(kind, ()):
        if block.get(name) is None:
            raise missing(f"{param}.{name}")
        if not isinstance(block[name], str):
            raise invalid_type(f"{param}.{name}", "a string", block[name])
    read = READERS.get(kind)
    return [block] if read is None else read(param, block)


def _image(param: str, block: Block) -> Sequence[Block]:
    _check_image(f"{param}.source", block.get("source"))
    return [block]


def _tool_use(param: str, block: Block) -> Sequence[Block]:
    check_object(f"{param}.input", block.get("input"))
    return [block]


def _thinking(_: str, block: Block) -> Sequence[Block]:
    """Thoughts; those that were left out of an answer come back in their signature."""
    thoughts = block["thinking"] or open_token(block.get("signature")) or ""
    return [{**block, "thinking": thoughts}]


def _check_image(param: str, source: Any) -> None:  # noqa: ANN401 - JSON
    check_object(param, source)
    check_value(f"{param}.type", source.get("type"), tuple(IMAGES))
    name = IMAGES[source["type"]]
    if not isinstance(source.get(name), str):
        raise missing(f"{param}.{name}")


def _document(param: str, block: Block) -> Sequence[Block]:
    """The text of a document, after its title and its context."""
    _check_citations(param, block)
    source = block.get("source")
    check_object(f"{param}.source", source)
    for name in ("title", "context"):
        if not isinstance(block.get(name), str | None):
            raise invalid_type(f"{param}.{name}", "a string", block[name])
    heads = [_text(f"{block[name]}\n") for name in ("title", "context") if block.get(name)]
    return [*heads, *_source(f"{param}.source", source)]


def _source(param: str, source: Any) -> Sequence[Block]:  # noqa: ANN401 - JSON
    if source.get("type") in ("base64", "url", "file"):
        reason = "Documents are read as text only: give a source of type 'text'."
        raise unsupported(f"{param}.type", reason)
    check_value(f"{param}.type", source.get("type"), ("text", "content"))
    if source["type"] == "text":
        if not isinstance(source.get("data"), str):
            raise missing(f"{param}.data")
        return [_text(source["data"])]
    content = _content(f"{param}.content", source.get("content"), ("text", "image"))
    return [_text(content)] if isinstance(content, str) else list(content)


def _search_result(param: str, block: Block) -> Sequence[Block]:
    _check_citations(param, block)
    content = _content(f"{param}.content", block.get("content"), ("text",))
    texts = [_text(content)] if isinstance(content, str) else content
    return [_text(f"{block['title']}\n{block['source']}\n"), *texts]


def _result(param: str, block: Block) -> Sequence[Block]:
    content = block.get("content")
    if content is not None:
        content = _content(f"{param}.content", content, RESULT_BLOCKS)
    if block.get("is_error") is not None:
        check_boolean(f"{param}.is_error", block["is_error"])
    if block.get("is_error") and not content:
        content = FAILED_RESULT
    return [{**block, "content": content}]


def _check_citations(param: str, block: Block) -> None:
    citations = block.get("citations")
    if isinstance(citations, Mapping) and citations.get("enabled"):
        raise unsupported(f"{param}.citations", "Sources are not cited here.")


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


READERS: Mapping[str, Callable[[str, Block], Sequence[Block]]] = {
    "document": _document,
    "image": _image,
    "search_result": _search_result,
    "thinking": _thinking,
    "tool_result": _result,
    "tool_use": _tool_use,
}
"""What checks a block of a kind, named by its place, and returns what vLLM reads in its place."""

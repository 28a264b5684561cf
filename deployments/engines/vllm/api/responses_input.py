"""Input items of a request to `/v1/responses`, in the forms that vLLM renders whole.

vLLM 0.32 renders the first part of an assistant's message only, fails at one without content, and
tries every type of item against one that it does not know, which gives hundreds of errors.
"""

import base64
import binascii
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from deployments.engines.vllm.api.refusals import (
    check_list,
    check_object,
    check_value,
    invalid_type,
    invalid_value,
    missing,
    unsupported,
)
from deployments.engines.vllm.api.refused_request import RefusedRequest
from gateway.request.reasoning_token import open_token

Item = dict[str, Any]
ROLES = ("assistant", "system", "developer", "user")
PARTS = ("input_text", "input_image", "input_file")
SAID = {"output_text": "text", "input_text": "text", "refusal": "refusal"}
"""Parts of what an assistant has said, and the field with the words."""
TYPES = (
    *("message", "function_call", "function_call_output", "custom_tool_call"),
    *("custom_tool_call_output", "reasoning"),
)


def vllm_input(items: Any) -> Any:  # noqa: ANN401 - JSON
    """The input of a request as vLLM renders it.

    Raises:
        RefusedRequest: an item cannot be rendered.
    """
    if isinstance(items, str):
        return items
    if not isinstance(items, list):
        raise invalid_type("input", "a string or an array of input items", items)
    return [_item(f"input[{place}]", item) for place, item in enumerate(items)]


def _item(param: str, item: Any) -> Item:  # noqa: ANN401 - JSON
    check_object(param, item)
    item = {name: value for name, value in item.items() if value is not None}
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "item_reference":
        message = (
            f"Item with id '{item.get('id')}' not found. Items are not persisted by this server."
            " Send the item itself."
        )
        raise RefusedRequest(message, param=param, code="invalid_value")
    if kind is None:
        raise missing(f"{param}.type")
    if kind not in TYPES:
        raise invalid_value(param, kind, TYPES)
    return _READERS[kind](param, item)


def _message(param: str, item: Item) -> Item:
    if "role" not in item:
        raise missing(f"{param}.role")
    check_value(f"{param}.role", item["role"], ROLES)
    if "content" not in item:
        raise missing(f"{param}.content")
    if item["role"] == "assistant":
        return _said(f"{param}.content", item)
    content = _content(f"{param}.content", item["content"])
    return {"type": "message", "role": item["role"], "content": content}


def _said(param: str, item: Item) -> Item:
    """An assistant's message, whose parts are joined to one."""
    content = item["content"]
    if isinstance(content, str):
        content = [{"type": "output_text", "text": content}]
    check_list(param, content)
    text = ""
    for place, part in enumerate(content):
        check_object(f"{param}[{place}]", part)
        check_value(f"{param}[{place}]", part.get("type"), SAID)
        words = part.get(SAID[part["type"]])
        if not isinstance(words, str):
            raise missing(f"{param}[{place}].{SAID[part['type']]}")
        text += words
    status = item.get("status", "completed")
    return {
        "type": "message",
        "id": item.get("id") or f"msg_{uuid.uuid4().hex}",
        "role": "assistant",
        "status": status if status in ("in_progress", "incomplete") else "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def _content(param: str, content: Any) -> Any:  # noqa: ANN401 - JSON
    """A text, or parts of one, as users and tools send them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid_type(param, "a string or an array of content parts", content)
    return [_part(f"{param}[{place}]", part) for place, part in enumerate(content)]


def _part(param: str, part: Any) -> Item:  # noqa: ANN401 - JSON
    check_object(param, part)
    kind = part.get("type")
    if kind is None:
        raise missing(f"{param}.type")
    check_value(param, kind, PARTS)
    if kind == "input_file":
        return {"type": "input_text", "text": _file_text(param, part)}
    if kind == "input_image":
        return _image(param, part)
    if not isinstance(part.get("text"), str):
        raise missing(f"{param}.text")
    return dict(part)


def _image(param: str, part: Mapping[str, Any]) -> Item:
    if part.get("file_id"):
        raise unsupported(f"{param}.file_id", "This server stores no files.")
    if not isinstance(part.get("image_url"), str):
        raise missing(f"{param}.image_url")
    return dict(part)


def _file_text(param: str, part: Mapping[str, Any]) -> str:
    """A file of text, with its name before it; of other kinds models see nothing here."""
    for name in ("file_id", "file_url"):
        if part.get(name):
            raise unsupported(f"{param}.{name}", "This server takes files as `file_data` only.")
    data = part.get("file_data")
    if not isinstance(data, str):
        raise missing(f"{param}.file_data")
    try:
        text = base64.b64decode(data.rpartition(",")[2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise unsupported(f"{param}.file_data", "This server reads files of UTF-8 text.") from None
    if "\0" in text:
        raise unsupported(f"{param}.file_data", "This server reads files of UTF-8 text.")
    return f"{part['filename']}:\n{text}" if part.get("filename") else text


def _call(param: str, item: Item) -> Item:
    said = "arguments" if item["type"] == "function_call" else "input"
    for name in ("call_id", "name", said):
        if not isinstance(item.get(name), str):
            raise missing(f"{param}.{name}")
    return item


def _output(param: str, item: Item) -> Item:
    if not isinstance(item.get("call_id"), str):
        raise missing(f"{param}.call_id")
    if "output" not in item:
        raise missing(f"{param}.output")
    output = _content(f"{param}.output", item["output"])
    return {"type": item["type"], "call_id": item["call_id"], "output": output}


def _reasoning(param: str, item: Item) -> Item:
    """Reasoning in the clear; a token of ours holds what its client does not repeat."""
    token = item.pop("encrypted_content", None)
    item = {"summary": [], **item}
    if token is None or item.get("content"):
        return item
    text = open_token(token)
    if text is None:
        message = f"The encrypted content {str(token)[:16]!r}... could not be verified."
        code = "invalid_encrypted_content"
        raise RefusedRequest(message, param=f"{param}.encrypted_content", code=code)
    return {**item, "content": [{"type": "reasoning_text", "text": text}]}


_READERS: Mapping[str, Callable[[str, Item], Item]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _output,
    "custom_tool_call": _call,
    "custom_tool_call_output": _output,
    "reasoning": _reasoning,
}

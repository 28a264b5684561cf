"""Objects that OpenAI's own tests use up: each request for one of their ids gets a new one."""

import json
import time
from collections.abc import Mapping
from typing import Any

from conformance.checks import CheckTarget
from conformance.http_answers import ask

FILE_IDS = ("file_id", "file-abc123")
UPLOAD_IDS = ("upload_abc123", "upload_id")
BATCH_ID = "batch_id"
INPUT_FILE_ID = "input_file_id"
RESPONSE_IDS = ("resp_677efb5139a88190b512bc3fef8e535d", "response_id")
CONVERSATION_IDS = ("conv_123", "conversation_id")
CHAT_ID = "completion_id"
ITEM_IDS = ("msg_abc", "item_id")
ENDED_S = 30.0
"""How long a response in the background may take."""
_POLL_S = 0.1
_RESPONSE = {"input": "Hi", "background": True, "max_output_tokens": 16}
"""One in the background: it can be streamed and cancelled, too."""
_CHAT = {"messages": [{"role": "user", "content": "Hi"}], "store": True, "max_tokens": 4}
_CONVERSATION = {"items": [{"type": "message", "role": "user", "content": "Hi"}]}
_CONTENT = b"text"
_PURPOSE = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
_FILE = (
    b'--x\r\ncontent-disposition: form-data; name="%s"; filename="a.txt"\r\n\r\n'
    + _CONTENT
    + b"\r\n--x--\r\n"
)
_IS_FORM = {"content-type": "multipart/form-data; boundary=x"}
_PART_ROOM = 1024
"""Bytes that an upload may get which a test adds a part to."""


def with_fresh_objects(  # noqa: C901 - a case for each kind of object
    target: CheckTarget, path: str, body: bytes | None
) -> tuple[str, bytes | None]:
    """A request's path and body with objects that exist, in place of ids that stand there."""
    path, mark, query = path.partition("?")
    parts = path.split("/")
    match parts:
        case ["", "v1", "files", file_id, *_] if file_id in FILE_IDS:
            parts[3] = _file(target) or file_id
        case ["", "v1", "batches", batch_id, *_] if batch_id == BATCH_ID:
            parts[3] = _batch(target) or batch_id
        case ["", "v1", "batches"] if body and INPUT_FILE_ID.encode() in body:
            given = json.loads(body)
            body = json.dumps({**given, INPUT_FILE_ID: _input_file(target)}).encode()
        case ["", "v1", "uploads", upload_id, "complete"] if upload_id in UPLOAD_IDS:
            parts[3], part = _upload_with_part(target, upload_id)
            if body and part:
                body = json.dumps({**json.loads(body), "part_ids": [part]}).encode()
        case ["", "v1", "uploads", upload_id, *_] if upload_id in UPLOAD_IDS:
            parts[3] = _upload(target, _PART_ROOM) or upload_id
        case ["", "v1", "responses", response_id, *_] if response_id in RESPONSE_IDS:
            parts[3] = _response(target) or response_id
        case ["", "v1", "conversations", conversation_id, *rest] if (
            conversation_id in CONVERSATION_IDS
        ):
            parts[3], item = _conversation(target, conversation_id)
            if rest[1:] and rest[1] in ITEM_IDS:
                parts[5] = item or rest[1]
        case ["", "v1", "chat", "completions", chat_id, *_] if chat_id == CHAT_ID:
            parts[4] = _from_model(target, "/v1/chat/completions", _CHAT) or chat_id
    return "/".join(parts) + mark + query, body


def _file(target: CheckTarget) -> str:
    return _made(target, "/v1/files", _PURPOSE + _FILE % b"file", _IS_FORM)


def _input_file(target: CheckTarget) -> str:
    form = _PURPOSE.replace(b"user_data", b"batch") + _FILE % b"file"
    return _made(target, "/v1/files", form, _IS_FORM) or INPUT_FILE_ID


def _batch(target: CheckTarget) -> str:
    fields = {
        INPUT_FILE_ID: _input_file(target),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    return _made(target, "/v1/batches", json.dumps(fields).encode(), {})


def _upload(target: CheckTarget, size: int) -> str:
    fields = {"bytes": size, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}
    return _made(target, "/v1/uploads", json.dumps(fields).encode(), {})


def _upload_with_part(target: CheckTarget, default: str) -> tuple[str, str]:
    upload = _upload(target, len(_CONTENT))
    if not upload:
        return default, ""
    return upload, _made(target, f"/v1/uploads/{upload}/parts", _FILE % b"data", _IS_FORM)


def _response(target: CheckTarget) -> str:
    """Id of a response that has ended."""
    made = _from_model(target, "/v1/responses", _RESPONSE)
    end_s = time.monotonic() + ENDED_S
    while made and time.monotonic() < end_s:
        answer = ask(target.url, "GET", f"/v1/responses/{made}")
        if answer.status != 200 or answer.json["status"] not in ("queued", "in_progress"):
            break
        time.sleep(_POLL_S)  # noqa: TID251 - there is no event loop here
    return made


def _conversation(target: CheckTarget, default: str) -> tuple[str, str]:
    """Ids of a conversation and of its item."""
    made = _made(target, "/v1/conversations", json.dumps(_CONVERSATION).encode(), {})
    if not made:
        return default, ""
    return made, str(ask(target.url, "GET", f"/v1/conversations/{made}/items").json["first_id"])


def _from_model(target: CheckTarget, path: str, fields: Mapping[str, object]) -> str:
    body = json.dumps({"model": target.model, **fields}).encode()
    return _made(target, path, body, {})


def _made(target: CheckTarget, path: str, body: bytes, headers: dict[str, str]) -> str:
    """Id of a new object; empty if the gateway makes none."""
    answer = ask(target.url, "POST", path, body, headers)
    made: Any = answer.json if answer.status == 200 else {}
    return str(made.get("id", ""))

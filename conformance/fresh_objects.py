"""Objects that OpenAI's own tests use up: each request for one of their ids gets a new one."""

import json
from typing import Any

from conformance.checks import CheckTarget
from conformance.http_answers import ask

FILE_IDS = ("file_id", "file-abc123")
UPLOAD_IDS = ("upload_abc123", "upload_id")
BATCH_ID = "batch_id"
INPUT_FILE_ID = "input_file_id"
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


def with_fresh_objects(
    target: CheckTarget, path: str, body: bytes | None
) -> tuple[str, bytes | None]:
    """A request's path and body with objects that exist, in place of ids that stand there."""
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
    return "/".join(parts), body


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


def _made(target: CheckTarget, path: str, body: bytes, headers: dict[str, str]) -> str:
    """Id of a new object; empty if the gateway makes none."""
    answer = ask(target.url, "POST", path, body, headers)
    made: Any = answer.json if answer.status == 200 else {}
    return str(made.get("id", ""))

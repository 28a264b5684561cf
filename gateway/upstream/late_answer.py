"""Events for a whole answer, or an error, whose client's stream has begun already.

The client got the head of a stream and heartbeats before the engine responded. An engine that does
not stream what it was asked to stream has answered all the same.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.errors.anthropic import is_anthropic
from gateway.errors.gateway_error import ErrorBody, ErrorDetail
from gateway.upstream.sse import DONE, RESPONSES, responses_error

Object = dict[str, Any]  # JSON
NO_STREAM = ErrorDetail("The engine's answer is no stream.", "server_error", None, None)
DELTAS = {
    "text": (("text", "text_delta", "text"),),
    "thinking": (
        ("thinking", "thinking_delta", "thinking"),
        ("signature", "signature_delta", "signature"),
    ),
}
"""Strings of Anthropic's blocks, and the deltas that carry them, by the kind of block."""
ENDINGS = ("completed", "incomplete", "failed")
"""Statuses of a whole response, and last words of the events with which its stream ends."""

_error_decoder = msgspec.json.Decoder(ErrorBody)
_decoder = msgspec.json.Decoder(Object)


def late_events(body: bytes, status: int, path: str) -> bytes:
    """The events that make up a stream, or end it.

    `body`, answered with `status`: an answer, or an error in the shape of the API at `path`.
    """
    answer = _answer(body) if status < 400 else None
    if is_anthropic(path):
        if answer is None or answer.get("type") != "message":
            return b"event: error\ndata: %b\n\n" % _line(body)
        return b"".join(_message_events(answer))
    if path == RESPONSES:
        if answer is None or answer.get("object") != "response":
            return b"event: error\ndata: %b\n\n" % responses_error(_detail_in(body), b"")
        return b"".join(_response_events(answer))
    if answer is not None and answer.get("object") == "chat.completion":
        body = msgspec.json.encode(_chunk(answer))
    return b"data: %b\n\n%b" % (_line(body), DONE)


def _answer(body: bytes) -> Object | None:
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError:
        return None


def _line(body: bytes) -> bytes:
    return b"".join(body.splitlines())


def _detail_in(body: bytes) -> ErrorDetail:
    try:
        return _error_decoder.decode(body).error
    except msgspec.MsgspecError:
        return NO_STREAM


def _chunk(answer: Object) -> Object:
    """A chat completion as the only chunk of its stream."""
    choices = [_choice(choice) for choice in _objects(answer.get("choices"))]
    return {**answer, "object": "chat.completion.chunk", "choices": choices}


def _choice(choice: Object) -> Object:
    delta = dict(choice.get("message") or {})
    if calls := delta.get("tool_calls"):
        delta["tool_calls"] = [
            {"index": place, **call} for place, call in enumerate(_objects(calls))
        ]
    return {**{name: choice[name] for name in choice if name != "message"}, "delta": delta}


def _response_events(response: Object) -> Iterator[bytes]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    status = response.get("status")
    ending = status if status in ENDINGS else "completed"
    yield _event("response.created", sequence_number=0, response=begun)
    yield _event(f"response.{ending}", sequence_number=1, response=response)


def _message_events(message: Object) -> Iterator[bytes]:
    usage = message.get("usage") or {}
    begun = {
        **message,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 0},
    }
    yield _event("message_start", message=begun)
    for index, block in enumerate(_objects(message.get("content"))):
        yield from _block_events(index, block)
    delta = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    yield _event("message_delta", delta=delta, usage=usage)
    yield _event("message_stop")


def _block_events(index: int, block: Object) -> Iterator[bytes]:
    """A block, empty at first: clients put it together of its deltas."""
    begun, deltas = dict(block), []
    for name, kind, field in DELTAS.get(str(block.get("type")), ()):
        if name in block:
            begun[name] = ""
            deltas.append({"type": kind, field: block[name]})
    if block.get("type") == "tool_use":
        begun["input"] = {}
        arguments = msgspec.json.encode(block.get("input") or {}).decode()
        deltas.append({"type": "input_json_delta", "partial_json": arguments})
    yield _event("content_block_start", index=index, content_block=begun)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def _objects(value: object) -> Sequence[Object]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else ()


def _event(kind: str, **fields: object) -> bytes:
    data = msgspec.json.encode({"type": kind, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

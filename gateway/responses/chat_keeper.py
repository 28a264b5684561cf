"""Keeps a chat completion before its client sees its end."""

import logging

import msgspec

from gateway.asgi import Headers, Message, Send, header
from gateway.errors.gateway_error import GatewayError
from gateway.errors.state import NotStored
from gateway.request.inference_request import InferenceRequest
from gateway.responses.chat_assembly import Json, assembled_chat
from gateway.responses.response_edits import to_raw
from gateway.responses.state_calls import StateCalls
from gateway.responses.state_messages import KeptChat
from gateway.serving.state_client import StateUnavailable
from gateway.upstream.sse import DONE, error_event

MAX_KEPT = 64 << 20
"""Bytes of an answer that is kept at the utmost."""
DONE_EVENT = b"data: [DONE]"

logger = logging.getLogger(__name__)


class ChatKeeper:
    """`ResponseFilter` of one chat completion whose client has asked to keep it."""

    def __init__(self, request: InferenceRequest, calls: StateCalls) -> None:
        self._request = request
        self._calls = calls
        self._start: Message | None = None
        self._is_stream = False
        self._answer = bytearray()

    def passes(self, _body: bytes) -> bool:
        """None may go past `send`: they are kept."""
        return False

    async def send(self, message: Message, send: Send) -> None:
        """Send on what its client is to see."""
        if message["type"] == "http.response.start":
            kind = header(message["headers"], b"content-type", b"")
            is_good = message["status"] == 200
            self._is_stream = is_good and kind.startswith(b"text/event-stream")
            if is_good and not self._is_stream:
                self._start = message
                return
        elif self._is_stream:
            message = await self._end_stream(message)
        elif self._start is not None:
            await self._hold(self._start, message, send)
            return
        await send(message)

    async def _end_stream(self, message: Message) -> Message:
        """Events of a stream; its end waits until it is kept."""
        body = message.get("body", b"")
        before, is_end, rest = body.partition(DONE_EVENT) if _has_end(body) else (body, b"", b"")
        self._append(before)
        if not is_end:
            return message
        try:
            if (answer := assembled_chat(bytes(self._answer))) is not None:
                await self._keep(answer)
        except NotStored as error:
            ending = error_event(error, self._request.path, b"", self._request.request_id)
            return dict(message, body=before + ending.removesuffix(DONE) + is_end + rest)
        return message

    async def _hold(self, start: Message, message: Message, send: Send) -> None:
        self._answer += message.get("body", b"")
        is_last = not message.get("more_body", False)
        if not is_last and len(self._answer) <= MAX_KEPT:
            return
        self._start = None
        body = bytes(self._answer)
        if is_last:
            try:
                await self._keep(msgspec.json.decode(body, type=Json))
            except msgspec.MsgspecError:
                pass  # what an engine says that is no JSON is not kept
            except NotStored as error:
                body = error.body()
                headers = _with_length(start["headers"], len(body)) + error.headers
                start = dict(start, status=error.status, headers=headers)
        await send(start)
        await send(dict(message, body=body))

    async def _keep(self, answer: Json) -> None:
        fields = self._request.head.fields
        try:
            kept = KeptChat(
                id=str(answer["id"]),
                model=str(answer.get("model", "")),
                body=to_raw(answer),
                messages=fields.messages,
                metadata=_labels(fields.metadata),
            )
            await self._calls.keep_chat(self._request.project, kept)
        except (StateUnavailable, GatewayError, KeyError) as error:
            logger.warning("a chat completion is not stored: %s", error)
            raise NotStored(
                "The answer was made, but cannot be stored now, as `store` asks for. Try again."
            ) from None

    def _append(self, events: bytes) -> None:
        if len(self._answer) <= MAX_KEPT:
            self._answer += events


def _has_end(events: bytes) -> bool:
    return events.startswith(DONE_EVENT) or b"\n" + DONE_EVENT in events


def _labels(raw: msgspec.Raw) -> dict[str, str]:
    if not raw:
        return {}
    try:
        return msgspec.json.decode(raw, type=dict[str, str] | None) or {}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _with_length(headers: Headers, length: int) -> Headers:
    kept = [each for each in headers if each[0] != b"content-length"]
    return [*kept, (b"content-length", b"%d" % length)]

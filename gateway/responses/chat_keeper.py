"""Keeps a chat completion before its client sees its end."""

import logging
from collections.abc import Mapping

import msgspec

from gateway.asgi import Message, Send, header
from gateway.errors.gateway_error import GatewayError
from gateway.errors.state import NotStored
from gateway.request.inference_request import InferenceRequest
from gateway.responses.chat_assembly import ChatAssembly
from gateway.responses.response_edits import to_raw, with_length
from gateway.responses.state_calls import StateCalls, StateRefused
from gateway.responses.state_messages import KeptChat
from gateway.serving.client_response import ClientResponse
from gateway.serving.state_client import StateUnavailable
from gateway.upstream.sse import DONE, error_event

MAX_KEPT = 64 << 20
"""Bytes of an answer that is kept at the utmost."""
DONE_EVENT = b"data: [DONE]"
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)

logger = logging.getLogger(__name__)


class ChatKeeper:
    """`ResponseFilter` of one chat completion whose client has asked to keep it.

    `labels`: its `metadata`. `response`: the one that it filters, whose status is the real one.
    """

    def __init__(
        self,
        request: InferenceRequest,
        labels: Mapping[str, str],
        calls: StateCalls,
        response: ClientResponse,
    ) -> None:
        self._request = request
        self._labels = dict(labels)
        self._calls = calls
        self._response = response
        self._start: Message | None = None
        """The start of a whole answer that is held back."""
        self._held = bytearray()
        self._stream: ChatAssembly | None = None
        """What a stream amounts to, until that is kept."""
        self._is_refused = False
        """An error was sent in place of the answer, of which more comes."""

    def passes(self, _body: bytes) -> bool:
        """None may go past `send`: they are kept."""
        return False

    async def send(self, message: Message, send: Send) -> None:
        """Send on what its client is to see."""
        if message["type"] == "http.response.start":
            kind = header(message["headers"], b"content-type", b"")
            is_good = message["status"] == 200
            if is_good and kind.startswith(b"text/event-stream"):
                self._stream = ChatAssembly(MAX_KEPT)
            elif is_good:
                self._start = message
                return
        elif self._is_refused:
            return
        elif self._stream is not None:
            message = await self._end_stream(self._stream, message)
        elif self._start is not None:
            await self._hold(self._start, message, send)
            return
        await send(message)

    async def _end_stream(self, stream: ChatAssembly, message: Message) -> Message:
        """Events of a stream; its end waits until it is kept."""
        body = message.get("body", b"")
        is_end = stream.add(body) or not message.get("more_body", False)
        if not is_end or stream.has_failed:
            return message
        self._stream = None
        try:
            answer = stream.answer()
            if answer is None:
                raise _not_keepable(is_too_large=stream.is_too_large)
            await self._keep(answer["id"], answer.get("model", ""), to_raw(answer))
        except GatewayError as error:
            self._response.status = error.status
            ending = error_event(error, self._request.path, b"", self._request.request_id)
            before, done, rest = _split_end(body)
            return dict(message, body=before + ending.removesuffix(DONE) + (done or DONE) + rest)
        return message

    async def _hold(self, start: Message, message: Message, send: Send) -> None:
        self._held += message.get("body", b"")
        is_last = not message.get("more_body", False)
        is_too_large = len(self._held) > MAX_KEPT
        if not is_last and not is_too_large:
            return
        self._start = None
        body = bytes(self._held)
        self._held.clear()
        try:
            if is_too_large:
                raise _not_keepable(is_too_large=True)
            await self._keep_whole(body)
        except GatewayError as error:
            self._is_refused = True
            self._response.status = error.status
            body = error.body()
            headers = with_length(start["headers"], len(body)) + error.headers
            start = dict(start, status=error.status, headers=headers)
        await send(start)
        await send(dict(message, body=body, more_body=False))

    async def _keep_whole(self, body: bytes) -> None:
        try:
            fields = _fields.decode(body)
            names = [_text.decode(fields.get(name, b'""')) for name in ("id", "model")]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise _not_keepable(is_too_large=False) from None
        await self._keep(names[0], names[1], msgspec.Raw(body))

    async def _keep(self, identifier: str, model: str, body: msgspec.Raw) -> None:
        """Keep the answer.

        Raises:
            NotStored: State does not answer, or has failed.
            StateRefused: it does not take it.
        """
        messages = self._request.head.fields.messages
        kept = KeptChat(
            id=identifier, model=model, body=body, messages=messages, metadata=self._labels
        )
        try:
            await self._calls.keep_chat(self._request.project, kept)
        except (StateUnavailable, StateRefused) as error:
            logger.warning("a chat completion is not stored: %s", error)
            if isinstance(error, StateRefused) and error.status < 500:
                raise
            raise NotStored(
                "The answer was made, but cannot be stored now, as `store` asks for. Try again."
            ) from None


def _not_keepable(*, is_too_large: bool) -> NotStored:
    if is_too_large:
        return NotStored(
            f"The answer is larger than {MAX_KEPT >> 20} MiB, the most that is stored. Ask for less"
            " of it, or leave out `store`."
        )
    return NotStored("The engine's answer cannot be stored, as `store` asks for: it is not whole.")


def _split_end(events: bytes) -> tuple[bytes, bytes, bytes]:
    """What comes before the event that ends a stream, that event's line, and the rest."""
    before, done, rest = events.rpartition(DONE_EVENT)
    is_line = done and (not before or before.endswith(b"\n"))
    return (before, done, rest) if is_line else (events, b"", b"")

"""Streams whose first event is the client's error, answered with a status instead.

vLLM 0.32 validates a streamed request after it has sent a head of 200, so the refusal of a grammar
comes as an event; the same request without `stream` gets 400. Routers send their head no earlier.
"""

from collections.abc import Awaitable

import msgspec

from deployments.engines.asgi import send_json
from gateway.asgi import App, Message, Receive, Scope, Send

STATUS_OF = {"BadRequestError": 400, "NotFoundError": 404, "UnprocessableEntityError": 422}


class _StreamedDetail(msgspec.Struct):
    code: int | str | None = None
    type: str | None = None


class _StreamedError(msgspec.Struct):
    error: _StreamedDetail


_decoder = msgspec.json.Decoder(_StreamedError)


def with_early_errors(app: App) -> App:
    """The application, whose streams do not begin with a client's error."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, _LateHead(send) if scope["type"] == "http" else send)

    return wrapped


def refusal(chunk: bytes) -> tuple[int, bytes] | None:
    """Status and JSON of the client's error with which a stream begins, if it does."""
    lines = chunk[:4].startswith((b"data", b"even")) and chunk.split(b"\n", 2)
    data = next((line for line in lines or () if line.startswith(b'data: {"')), b"")
    if b'"error"' not in data:
        return None
    body = data.removeprefix(b"data: ").rstrip()
    try:
        error = _decoder.decode(body).error
    except msgspec.MsgspecError:
        return None
    status = error.code if isinstance(error.code, int) else STATUS_OF.get(error.type or "", 0)
    return (status, body) if 400 <= status < 500 else None


class _LateHead:
    """ASGI's `send`, which holds the head of a stream until its first event."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self._is_begun = self._is_replaced = False

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send one message; without a coroutine of our own for each chunk of a stream."""
        return self._send(message) if self._is_begun else self._begin(message)

    async def _begin(self, message: Message) -> None:
        if self._is_replaced:
            return
        if message["type"] == "http.response.start" and _is_stream(message):
            self._head = message
        elif self._head is None:
            self._is_begun = True
            await self._send(message)
        elif refused := refusal(message.get("body", b"")):
            self._is_replaced = True
            await send_json(self._send, *refused)
        else:
            self._is_begun = True
            await self._send(self._head)
            await self._send(message)


def _is_stream(head: Message) -> bool:
    return head["status"] == 200 and any(
        name == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in head["headers"]
    )

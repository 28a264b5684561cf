"""Server-sent events: keeping them whole, and the events that end a broken stream."""

import re

import msgspec

from gateway.errors import ErrorDetail, GatewayError

EVENT_LIMIT = 1 << 20
"""Bytes of one event above which it is passed on in pieces."""
DONE = b"data: [DONE]\n\n"
_sequence_number = re.compile(rb'"sequence_number":\s*(\d{1,18})')
_empty_line = re.compile(rb"\r?\n\r?\n")


class WholeEvents:
    """Passes on whole events only, so that an error event never lands inside another one.

    The beginning of an event is of no use to a client, hence nothing is delayed. Linear in the
    bytes; holds at most `EVENT_LIMIT` of them.
    """

    __slots__ = ("_held", "_is_torn")

    def __init__(self) -> None:
        self._held = bytearray()
        self._is_torn = False

    @property
    def is_torn(self) -> bool:
        """Whether what has been passed on ends inside an event."""
        return self._is_torn

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may go on now, perhaps none."""
        if not self._held and chunk.endswith(b"\n\n"):
            self._is_torn = False
            return chunk
        held = self._held
        seen = max(0, len(held) - 3)
        held += chunk
        end = max(_end(held, b"\n\n", seen), _end(held, b"\r\n\r\n", seen))
        if end == 0:
            return self._give_up() if len(held) > EVENT_LIMIT else b""
        self._is_torn = False
        whole = bytes(held[:end])
        del held[:end]
        return whole

    def flush(self) -> bytes:
        """What is held back, for a stream that has come to its proper end."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def cut(self) -> bytes:
        """What must be sent so that a new event can begin; what is held back is dropped."""
        self._held.clear()
        return b"\n\n" if self._is_torn else b""

    def _give_up(self) -> bytes:
        self._is_torn = True
        return self.flush()


def split(events: bytes) -> list[bytes]:
    """Whole events one by one, without the empty lines between them."""
    parts = _empty_line.split(events) if b"\r" in events else events.split(b"\n\n")
    return [event for event in parts if event]


def payload(event: bytes) -> bytes:
    """The data of one event; empty if it has none, as a comment."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = event.splitlines()
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))


def error_event(error: GatewayError, path: str, last: bytes) -> bytes:
    """The end of a stream that `error` has broken, in the words of the API at `path`.

    `last`: the latest bytes of the stream, where `/v1/responses` numbers its events.
    """
    detail = error.detail
    if path.startswith("/v1/messages"):
        return b"event: error\ndata: %b\n\n" % error.body(is_anthropic=True)
    if path == "/v1/responses":
        return b"event: error\ndata: %b\n\n" % _responses_error(detail, last)
    return b"data: %b\n\n%b" % (error.body(), DONE)


def late_answer(body: bytes, path: str) -> bytes:
    """The end of a stream that began before its engine had answered, with `body` and no stream."""
    data = b"".join(body.splitlines())
    if path.startswith("/v1/messages") or path == "/v1/responses":
        return b"event: error\ndata: %b\n\n" % data
    return b"data: %b\n\n%b" % (data, DONE)


class _ResponsesError(msgspec.Struct, tag="error"):
    """OpenAI's `ResponseErrorEvent`; its SDK raises for `error` and ignores the event without."""

    code: str | None
    message: str
    param: str | None
    sequence_number: int
    error: ErrorDetail


def _responses_error(detail: ErrorDetail, last: bytes) -> bytes:
    numbers = _sequence_number.findall(last)
    number = int(numbers[-1]) + 1 if numbers else 0
    return msgspec.json.encode(
        _ResponsesError(detail.code, detail.message, detail.param, number, detail)
    )


def _end(data: bytearray, separator: bytes, start: int) -> int:
    position = data.rfind(separator, start)
    return 0 if position < 0 else position + len(separator)

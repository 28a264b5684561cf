"""Server-sent events: buffering, parsing, and the events that end a broken stream."""

import re

import msgspec

from gateway.errors.anthropic import error_body, is_anthropic
from gateway.errors.gateway_error import ErrorDetail, GatewayError

EVENT_LIMIT = 1 << 20
"""Bytes of one event above which it is forwarded in pieces."""
DONE_DATA = b"[DONE]"
"""Data of the event that ends a stream of completions."""
DONE = b"data: [DONE]\n\n"
RESPONSES = "/v1/responses"
_sequence_number = re.compile(rb'"sequence_number":\s*(\d{1,18})')
_empty_line = re.compile(rb"\r?\n\r?\n")


class EventBuffer:
    """Buffer that releases whole events only, so that an error event never lands inside another.

    The beginning of an event is useless to a client, so this delays nothing. Linear in the bytes;
    holds at most `EVENT_LIMIT` of them.
    """

    __slots__ = ("_is_mid_event", "_partial")

    def __init__(self) -> None:
        self._partial = bytearray()
        self._is_mid_event = False

    @property
    def is_mid_event(self) -> bool:
        """Whether the released bytes end inside an event."""
        return self._is_mid_event

    def passes(self, chunk: bytes) -> bool:
        """Whether a chunk is a run of whole events, which `feed` would return and forget."""
        return not self._partial and not self._is_mid_event and chunk.endswith(b"\n\n")

    def feed(self, chunk: bytes) -> bytes:
        """Add a chunk; return the bytes that may be forwarded now, perhaps none."""
        if not self._partial and chunk.endswith(b"\n\n"):
            self._is_mid_event = False
            return chunk
        partial = self._partial
        searched = max(0, len(partial) - 3)
        partial += chunk
        end = max(_last_end(partial, b"\n\n", searched), _last_end(partial, b"\r\n\r\n", searched))
        if end == 0:
            return self._flush_oversized() if len(partial) > EVENT_LIMIT else b""
        self._is_mid_event = False
        whole = bytes(partial[:end])
        del partial[:end]
        return whole

    def flush(self) -> bytes:
        """Return the buffered bytes, as the stream has ended properly."""
        rest = bytes(self._partial)
        self._partial.clear()
        return rest

    def discard_partial(self) -> bytes:
        """Drop the buffered bytes; return what ends the event that was released in part, if any."""
        self._partial.clear()
        return b"\n\n" if self._is_mid_event else b""

    def _flush_oversized(self) -> bytes:
        self._is_mid_event = True
        return self.flush()


def split_events(events: bytes) -> list[bytes]:
    """Split whole events, without the empty lines between them."""
    parts = _empty_line.split(events) if b"\r" in events else events.split(b"\n\n")
    return [event for event in parts if event]


def event_data(event: bytes) -> bytes:
    """Return the data of one event; empty if it has none, such as a comment."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = event.splitlines()
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))


def error_event(error: GatewayError, path: str, last: bytes, request_id: bytes = b"") -> bytes:
    """Return the events that end a stream because of `error`, as the API at `path` has them.

    `last`: latest bytes of the stream; in `/v1/responses` they hold the number of an event.
    """
    if is_anthropic(path):
        return b"event: error\ndata: %b\n\n" % error_body(error, path, request_id)
    if path == RESPONSES:
        return b"event: error\ndata: %b\n\n" % responses_error(error.detail, last)
    return b"data: %b\n\n%b" % (error.body(), DONE)


class _ResponsesError(msgspec.Struct, tag="error"):
    """OpenAI's `ResponseErrorEvent`. Its SDK raises for `error`, and ignores the event without."""

    code: str | None
    message: str
    param: str | None
    sequence_number: int
    error: ErrorDetail


def responses_error(detail: ErrorDetail, last: bytes) -> bytes:
    """Data of the event for an error of OpenAI's Responses; `last`: see `error_event`."""
    numbers = _sequence_number.findall(last)
    number = int(numbers[-1]) + 1 if numbers else 0
    return msgspec.json.encode(
        _ResponsesError(detail.code, detail.message, detail.param, number, detail)
    )


def _last_end(data: bytearray, separator: bytes, start: int) -> int:
    position = data.rfind(separator, start)
    return 0 if position < 0 else position + len(separator)

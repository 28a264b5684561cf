"""Signs of life in a silent stream, as clients of each API count them, and its end after an error.

Every reader of server-sent events skips comments, so a client that waits for the next event with a
time limit does not see them. Anthropic's API has an event for that, `ping`. In OpenAI's Responses
`response.in_progress` says that there is nothing new; it carries the response as the engine began
it, and the number of the last event once more. The next number would be the engine's own: clients
that look at the numbers would take the engine's event for a repetition. Before the first event
comments must do there: OpenAI's SDK accepts none before `response.created`.
"""

import msgspec

from gateway.request.raw_fields import ABSENT
from gateway.upstream.sse import event_data, split_events

COMMENT = b": still working\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
IN_PROGRESS = b"event: response.in_progress\ndata: %b\n\n"
FAILED = b"event: response.failed\ndata: %b\n\n"
MAX_RESPONSE = 256 * 1024
"""Bytes of a response that is repeated; it holds the client's instructions and tools."""
MAX_SEARCHED = 4
"""Parts of a stream in which its response is looked for: engines begin with it."""


class SignsOfLife:
    """Signs of life for streams whose events need no more than a comment, or none."""

    learns = False
    """Whether it has to observe what the client is sent."""

    def observe(self, events: bytes) -> None:
        """Learn from whole events that the client is sent."""

    def after(self, comment: bytes) -> bytes:
        """What to send after silence; it begins with `comment`."""
        return comment

    def failed(self, error: bytes, message: str) -> bytes:
        """What ends a broken stream: the event `error`, and what some clients await after it."""
        return error


class Pings(SignsOfLife):
    """Signs of life of Anthropic's Messages."""

    def after(self, comment: bytes) -> bytes:
        """The comment and a `ping`."""
        return comment + PING


class _ResponseEvent(msgspec.Struct):
    """Event of a stream of OpenAI's Responses."""

    sequence_number: int
    type: str = ""
    response: msgspec.Raw = ABSENT


class _Failed(msgspec.Struct, tag="response.failed"):
    sequence_number: int
    response: dict[str, object]


class _InProgress(msgspec.Struct, tag="response.in_progress"):
    sequence_number: int
    response: msgspec.Raw


_decoder = msgspec.json.Decoder(_ResponseEvent)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ResponseProgress(SignsOfLife):
    """Signs of life of OpenAI's Responses."""

    learns = True

    def __init__(self) -> None:
        self._searched = 0
        self._response: msgspec.Raw | None = None
        self._last = b""

    def observe(self, events: bytes) -> None:
        """Learn the response and, when it is needed, the last number."""
        self._last = events
        if self._response is None and self._searched < MAX_SEARCHED:
            self._searched += 1
            self._search(events)

    def after(self, comment: bytes) -> bytes:
        """The comment and `response.in_progress`, once there is a response."""
        events = split_events(self._last)
        last = _parsed(events[-1]) if events else None
        if self._response is None or last is None:
            return comment
        data = msgspec.json.encode(_InProgress(last.sequence_number, self._response))
        return comment + IN_PROGRESS % data

    def failed(self, error: bytes, message: str) -> bytes:
        """The event and `response.failed`, once there is a response: not all clients know both."""
        last = _parsed(error)
        if self._response is None or last is None:
            return error
        response: dict[str, object] = {
            **_fields.decode(self._response),
            "status": "failed",
            "error": {"code": "server_error", "message": message},
        }
        data = msgspec.json.encode(_Failed(last.sequence_number + 1, response))
        return error + FAILED % data

    def _search(self, events: bytes) -> None:
        for event in split_events(events):
            found = _parsed(event)
            if found is None or found.type not in ("response.created", "response.in_progress"):
                continue
            text = bytes(found.response)
            if text and len(text) <= MAX_RESPONSE and b"\n" not in text:
                self._response = msgspec.Raw(text)


NO_SIGNS = SignsOfLife()


def signs_of_life(path: str) -> SignsOfLife:
    """The signs of life of one stream of the API at `path`."""
    if path == "/v1/messages":
        return Pings()
    return ResponseProgress() if path == "/v1/responses" else NO_SIGNS


def _parsed(event: bytes) -> _ResponseEvent | None:
    try:
        return _decoder.decode(event_data(event))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None

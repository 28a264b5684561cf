"""The chat completion that the chunks of a stream amount to, put together as they come.

Texts are gathered in lists and joined in the end; log probabilities stay as they were written. So a
stream of n bytes costs time and memory of O(n).
"""

from typing import Any

import msgspec

from gateway.upstream.sse import DONE_DATA, event_data, split_events

Json = dict[str, Any]
JOINED = ("content", "refusal", "reasoning", "reasoning_content")
"""Fields of a delta that are texts to be joined."""
KEPT = ("id", "created", "model", "system_fingerprint", "service_tier", "usage")
_ENDS = (b"\n\n", b"\r\n\r\n")
"""What follows an event."""


class _Logprobs(msgspec.Struct):
    """Log probabilities of a chunk's tokens."""

    content: list[msgspec.Raw] | None = None
    refusal: list[msgspec.Raw] | None = None


class _StoredChunkChoice(msgspec.Struct):
    """What a chunk adds to a choice."""

    index: int | None = None
    delta: Json | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _StoredChunk(msgspec.Struct):
    """A chunk of a stream."""

    id: str | None = None
    created: int | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: Json | None = None
    choices: list[_StoredChunkChoice] | None = None
    error: Any = None


_chunk = msgspec.json.Decoder(_StoredChunk)


class ChatAssembly:
    """The answer of a stream; one of more than `max_bytes` is given up."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._partial = bytearray()
        self._answer: Json = {"object": "chat.completion"}
        self._choices: dict[int, _AssembledChoice] = {}
        self.has_failed = False
        """Whether the stream has an error."""

    @property
    def is_too_large(self) -> bool:
        """Whether it was given up."""
        return self._left < 0

    def add(self, body: bytes) -> bool:
        """Add a part of the stream; whether the event that ends it is there."""
        self._left -= len(body)
        has_ended = False
        for event in split_events(self._whole_events(body)):
            data = event_data(event)
            has_ended |= data == DONE_DATA
            if data[:1] == b"{":
                self._add_chunk(data)
        return has_ended

    def answer(self) -> Json | None:
        """The whole answer; None if there is none."""
        if self.has_failed or self.is_too_large or "id" not in self._answer or not self._choices:
            return None
        choices = [self._choices[index].answer(index) for index in sorted(self._choices)]
        return {**self._answer, "choices": choices}

    def _whole_events(self, body: bytes) -> bytes:
        """The events that a part completes; the beginning of another one waits."""
        if not self._partial and body.endswith(_ENDS):
            return body
        searched = max(0, len(self._partial) - 3)
        self._partial += body
        places = ((self._partial.rfind(end, searched), len(end)) for end in _ENDS)
        cut = max((place + length for place, length in places if place >= 0), default=0)
        if cut == 0 and self.is_too_large:
            del self._partial[:-3]  # nothing but the end of the event is looked for
            return b""
        whole = bytes(self._partial[:cut])
        del self._partial[:cut]
        return whole

    def _add_chunk(self, data: bytes) -> None:
        try:
            chunk = _chunk.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if chunk.error is not None:
            self.has_failed = True
        if self.is_too_large:
            self._choices.clear()
            return
        given = ((name, getattr(chunk, name)) for name in KEPT)
        self._answer |= {name: value for name, value in given if value is not None}
        for choice in chunk.choices or ():
            self._choices.setdefault(choice.index or 0, _AssembledChoice()).add(choice)


class _Texts:
    """An object whose texts come in parts; other values replace each other."""

    def __init__(self) -> None:
        self._values: Json = {}
        self._texts: dict[str, list[str]] = {}

    def join(self, name: str, text: str) -> None:
        """Add a part of a text."""
        self._texts.setdefault(name, []).append(text)

    def replace(self, name: str, value: object) -> None:
        """Set a value that comes whole."""
        self._values[name] = value

    def whole(self) -> Json:
        """The object."""
        return self._values | {name: "".join(parts) for name, parts in self._texts.items()}


class _AssembledCall:
    """A call of a tool."""

    def __init__(self) -> None:
        self._fields: Json = {"id": "", "type": "function"}
        self._parts: dict[str, _Texts] = {}

    def add(self, part: Json) -> None:
        """Add a part of it."""
        self._fields |= {name: part[name] for name in ("id", "type") if part.get(name)}
        for name in ("function", "custom"):
            if part.get(name):
                _join(self._parts.setdefault(name, _Texts()), part[name])

    def whole(self) -> Json:
        """The call."""
        return self._fields | {name: part.whole() for name, part in self._parts.items()}


class _AssembledChoice:
    """One choice of the answer."""

    def __init__(self) -> None:
        self._message = _Texts()
        self._function = _Texts()
        self._calls: list[_AssembledCall] = []
        self._logprobs: dict[str, list[msgspec.Raw]] = {}
        self._finish_reason: str | None = None

    def add(self, chunk: _StoredChunkChoice) -> None:
        """Add what a chunk has of it."""
        for name, value in (chunk.delta or {}).items():
            if value is not None and name != "role":
                self._add_value(name, value)
        if chunk.finish_reason is not None:
            self._finish_reason = chunk.finish_reason
        if chunk.logprobs is not None:
            for name in ("content", "refusal"):
                found = getattr(chunk.logprobs, name) or ()
                self._logprobs.setdefault(name, []).extend(each.copy() for each in found)

    def answer(self, index: int) -> Json:
        """The choice as a whole answer has it."""
        message = {"role": "assistant", "content": None, "refusal": None, **self._message.whole()}
        if self._calls:
            message["tool_calls"] = [call.whole() for call in self._calls]
        if function := self._function.whole():
            message["function_call"] = {"name": "", "arguments": "", **function}
        logprobs = {name: found or None for name, found in self._logprobs.items()}
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs or None,
            "finish_reason": self._finish_reason,
        }

    def _add_value(self, name: str, value: Any) -> None:  # noqa: ANN401 - JSON
        if name in JOINED and isinstance(value, str):
            self._message.join(name, value)
        elif name == "tool_calls":
            for part in value:
                self._call(part.get("index")).add(part)
        elif name == "function_call":
            _join(self._function, value)
        else:
            self._message.replace(name, value)

    def _call(self, index: int | None) -> _AssembledCall:
        place = len(self._calls) if index is None else index
        while len(self._calls) <= place:
            self._calls.append(_AssembledCall())
        return self._calls[place]


def _join(whole: _Texts, part: Json) -> None:
    """Join the texts of parts; a name comes whole."""
    for name, value in part.items():
        if name == "name":
            if value is not None:
                whole.replace(name, value)
        elif isinstance(value, str):
            whole.join(name, value)

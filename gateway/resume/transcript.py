"""What the chunks of a streamed completion come to: texts by choice and channel, some facts."""

from collections.abc import Iterator

import msgspec

from gateway.resume.fields import NULL
from gateway.upstream.sse import payload, split

Channel = tuple[str, int]
"""One of the texts that a choice is made of: its kind, and which of its kind."""
LogProbs = dict[str, list[msgspec.Raw] | None]
CONTENT: Channel = ("content", 0)
REASONING: Channel = ("reasoning", 0)
DELTA_TEXTS = ("content", "reasoning", "reasoning_content", "refusal")
"""The fields of a delta with text; engines have two names for one of them."""
TEXTS: dict[str, Channel] = {
    "text": CONTENT,
    "content": CONTENT,
    "reasoning": REASONING,
    "reasoning_content": REASONING,
    "refusal": ("refusal", 0),
}
"""The channel of every field with text."""
DONE_DATA = b"[DONE]"
IDENTITY = ("id", "created", "model")
"""What is the same in all chunks of one answer."""


class FunctionPiece(msgspec.Struct):
    """What a chunk adds to a call's function."""

    name: str | None = None
    arguments: str | None = None


class ToolCallPiece(msgspec.Struct):
    """What a chunk adds to a tool call."""

    index: int = 0
    function: FunctionPiece | None = None


class Delta(msgspec.Struct):
    """What a chunk adds to a chat message."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPiece] | None = None
    function_call: msgspec.Raw = NULL
    audio: msgspec.Raw = NULL


class ChoiceChunk(msgspec.Struct):
    """A piece of one choice."""

    index: int = 0
    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: LogProbs | None = None
    token_ids: list[int] | None = None

    def pieces(self) -> Iterator[tuple[Channel, str]]:
        """What is added to which text."""
        if self.text:
            yield CONTENT, self.text
        delta = self.delta
        if delta is None:
            return
        for field in DELTA_TEXTS:
            if text := getattr(delta, field):
                yield TEXTS[field], text
        for call in delta.tool_calls or ():
            function = call.function or FunctionPiece()
            yield ("name", call.index), function.name or ""
            yield ("arguments", call.index), function.arguments or ""


class Usage(msgspec.Struct):
    """What an answer has come to, in tokens."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class _Chunk(msgspec.Struct):
    """An event of a stream, as far as carrying it on depends on it."""

    choices: list[ChoiceChunk]
    id: msgspec.Raw = NULL
    created: msgspec.Raw = NULL
    model: msgspec.Raw = NULL
    usage: Usage | None = None


_chunk = msgspec.json.Decoder(_Chunk)


class ChoiceTranscript:
    """What one choice has said."""

    __slots__ = ("_texts", "finish_reason", "has_role", "logprobs", "stop_reason", "token_ids")

    def __init__(self) -> None:
        self._texts: dict[Channel, bytearray] = {}
        self.has_role = False
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.logprobs = 0
        """Tokens of which probabilities were sent."""
        self.token_ids = 0
        """Tokens of which ids were sent."""

    @property
    def texts(self) -> dict[Channel, str]:
        """The texts so far; a tool call that has begun has one even if it is empty."""
        return {channel: text.decode() for channel, text in self._texts.items()}

    @property
    def is_blank(self) -> bool:
        """Whether nothing was said yet."""
        return not (self._texts or self.finish_reason or self.logprobs or self.token_ids)

    def add(self, choice: ChoiceChunk) -> None:
        """Take what a chunk adds."""
        for channel, text in choice.pieces():
            self._texts.setdefault(channel, bytearray()).extend(text.encode())
        if choice.delta is not None and choice.delta.role is not None:
            self.has_role = True
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason
            self.stop_reason = choice.stop_reason
        self.logprobs += logprobs_length(choice.logprobs)
        self.token_ids += len(choice.token_ids or ())


class Transcript:
    """What all events of a stream come to. Needs little more memory than the texts."""

    __slots__ = ("choices", "has_usage", "identity", "is_done", "is_empty", "is_readable", "usage")

    def __init__(self) -> None:
        self.is_empty = True
        self.is_readable = True
        """Whether it is known what all events said."""
        self.is_done = False
        self.identity: dict[str, msgspec.Raw] = {}
        self.choices: dict[int, ChoiceTranscript] = {}
        self.usage: Usage | None = None
        """The latest, if any."""
        self.has_usage = False
        """Whether the final usage was sent."""

    @property
    def is_blank(self) -> bool:
        """Whether no choice has said anything."""
        return self.is_readable and all(said.is_blank for said in self.choices.values())

    def is_finished(self, choices: int) -> bool:
        """Whether that many choices were said to the end."""
        said = self.choices.values()
        return len(said) >= choices and all(choice.finish_reason for choice in said)

    def read(self, events: bytes) -> None:
        """Take more events."""
        for event in split(events):
            data = payload(event)
            if data == DONE_DATA:
                self.is_done = True
            elif data:
                self.is_empty = False
                self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            chunk = _chunk.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.is_readable = False
            return
        if not self.identity:
            self.identity = {name: getattr(chunk, name).copy() for name in IDENTITY}
        if chunk.usage is not None:
            self.usage = chunk.usage
            self.has_usage = not chunk.choices
        for choice in chunk.choices:
            if choice.delta is not None and not _is_understood(choice.delta):
                self.is_readable = False
            self.choices.setdefault(choice.index, ChoiceTranscript()).add(choice)


def logprobs_length(logprobs: LogProbs | None) -> int:
    """How many tokens the probabilities are of."""
    return max((len(values or ()) for values in (logprobs or {}).values()), default=0)


def _is_understood(delta: Delta) -> bool:
    return bytes(delta.function_call) == bytes(delta.audio) == bytes(NULL)

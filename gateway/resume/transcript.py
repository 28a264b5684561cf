"""Sum of the chunks of a streamed completion: the texts of each choice, and what else was sent."""

import msgspec

from gateway.upstream.completion_chunk import (
    NULL,
    Channel,
    ChunkChoice,
    CompletionChunk,
    MessageDelta,
    TokenUsage,
    logprobs_count,
)
from gateway.upstream.sse import DONE_DATA, event_data, split_events

IDENTITY_FIELDS = ("id", "created", "model")
"""Fields that are the same in all chunks of one response."""

_chunk = msgspec.json.Decoder(CompletionChunk)


class ChoiceTranscript:
    """Sum of the deltas of one choice."""

    __slots__ = (
        "_texts",
        "finish_reason",
        "has_role",
        "logprobs",
        "stop_reason",
        "text_chunks",
        "token_ids",
    )

    def __init__(self) -> None:
        self._texts: dict[Channel, bytearray] = {}
        self.has_role = False
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.logprobs = 0
        """Number of tokens sent with log probabilities."""
        self.token_ids = 0
        """Number of token ids sent."""
        self.text_chunks = 0
        """Number of chunks with text: each has at least one token, and usually just one."""

    @property
    def texts(self) -> dict[Channel, str]:
        """Texts so far; a tool call that has begun has them even if they are empty."""
        return {channel: text.decode() for channel, text in self._texts.items()}

    @property
    def has_output(self) -> bool:
        """Whether any output of the model was sent; a role alone is none."""
        return bool(self._texts or self.finish_reason or self.logprobs or self.token_ids)

    def add(self, choice: ChunkChoice) -> None:
        """Add the contents of a chunk."""
        has_text = False
        for channel, text in choice.text_deltas():
            has_text = has_text or bool(text)
            self._texts.setdefault(channel, bytearray()).extend(text.encode())
        self.text_chunks += has_text
        if choice.delta is not None and choice.delta.role is not None:
            self.has_role = True
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason
            self.stop_reason = choice.stop_reason
        self.logprobs += logprobs_count(choice.logprobs)
        self.token_ids += len(choice.token_ids or ())


class Transcript:
    """Sum of all events of a stream. Needs little more memory than the texts."""

    __slots__ = ("choices", "has_usage", "identity", "is_done", "is_empty", "is_readable", "usage")

    def __init__(self) -> None:
        self.is_empty = True
        """Whether no event with data was sent."""
        self.is_readable = True
        """Whether all events could be parsed, and every field of them is understood."""
        self.is_done = False
        self.identity: dict[str, msgspec.Raw] = {}
        self.choices: dict[int, ChoiceTranscript] = {}
        self.usage: TokenUsage | None = None
        """Latest usage, if any."""
        self.has_usage = False
        """Whether the final usage was sent."""

    @property
    def has_output(self) -> bool:
        """Whether any choice has output, or may have some in an event that is not readable."""
        return not self.is_readable or any(choice.has_output for choice in self.choices.values())

    def is_finished(self, choices: int) -> bool:
        """Return whether that many choices have finished."""
        sent = self.choices.values()
        return len(sent) >= choices and all(choice.finish_reason for choice in sent)

    def add_events(self, events: bytes) -> None:
        """Add whole events."""
        for event in split_events(events):
            data = event_data(event)
            if data == DONE_DATA:
                self.is_done = True
            elif data:
                self.is_empty = False
                self._add_chunk(data)

    def _add_chunk(self, data: bytes) -> None:
        try:
            chunk = _chunk.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.is_readable = False
            return
        if not self.identity:
            self.identity = {name: getattr(chunk, name).copy() for name in IDENTITY_FIELDS}
        if chunk.usage is not None:
            self.usage = chunk.usage
            self.has_usage = not chunk.choices
        for choice in chunk.choices:
            if choice.delta is not None and not _is_understood(choice.delta):
                self.is_readable = False
            self.choices.setdefault(choice.index, ChoiceTranscript()).add(choice)


def _is_understood(delta: MessageDelta) -> bool:
    return bytes(delta.function_call) == bytes(delta.audio) == bytes(NULL)

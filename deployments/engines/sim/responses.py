"""A simulated engine's replies, in the shapes of OpenAI's chat and text completions."""

from dataclasses import dataclass
from typing import Protocol

import msgspec

FINGERPRINT = "simulated"
"""Every reply says in `system_fingerprint` what it is."""

_PLACEHOLDER = "\x00"
_ENCODED_PLACEHOLDER = b"\\u0000"


class CachedTokens(msgspec.Struct):
    """How much of a prompt came out of the KV cache."""

    cached_tokens: int = 0


class Usage(msgspec.Struct):
    """What a request came to, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Delta(msgspec.Struct, omit_defaults=True):
    """What a chunk adds to a chat message."""

    role: str | None = None
    content: str | None = None


class ChatChunkChoice(msgspec.Struct):
    """A piece of one choice of a streamed chat completion."""

    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: str | None = None


class ChatReply(msgspec.Struct):
    """What the assistant says."""

    role: str
    content: str
    refusal: None = None


class ChatChoice(msgspec.Struct):
    """One choice of a chat completion."""

    index: int
    message: ChatReply
    finish_reason: str
    logprobs: None = None


class TextChoice(msgspec.Struct):
    """One choice of a text completion, or a piece of one."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: str | None = None


Choice = ChatChunkChoice | ChatChoice | TextChoice


class Envelope(msgspec.Struct):
    """A reply, or a chunk of one."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    system_fingerprint: str = FINGERPRINT


class Style(Protocol):
    """How a route words its replies."""

    id_prefix: str
    object: str
    chunk_object: str

    def opening(self, index: int) -> Choice | None:
        """The choice of a stream's first chunk, if it has one before the text."""

    def piece(self, index: int, text: str) -> Choice:
        """The choice of a chunk with text."""

    def ending(self, index: int, finish_reason: str) -> Choice:
        """The choice of a stream's last chunk."""

    def whole(self, index: int, text: str, finish_reason: str) -> Choice:
        """The choice of a reply that is not streamed."""


class ChatStyle:
    """`/v1/chat/completions`."""

    id_prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, index: int) -> Choice:
        """Who speaks."""
        return ChatChunkChoice(index, Delta(role="assistant", content=""))

    def piece(self, index: int, text: str) -> Choice:
        """A delta with content."""
        return ChatChunkChoice(index, Delta(content=text))

    def ending(self, index: int, finish_reason: str) -> Choice:
        """An empty delta."""
        return ChatChunkChoice(index, Delta(), finish_reason=finish_reason)

    def whole(self, index: int, text: str, finish_reason: str) -> Choice:
        """A message."""
        return ChatChoice(index, ChatReply("assistant", text), finish_reason)


class TextStyle:
    """`/v1/completions`."""

    id_prefix = "cmpl-"
    object = "text_completion"
    chunk_object = "text_completion"

    def opening(self, index: int) -> None:
        """Nothing: a text begins with its text."""

    def piece(self, index: int, text: str) -> Choice:
        """A text."""
        return TextChoice(index, text)

    def ending(self, index: int, finish_reason: str) -> Choice:
        """An empty text."""
        return TextChoice(index, "", finish_reason=finish_reason)

    def whole(self, index: int, text: str, finish_reason: str) -> Choice:
        """All the text."""
        return TextChoice(index, text, finish_reason=finish_reason)


@dataclass(frozen=True, slots=True)
class Reply:
    """Encodes one reply: whole as JSON, or chunk by chunk as server-sent events."""

    style: Style
    id: str
    created: int
    model: str
    include_usage: bool

    def whole(self, choices: list[Choice], usage: Usage) -> bytes:
        """The reply in one piece."""
        return msgspec.json.encode(
            Envelope(self.id, self.style.object, self.created, self.model, choices, usage)
        )

    def opening(self, index: int) -> bytes:
        """The event before a choice's text; may be empty."""
        choice = self.style.opening(index)
        return b"" if choice is None else self._event([choice])

    def piece(self, index: int) -> tuple[bytes, bytes]:
        """What comes before and after a word in the events of a choice's text.

        Encoded once, because these events are most of what an engine sends.
        """
        event = self._event([self.style.piece(index, _PLACEHOLDER)])
        # From the right: what stands before may hold anything a client put into its request id.
        before, _, after = event.rpartition(_ENCODED_PLACEHOLDER)
        return before, after

    def ending(self, index: int, finish_reason: str) -> bytes:
        """The event after a choice's text."""
        return self._event([self.style.ending(index, finish_reason)])

    def closing(self, usage: Usage) -> bytes:
        """The events at the end of a stream."""
        done = b"data: [DONE]\n\n"
        return self._event([], usage) + done if self.include_usage else done

    def _event(self, choices: list[Choice], usage: Usage | None = None) -> bytes:
        # Whoever asks for the usage gets the field in every chunk, and a value in the last.
        shown = usage if self.include_usage else msgspec.UNSET
        chunk = Envelope(self.id, self.style.chunk_object, self.created, self.model, choices, shown)
        return b"data: %b\n\n" % msgspec.json.encode(chunk)

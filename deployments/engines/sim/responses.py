"""Responses of a simulated engine, in the shapes of OpenAI's chat and text completions."""

from dataclasses import dataclass
from typing import Protocol

import msgspec

from gateway.request.service_tier import DEFAULT_TIER

FINGERPRINT = "simulated"
"""`system_fingerprint` of every response."""

_PLACEHOLDER = "\x00"
_ENCODED_PLACEHOLDER = b"\\u0000"


class PromptTokensDetails(msgspec.Struct):
    """OpenAI's `prompt_tokens_details`: tokens of the prompt that were in the KV cache."""

    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    """OpenAI's `completion_tokens_details`: kinds of tokens that a simulated engine has none of."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(msgspec.Struct):
    """OpenAI's `usage`: the tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class ChoiceDelta(msgspec.Struct, omit_defaults=True):
    """OpenAI's `delta`: what a chunk adds to a chat message."""

    content: str | None = None


class OpeningDelta(msgspec.Struct):
    """The first `delta` of a chat message."""

    role: str = "assistant"
    content: str = ""
    refusal: None = None


class ChatChunkChoice(msgspec.Struct):
    """Choice in a chunk of a chat completion."""

    index: int
    delta: ChoiceDelta | OpeningDelta
    logprobs: None = None
    finish_reason: str | None = None


class ChatResponseMessage(msgspec.Struct):
    """Message of the assistant."""

    role: str
    content: str
    refusal: None = None
    annotations: tuple[()] = ()


class ChatChoice(msgspec.Struct):
    """Choice of a chat completion."""

    index: int
    message: ChatResponseMessage
    finish_reason: str
    logprobs: None = None


class TextChoice(msgspec.Struct):
    """Choice of a text completion, or of a chunk of one."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: str | None = None


ResponseChoice = ChatChunkChoice | ChatChoice | TextChoice


class ResponseBody(msgspec.Struct):
    """Body of a response, or of a chunk."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ResponseChoice]
    usage: CompletionUsage | msgspec.UnsetType | None = msgspec.UNSET
    service_tier: str | msgspec.UnsetType = msgspec.UNSET
    system_fingerprint: str = FINGERPRINT


class ResponseFormatter(Protocol):
    """Format of a route's responses."""

    id_prefix: str
    object: str
    chunk_object: str

    def opening(self, index: int) -> ResponseChoice | None:
        """Choice of the chunk before the text, if the format has one."""

    def piece(self, index: int, text: str) -> ResponseChoice:
        """Choice of a chunk with text."""

    def ending(self, index: int, finish_reason: str) -> ResponseChoice:
        """Choice of the chunk after the text."""

    def whole(self, index: int, text: str, finish_reason: str) -> ResponseChoice:
        """Choice of a response that is not streamed."""


class ChatFormatter:
    """Format of `/v1/chat/completions`."""

    id_prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, index: int) -> ResponseChoice:
        """A delta with the role."""
        return ChatChunkChoice(index, OpeningDelta())

    def piece(self, index: int, text: str) -> ResponseChoice:
        """A delta with content."""
        return ChatChunkChoice(index, ChoiceDelta(content=text))

    def ending(self, index: int, finish_reason: str) -> ResponseChoice:
        """An empty delta."""
        return ChatChunkChoice(index, ChoiceDelta(), finish_reason=finish_reason)

    def whole(self, index: int, text: str, finish_reason: str) -> ResponseChoice:
        """A message."""
        return ChatChoice(index, ChatResponseMessage("assistant", text), finish_reason)


class TextFormatter:
    """Format of `/v1/completions`."""

    id_prefix = "cmpl-"
    object = "text_completion"
    chunk_object = "text_completion"

    def opening(self, index: int) -> None:
        """Nothing: a text has no role."""

    def piece(self, index: int, text: str) -> ResponseChoice:
        """A text."""
        return TextChoice(index, text)

    def ending(self, index: int, finish_reason: str) -> ResponseChoice:
        """An empty text."""
        return TextChoice(index, "", finish_reason=finish_reason)

    def whole(self, index: int, text: str, finish_reason: str) -> ResponseChoice:
        """The whole text."""
        return TextChoice(index, text, finish_reason=finish_reason)


@dataclass(frozen=True, slots=True)
class ResponseEncoder:
    """Encodes one response: whole as JSON, or chunk by chunk as server-sent events."""

    formatter: ResponseFormatter
    id: str
    created: int
    model: str
    include_usage: bool
    tier: str = DEFAULT_TIER
    """Service tier of the request: in whole responses, and in the last chunks of streams."""

    def whole(self, choices: list[ResponseChoice], usage: CompletionUsage) -> bytes:
        """The response in one piece."""
        return msgspec.json.encode(
            ResponseBody(
                self.id,
                self.formatter.object,
                self.created,
                self.model,
                choices,
                usage,
                self.tier,
            )
        )

    def opening(self, index: int) -> bytes:
        """The event before a choice's text; may be empty."""
        choice = self.formatter.opening(index)
        return b"" if choice is None else self._event([choice])

    def piece(self, index: int) -> tuple[bytes, bytes]:
        """Bytes before and after each word in the events of a choice's text.

        Encoded once, because these events are most of what an engine sends.
        """
        event = self._event([self.formatter.piece(index, _PLACEHOLDER)])
        # From the right: a request id, which comes before, may contain anything.
        before, _, after = event.rpartition(_ENCODED_PLACEHOLDER)
        return before, after

    def ending(self, index: int, finish_reason: str) -> bytes:
        """The event after a choice's text."""
        return self._event([self.formatter.ending(index, finish_reason)], is_last=True)

    def closing(self, usage: CompletionUsage) -> bytes:
        """The events at the end of a stream."""
        done = b"data: [DONE]\n\n"
        return self._event([], usage, is_last=True) + done if self.include_usage else done

    def _event(
        self,
        choices: list[ResponseChoice],
        usage: CompletionUsage | None = None,
        *,
        is_last: bool = False,
    ) -> bytes:
        chunk = ResponseBody(
            self.id,
            self.formatter.chunk_object,
            self.created,
            self.model,
            choices,
            # With `include_usage` every chunk has the field, and the last one a value.
            usage if self.include_usage else msgspec.UNSET,
            self.tier if is_last else msgspec.UNSET,
        )
        return b"data: %b\n\n" % msgspec.json.encode(chunk)

"""OpenAI's streamed chunks of chat and text completions, as far as the gateway reads them."""

from collections.abc import Iterator

import msgspec

NULL = msgspec.Raw(b"null")
Channel = tuple[str, int]
"""One of the texts of a choice: its kind, and its index among those of that kind."""
LogProbs = dict[str, list[msgspec.Raw] | None]
CONTENT: Channel = ("content", 0)
REASONING: Channel = ("reasoning", 0)
DELTA_TEXT_FIELDS = ("content", "reasoning", "reasoning_content", "refusal")
"""Fields of a delta with text; engines have two names for reasoning."""
TEXT_CHANNELS: dict[str, Channel] = {
    "text": CONTENT,
    "content": CONTENT,
    "reasoning": REASONING,
    "reasoning_content": REASONING,
    "refusal": ("refusal", 0),
}
"""Channel of every field with text."""


class FunctionDelta(msgspec.Struct):
    """Addition to the function of a tool call."""

    name: str | None = None
    arguments: str | None = None


class CustomDelta(msgspec.Struct):
    """Addition to the call of a custom tool."""

    name: str | None = None
    input: str | None = None


class ToolCallDelta(msgspec.Struct):
    """Addition to a tool call."""

    index: int = 0
    function: FunctionDelta | None = None
    custom: CustomDelta | None = None


class MessageDelta(msgspec.Struct):
    """Addition to a chat message."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: msgspec.Raw = NULL
    audio: msgspec.Raw = NULL


class ChunkChoice(msgspec.Struct):
    """Addition to one choice."""

    index: int = 0
    text: str | None = None
    delta: MessageDelta | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: LogProbs | None = None
    token_ids: list[int] | None = None

    def text_deltas(self) -> Iterator[tuple[Channel, str]]:
        """Yield the channel and text of each addition."""
        if self.text:
            yield CONTENT, self.text
        delta = self.delta
        if delta is None:
            return
        for field in DELTA_TEXT_FIELDS:
            if text := getattr(delta, field):
                yield TEXT_CHANNELS[field], text
        for call in delta.tool_calls or ():
            function = call.function or FunctionDelta()
            custom = call.custom or CustomDelta()
            yield ("name", call.index), function.name or custom.name or ""
            yield ("arguments", call.index), function.arguments or custom.input or ""


class TokenUsage(msgspec.Struct, frozen=True):
    """Token counts of a request."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0

    def with_total(self) -> dict[str, int]:
        """Return OpenAI's `usage` object."""
        completion_tokens = self.completion_tokens or 0
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        }


class CompletionChunk(msgspec.Struct):
    """One event of a stream; fields that are not read are left out."""

    choices: list[ChunkChoice]
    id: msgspec.Raw = NULL
    created: msgspec.Raw = NULL
    model: msgspec.Raw = NULL
    usage: TokenUsage | None = None


def logprobs_count(logprobs: LogProbs | None) -> int:
    """Return the number of tokens that have log probabilities."""
    return max((len(values or ()) for values in (logprobs or {}).values()), default=0)

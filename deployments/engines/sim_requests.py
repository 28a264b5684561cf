"""What a simulated engine understands of a request: prompts, lengths, how to answer."""

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeGuard

import msgspec
import xxhash

from gateway.errors import InvalidJSON, InvalidRequest

BYTES_PER_TOKEN = 4
"""What English text comes to in common tokenizers."""

MAX_CHOICES = 128
"""As many as OpenAI allows in `n`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's length in tokens, and a 64-bit number that stands for its content."""

    tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """One answer to generate; `seed` decides what it says."""

    index: int
    seed: int
    prompt_tokens: int
    output_tokens: int
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Task:
    """A request, understood: `n` answers to every prompt."""

    model: str
    prompts: list[Prompt]
    n: int
    max_tokens: int | None
    stream: bool
    include_usage: bool

    def sequences(self, default_tokens: int, max_model_len: int) -> list[Sequence]:
        """Return the answers to generate, `n` to each prompt in turn.

        Raises:
            ContextLengthExceeded: one of them would not fit.
        """
        return [
            self._sequence(index, prompt, choice, default_tokens, max_model_len)
            for index, (prompt, choice) in enumerate(itertools.product(self.prompts, range(self.n)))
        ]

    def _sequence(
        self, index: int, prompt: Prompt, choice: int, default_tokens: int, max_model_len: int
    ) -> Sequence:
        room = max_model_len - prompt.tokens
        least = self.max_tokens or 1
        if room < least:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {max_model_len} tokens. However, you"
                f" requested {prompt.tokens + least} tokens ({prompt.tokens} in the prompt, {least}"
                " in the completion). Please reduce the length of the prompt or completion."
            )
        output_tokens = self.max_tokens or min(default_tokens, room)
        has_ended = self.max_tokens is None and output_tokens == default_tokens
        return Sequence(
            index=index,
            seed=prompt.seed + choice,
            prompt_tokens=prompt.tokens,
            output_tokens=output_tokens,
            finish_reason="stop" if has_ended else "length",
        )


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer together are longer than the model's context."""

    code = "context_length_exceeded"


class StreamOptions(msgspec.Struct):
    """OpenAI's `stream_options`."""

    include_usage: bool | None = None


class Part(msgspec.Struct):
    """A part of a message's content; what is not text does not count here."""

    type: str
    text: str = ""


class ChatMessage(msgspec.Struct):
    """One message of a conversation."""

    role: str
    content: str | list[Part] | None = None

    @property
    def rendered(self) -> str:
        """The message as this engine's chat template has it."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        return f"{self.role}: {content}\n"


class EngineRequest(msgspec.Struct, kw_only=True):
    """What the bodies of both routes have in common."""

    model: str
    max_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    @abstractmethod
    def prompts(self) -> list[Prompt]:
        """The prompts to answer."""

    @property
    def limit(self) -> int | None:
        """Tokens an answer may have, where the client says."""
        return self.max_tokens


class ChatRequest(EngineRequest):
    """The body of `/v1/chat/completions`."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")

    @property
    def prompts(self) -> list[Prompt]:
        """The one prompt: the tools, then the conversation."""
        text = "".join(message.rendered for message in self.messages)
        return [_text_prompt(bytes(self.tools) + text.encode())]

    @property
    def limit(self) -> int | None:
        """The newer of OpenAI's two fields, or the older."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(EngineRequest):
    """The body of `/v1/completions`."""

    prompt: str | list[str | int | list[int]]

    @property
    def prompts(self) -> list[Prompt]:
        """A text, token ids, or a list of either."""
        return list(_prompts(self.prompt))


def parse(body: bytes, kind: type[EngineRequest]) -> Task:
    """Parse and check a body.

    Raises:
        InvalidJSON: it is no JSON.
        InvalidRequest: a field is missing, of the wrong type or out of range.
    """
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidJSON("We could not parse the JSON body of your request.") from None
    options = request.stream_options
    n, limit = 1 if request.n is None else request.n, request.limit
    if not 1 <= n <= MAX_CHOICES:
        raise InvalidRequest(f"`n` must be between 1 and {MAX_CHOICES}, not {n}.", "n")
    if limit is not None and limit < 1:
        raise InvalidRequest(f"`max_tokens` must be at least 1, not {limit}.", "max_tokens")
    return Task(
        model=request.model,
        prompts=request.prompts,
        n=n,
        max_tokens=limit,
        stream=bool(request.stream),
        include_usage=bool(options and options.include_usage),
    )


def _prompts(prompt: str | list[str | int | list[int]]) -> Iterator[Prompt]:
    if isinstance(prompt, str):
        yield _text_prompt(prompt.encode())
    elif not prompt:
        raise InvalidRequest("`prompt` must not be empty.", "prompt")
    elif _all_integers(prompt):
        yield _ids_prompt(prompt)
    else:
        for item in prompt:
            match item:
                case str():
                    yield _text_prompt(item.encode())
                case list():
                    yield _ids_prompt(item)
                case _:
                    raise InvalidRequest("`prompt` must not mix texts and token ids.", "prompt")


def _text_prompt(text: bytes) -> Prompt:
    # A template always adds something, so that no prompt is empty.
    return Prompt(max(1, -(-len(text) // BYTES_PER_TOKEN)), xxhash.xxh3_64_intdigest(text))


def _ids_prompt(ids: list[int]) -> Prompt:
    return Prompt(max(1, len(ids)), xxhash.xxh3_64_intdigest(msgspec.msgpack.encode(ids)))


def _all_integers(prompt: list[str | int | list[int]]) -> TypeGuard[list[int]]:
    return all(isinstance(item, int) for item in prompt)

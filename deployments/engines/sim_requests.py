"""What a simulated engine understands of a request: prompts, lengths, how to answer."""

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, TypeGuard

import msgspec
import xxhash

from deployments.engines.sim_sequences import CHAT_FRAME, TEXT_FRAME, Prompt, Sequence
from deployments.engines.sim_words import words
from gateway.errors import InvalidJSON, InvalidRequest

MAX_CHOICES = 128
"""As many as OpenAI allows in `n`."""

TokenId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


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
        lengths = [
            self._length(prompt.tokens, default_tokens, max_model_len) for prompt in self.prompts
        ]
        answers = itertools.product(zip(self.prompts, lengths, strict=True), range(self.n))
        return [
            Sequence(
                index=index,
                prompt=prompt,
                words=list(itertools.islice(words(prompt.seed + choice), length)),
                finish_reason="stop" if self._is_whole(length, default_tokens) else "length",
            )
            for index, ((prompt, length), choice) in enumerate(answers)
        ]

    def _length(self, prompt_tokens: int, default_tokens: int, max_model_len: int) -> int:
        room = max_model_len - prompt_tokens
        least = self.max_tokens or 1
        if room < least:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {max_model_len} tokens. However, you"
                f" requested {prompt_tokens + least} tokens ({prompt_tokens} in the prompt, {least}"
                " in the completion). Please reduce the length of the prompt or completion."
            )
        return self.max_tokens or min(default_tokens, room)

    def _is_whole(self, length: int, default_tokens: int) -> bool:
        return self.max_tokens is None and length == default_tokens


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
    cache_salt: str | None = None

    @property
    @abstractmethod
    def prompts(self) -> list[Prompt]:
        """The prompts to answer."""

    @property
    def limit(self) -> int | None:
        """Tokens an answer may have, where the client says."""
        return self.max_tokens

    @property
    def salt(self) -> int:
        """What keeps the prompt's blocks from those of other prompts; 0 where nothing does."""
        return xxhash.xxh3_64_intdigest(self.cache_salt.encode()) if self.cache_salt else 0


class ChatRequest(EngineRequest):
    """The body of `/v1/chat/completions`."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")

    @property
    def prompts(self) -> list[Prompt]:
        """The one prompt: the tools, then the conversation."""
        text = "".join(message.rendered for message in self.messages)
        return [Prompt.of_text(bytes(self.tools) + text.encode(), self.salt, CHAT_FRAME)]

    @property
    def limit(self) -> int | None:
        """The newer of OpenAI's two fields, or the older."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(EngineRequest):
    """The body of `/v1/completions`."""

    prompt: str | list[str | TokenId | list[TokenId]]

    @property
    def prompts(self) -> list[Prompt]:
        """A text, token ids, or a list of either."""
        return list(_prompts(self.prompt, self.salt))


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


def _prompts(prompt: str | list[str | int | list[int]], salt: int) -> Iterator[Prompt]:
    if isinstance(prompt, str):
        yield Prompt.of_text(prompt.encode(), salt, TEXT_FRAME)
    elif not prompt:
        raise InvalidRequest("`prompt` must not be empty.", "prompt")
    elif _all_integers(prompt):
        yield Prompt.of_ids(prompt, salt)
    else:
        for item in prompt:
            match item:
                case str():
                    yield Prompt.of_text(item.encode(), salt, TEXT_FRAME)
                case list():
                    yield Prompt.of_ids(item, salt)
                case _:
                    raise InvalidRequest("`prompt` must not mix texts and token ids.", "prompt")


def _all_integers(prompt: list[str | int | list[int]]) -> TypeGuard[list[int]]:
    return all(isinstance(item, int) for item in prompt)

"""What a simulated engine understands of a request: prompts, lengths, how to answer."""

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeGuard

import msgspec
import xxhash

from deployments.engines.sim.sequences import (
    BYTES_PER_TOKEN,
    CHAT_FRAME,
    TEXT_FRAME,
    Prompt,
    Sequence,
)
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
        lengths = [self._length(prompt, default_tokens, max_model_len) for prompt in self.prompts]
        answers = itertools.product(zip(self.prompts, lengths, strict=True), range(self.n))
        return [
            Sequence(
                index=index,
                prompt=prompt,
                words=prompt.rest(choice, length),
                finish_reason=self._finish_reason(prompt.said_tokens + length, default_tokens),
            )
            for index, ((prompt, length), choice) in enumerate(answers)
        ]

    def apart(self, adapter: str) -> "Task":
        """The task for an adapter, which shares no block of the KV cache with other ones."""
        salt = xxhash.xxh3_64_intdigest(adapter.encode())
        prompts = [replace(prompt, salt=prompt.salt ^ salt) for prompt in self.prompts]
        return replace(self, prompts=prompts)

    def _length(self, prompt: Prompt, default_tokens: int, max_model_len: int) -> int:
        room = max_model_len - prompt.tokens
        least = self.max_tokens or 1
        if room < least:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {max_model_len} tokens. However, you"
                f" requested {prompt.tokens + least} tokens ({prompt.tokens} in the prompt, {least}"
                " in the completion). Please reduce the length of the prompt or completion."
            )
        return self.max_tokens or max(0, min(default_tokens - prompt.said_tokens, room))

    def _finish_reason(self, tokens: int, default_tokens: int) -> Literal["stop", "length"]:
        return "stop" if self.max_tokens is None and tokens >= default_tokens else "length"


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
    def text(self) -> str:
        """What it says."""
        content = self.content or ""
        return content if isinstance(content, str) else "".join(part.text for part in content)

    @property
    def rendered(self) -> str:
        """The message as this engine's chat template has it."""
        return f"{self.role}: {self.text}\n"


class EngineRequest(msgspec.Struct, kw_only=True):
    """What the bodies of both routes have in common."""

    model: str
    max_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    cache_salt: str | None = None

    @abstractmethod
    def prompts(self, answered_bytes: int) -> list[Prompt]:
        """The prompts to answer; the end of the only one may be the beginning of its answer.

        Raises:
            InvalidRequest: they contradict themselves.
        """

    @property
    def has_one_answer(self) -> bool:
        """Whether no prompt gets several."""
        return self.n in {None, 1}

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
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    """The last message is the beginning of the answer."""

    def prompts(self, answered_bytes: int) -> list[Prompt]:
        """The one prompt: the tools, then the conversation.

        Without `answered_bytes`, all of a last message that is to be continued is answer.
        """
        if not self.continue_final_message:
            return [self._rendered(self.messages)]
        if self.add_generation_prompt:
            raise InvalidRequest(
                "`continue_final_message` does not go with `add_generation_prompt`.",
                "continue_final_message",
            )
        return [self._continued(answered_bytes) or self._rendered(self.messages)]

    def _continued(self, answered_bytes: int) -> Prompt | None:
        if not (self.messages and self.messages[-1].role == "assistant" and self.has_one_answer):
            return None
        *before, last = self.messages
        continued = self._rendered(before).said_text(last.text)
        if continued or answered_bytes <= 0:
            return continued
        # The client's own words, which this engine would not have said, begin the message.
        given, said = _split(last.text, answered_bytes)
        message = ChatMessage("assistant", given.decode(errors="replace"))
        return self._rendered([*before, message]).said_text(said)

    def _rendered(self, messages: list[ChatMessage]) -> Prompt:
        text = "".join(message.rendered for message in messages)
        return Prompt.of_text(bytes(self.tools) + text.encode(), self.salt, CHAT_FRAME)

    @property
    def limit(self) -> int | None:
        """The newer of OpenAI's two fields, or the older."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(EngineRequest):
    """The body of `/v1/completions`."""

    prompt: str | list[str | TokenId | list[TokenId]]

    def prompts(self, answered_bytes: int) -> list[Prompt]:
        """A text, token ids, or a list of either."""
        answered_bytes = answered_bytes if self.has_one_answer else 0
        continued = _continued(self.prompt, self.salt, answered_bytes)
        return [continued] if continued else list(_prompts(self.prompt, self.salt))


class TokenizeRequest(ChatRequest, kw_only=True):
    """The body of `/tokenize`: a text, or what a chat request has."""

    model: str = ""
    messages: list[ChatMessage] = []
    prompt: str | None = None

    def prompts(self, answered_bytes: int) -> list[Prompt]:
        """The one prompt."""
        if self.prompt is None:
            return ChatRequest.prompts(self, answered_bytes)
        continued = _continued(self.prompt, self.salt, answered_bytes)
        return [continued or Prompt.of_text(self.prompt.encode(), self.salt, TEXT_FRAME)]


def parse(body: bytes, kind: type[EngineRequest], answered_bytes: int = 0) -> Task:
    """Parse and check a body; the prompt may end with `answered_bytes` of its answer.

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
        prompts=request.prompts(answered_bytes),
        n=n,
        max_tokens=limit,
        stream=bool(request.stream),
        include_usage=bool(options and options.include_usage),
    )


def _continued(
    prompt: str | list[str | int | list[int]], salt: int, answered_bytes: int
) -> Prompt | None:
    count = answered_bytes // BYTES_PER_TOKEN
    if isinstance(prompt, str) and answered_bytes > 0:
        before, said = _split(prompt, answered_bytes)
        return Prompt.of_text(before, salt, TEXT_FRAME).said_text(said)
    if not isinstance(prompt, str) and count > 0 and _all_integers(prompt):
        return Prompt.of_ids(prompt[:-count], salt).said_ids(prompt[-count:])
    return None


def _split(text: str, answered_bytes: int) -> tuple[bytes, str]:
    """What comes before the last bytes, and those."""
    content = text.encode()
    return content[:-answered_bytes], content[-answered_bytes:].decode(errors="replace")


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

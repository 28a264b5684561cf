"""Requests to a simulated engine, parsed: prompts, lengths, options."""

import itertools
import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, TypeGuard

import msgspec
import xxhash

from deployments.engines.sim.sequences import (
    BYTES_PER_TOKEN,
    CHAT_FRAME,
    TEXT_FRAME,
    OutputSequence,
    RenderedPrompt,
)
from gateway.errors.request import InvalidJSON, InvalidRequest, MissingParameter
from gateway.identity.cache_scope import CacheSalts
from gateway.request.lax_json import JsonScalar, as_bool, as_int

MAX_CHOICES = 16_384
"""vLLM's limit of `n`; routers have a lower one."""

_MISSING = re.compile("missing required field `([^`]*)`")
_WRONG_TYPE = re.compile("^Expected `([^`]*)`, got ")
_KINDS = {
    "str": "a string",
    "int": "an integer",
    "bool": "a boolean",
    "float": "a decimal",
    "array": "an array",
    "object": "an object",
}
"""What msgspec's errors ask for, as OpenAI's errors call it."""

TokenId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A parsed request for `n` completions of each prompt."""

    model: str
    prompts: list[RenderedPrompt]
    n: int
    max_tokens: int | None
    stream: bool
    include_usage: bool
    tier: str | None = None
    """`service_tier`, as asked for."""
    field: str = "messages"
    """Field that has its prompts."""

    def sequences(self, default_tokens: int, max_model_len: int) -> list[OutputSequence]:
        """The sequences to generate, `n` for each prompt in turn.

        Raises:
            ContextLengthExceeded: one of them would not fit.
        """
        lengths = [self._length(prompt, default_tokens, max_model_len) for prompt in self.prompts]
        answers = itertools.product(zip(self.prompts, lengths, strict=True), range(self.n))
        return [
            OutputSequence(
                index=index,
                prompt=prompt,
                words=prompt.next_words(choice, length),
                finish_reason=self._finish_reason(prompt.answered_tokens + length, default_tokens),
            )
            for index, ((prompt, length), choice) in enumerate(answers)
        ]

    def for_adapter(self, adapter: str) -> "ParsedRequest":
        """This request for an adapter, which shares no block of the KV cache with others."""
        salt = xxhash.xxh3_64_intdigest(adapter.encode())
        prompts = [replace(prompt, salt=prompt.salt ^ salt) for prompt in self.prompts]
        return replace(self, prompts=prompts)

    def in_scope(self, scope: str, salts: CacheSalts) -> "ParsedRequest":
        """This request in a scope, which shares no block of the KV cache with others."""
        prompts = [
            replace(prompt, salt=int(salts.salt(scope, f"{prompt.salt}")[:16], 16))
            for prompt in self.prompts
        ]
        return replace(self, prompts=prompts)

    def _length(self, prompt: RenderedPrompt, default_tokens: int, max_model_len: int) -> int:
        room = max_model_len - prompt.tokens
        least = self.max_tokens or 1
        if room < least:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {max_model_len} tokens. However, you"
                f" requested {prompt.tokens + least} tokens ({prompt.tokens} in the prompt, {least}"
                " in the completion). Please reduce the length of the prompt or completion.",
                self.field,
            )
        return self.max_tokens or max(0, min(default_tokens - prompt.answered_tokens, room))

    def _finish_reason(self, tokens: int, default_tokens: int) -> Literal["stop", "length"]:
        return "stop" if self.max_tokens is None and tokens >= default_tokens else "length"


class ContextLengthExceeded(InvalidRequest):
    """The prompt and the completion together are longer than the model's context."""

    code = "context_length_exceeded"


class InvalidType(InvalidRequest):
    """A field has another type than it should."""

    code = "invalid_type"


class TooSmall(InvalidRequest):
    """A field has an integer below its minimum."""

    code = "integer_below_min_value"


class RequestedStreamOptions(msgspec.Struct):
    """OpenAI's `stream_options`."""

    include_usage: bool | None = None


class ContentPart(msgspec.Struct):
    """Part of a message's content; parts other than text are ignored."""

    type: str
    text: str = ""


class ChatMessage(msgspec.Struct):
    """One message of a conversation."""

    role: str
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """Text of the message."""
        content = self.content or ""
        return content if isinstance(content, str) else "".join(part.text for part in content)

    @property
    def rendered(self) -> str:
        """The message as rendered by this engine's chat template."""
        return f"{self.role}: {self.text}\n"


class EngineRequest(msgspec.Struct, kw_only=True):
    """Fields that all inference routes have."""

    prompt_field: ClassVar[str]
    """Name of the field that has the prompt."""
    model: str
    max_tokens: int | None = None
    n: JsonScalar = None
    stream: JsonScalar = None
    service_tier: str | None = None
    stream_options: RequestedStreamOptions | None = None
    cache_salt: str | None = None

    @abstractmethod
    def prompts(self, answered_bytes: int) -> list[RenderedPrompt]:
        """The prompts; the last `answered_bytes` of a single one may be the start of its answer.

        Raises:
            InvalidRequest: its fields contradict each other.
        """

    @property
    def has_one_choice(self) -> bool:
        """Whether each prompt gets one completion only."""
        return self.choices == 1

    @property
    def choices(self) -> int:
        """Completions of each prompt; 0 if `n` is no number."""
        return 1 if self.n is None else as_int(self.n) or 0

    @property
    def limit(self) -> int | None:
        """Limit of a completion's tokens, if the client sets one."""
        return self.max_tokens

    @property
    def salt(self) -> int:
        """Salt of the hashes of the prompt's blocks, from `cache_salt`; 0 without one."""
        return xxhash.xxh3_64_intdigest(self.cache_salt.encode()) if self.cache_salt else 0


class ChatRequest(EngineRequest):
    """Body of `/v1/chat/completions`."""

    prompt_field = "messages"
    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    """Whether the last message is the start of the answer."""

    def prompts(self, answered_bytes: int) -> list[RenderedPrompt]:
        """The one prompt: the tools, then the conversation.

        Without `answered_bytes`, all of a last message to be continued is the start of the answer.
        """
        if not self.continue_final_message:
            return [self._rendered(self.messages)]
        if self.add_generation_prompt:
            raise InvalidRequest(
                "`continue_final_message` does not go with `add_generation_prompt`.",
                "continue_final_message",
            )
        return [self._continued(answered_bytes) or self._rendered(self.messages)]

    def _continued(self, answered_bytes: int) -> RenderedPrompt | None:
        if not (self.messages and self.messages[-1].role == "assistant" and self.has_one_choice):
            return None
        *before, last = self.messages
        continued = self._rendered(before).with_answer_text(last.text)
        if continued or answered_bytes <= 0:
            return continued
        # The message begins with the client's own text, which this engine would not generate.
        given, answered = _split(last.text, answered_bytes)
        message = ChatMessage("assistant", given.decode(errors="replace"))
        return self._rendered([*before, message]).with_answer_text(answered)

    def _rendered(self, messages: list[ChatMessage]) -> RenderedPrompt:
        text = "".join(message.rendered for message in messages)
        return RenderedPrompt.of_text(bytes(self.tools) + text.encode(), self.salt, CHAT_FRAME)

    @property
    def limit(self) -> int | None:
        """The newer of OpenAI's two fields, or the older."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(EngineRequest):
    """Body of `/v1/completions`."""

    prompt_field = "prompt"
    prompt: str | list[str | TokenId | list[TokenId]]

    def prompts(self, answered_bytes: int) -> list[RenderedPrompt]:
        """A text, token ids, or a list of either."""
        answered_bytes = answered_bytes if self.has_one_choice else 0
        continued = _continued(self.prompt, self.salt, answered_bytes)
        return [continued] if continued else list(_prompts(self.prompt, self.salt))


class ResponseInputItem(msgspec.Struct):
    """An item of `input`: a message, or a call of a tool or its result, as text."""

    role: str = "user"
    content: str | list[ContentPart] | None = None
    name: str = ""
    arguments: str = ""
    output: str | list[ContentPart] | None = None

    @property
    def message(self) -> ChatMessage:
        """The item as a message of a conversation."""
        text = ChatMessage("", self.content).text + ChatMessage("", self.output).text
        return ChatMessage(self.role, text + self.name + self.arguments)


class ResponseInput(EngineRequest, kw_only=True):
    """Body of `/v1/responses/input_tokens`."""

    prompt_field = "input"
    input: str | list[ResponseInputItem]
    instructions: str | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")

    def prompts(self, answered_bytes: int) -> list[RenderedPrompt]:
        """The one prompt: what a chat of the same words has."""
        given = self.input
        items = [ResponseInputItem(content=given)] if isinstance(given, str) else given
        messages = [ChatMessage("system", self.instructions)] if self.instructions else []
        messages += [item.message for item in items]
        chat = ChatRequest(model=self.model, messages=messages, tools=self.tools)
        return chat.prompts(answered_bytes)


class TokenizeRequest(ChatRequest, kw_only=True):
    """Body of `/tokenize`: a text, or what a chat request has."""

    model: str = ""
    messages: list[ChatMessage] = []
    prompt: str | None = None

    def prompts(self, answered_bytes: int) -> list[RenderedPrompt]:
        """The one prompt."""
        if self.prompt is None:
            return ChatRequest.prompts(self, answered_bytes)
        continued = _continued(self.prompt, self.salt, answered_bytes)
        return [continued or RenderedPrompt.of_text(self.prompt.encode(), self.salt, TEXT_FRAME)]


def parse_request(body: bytes, kind: type[EngineRequest], answered_bytes: int = 0) -> ParsedRequest:
    """Parse and validate a body, whose prompt may end with `answered_bytes` of its answer.

    Raises:
        InvalidJSON: it is not JSON.
        InvalidRequest: a field is missing, of the wrong type or out of range.
    """
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidJSON("We could not parse the JSON body of your request.") from None
    options = request.stream_options
    n, limit = request.choices, request.limit
    if not 1 <= n <= MAX_CHOICES:
        refusal = TooSmall if n < 1 else InvalidRequest
        raise refusal(f"`n` must be between 1 and {MAX_CHOICES}, not {request.n}.", "n")
    if limit is not None and limit < 1:
        raise TooSmall(f"`max_tokens` must be at least 1, not {limit}.", "max_tokens")
    return ParsedRequest(
        model=request.model,
        prompts=request.prompts(answered_bytes),
        n=n,
        max_tokens=limit,
        stream=as_bool(request.stream),
        include_usage=bool(options and options.include_usage),
        tier=request.service_tier,
        field=request.prompt_field,
    )


def _invalid(message: str) -> InvalidRequest:
    """The error for msgspec's message about a body, with the field that it names."""
    words, _, place = message.partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    if missing := _MISSING.search(words):
        name = f"{place}.{missing[1]}" if place else missing[1]
        return MissingParameter(f"Missing required parameter: '{name}'.", name)
    if not place:
        return InvalidRequest("The request is not a JSON object.")
    if found := _WRONG_TYPE.search(words):
        expected = " or ".join(_KINDS.get(kind, kind) for kind in found[1].split(" | "))
        return InvalidType(f"Invalid type for '{place}': expected {expected}.", place)
    return InvalidRequest(f"Invalid value for '{place}'.", place)


def _continued(
    prompt: str | list[str | int | list[int]], salt: int, answered_bytes: int
) -> RenderedPrompt | None:
    count = answered_bytes // BYTES_PER_TOKEN
    if isinstance(prompt, str) and answered_bytes > 0:
        before, answered = _split(prompt, answered_bytes)
        return RenderedPrompt.of_text(before, salt, TEXT_FRAME).with_answer_text(answered)
    if not isinstance(prompt, str) and count > 0 and _all_integers(prompt):
        return RenderedPrompt.of_ids(prompt[:-count], salt).with_answer_ids(prompt[-count:])
    return None


def _split(text: str, answered_bytes: int) -> tuple[bytes, str]:
    """The text before its last `answered_bytes`, and those."""
    content = text.encode()
    return content[:-answered_bytes], content[-answered_bytes:].decode(errors="replace")


def _prompts(prompt: str | list[str | int | list[int]], salt: int) -> Iterator[RenderedPrompt]:
    if isinstance(prompt, str):
        yield RenderedPrompt.of_text(prompt.encode(), salt, TEXT_FRAME)
    elif not prompt:
        raise InvalidRequest("`prompt` must not be empty.", "prompt")
    elif _all_integers(prompt):
        yield RenderedPrompt.of_ids(prompt, salt)
    else:
        for item in prompt:
            match item:
                case str():
                    yield RenderedPrompt.of_text(item.encode(), salt, TEXT_FRAME)
                case list():
                    yield RenderedPrompt.of_ids(item, salt)
                case _:
                    raise InvalidRequest("`prompt` must not mix texts and token ids.", "prompt")


def _all_integers(prompt: list[str | int | list[int]]) -> TypeGuard[list[int]]:
    return all(isinstance(item, int) for item in prompt)

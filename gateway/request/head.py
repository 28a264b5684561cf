"""The head of an inference request, read from the raw body in one pass; the body stays bytes."""

import re
from collections.abc import Mapping
from operator import attrgetter

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import InvalidJSON, InvalidRequest, MissingParameter

FORM_WINDOW = 1 << 16
"""Bytes of a form that are parsed at a time: fields commonly stand before the file."""
FIELD_LIMIT = 4096
"""Bytes of a form's field that are kept."""
PARTS_LIMIT = 256
"""Parts of a form that are parsed; megabytes of tiny ones would delay all other requests."""
LIMIT_DIGITS = 10
"""More digits than any number of tokens has."""
USER_LIMIT = 256
"""Bytes of a user's name that count."""
ANSWERS_DIGITS = 3
"""Digits of a number of answers; engines refuse more."""
SEQUENCES_LIMIT = 10_000
"""Sequences of a request that are counted; more than any engine runs."""
_PROMPTS = re.compile(rb'\[\s*["[]')
_LISTS = re.compile(rb"\[\s*\[")

ABSENT = msgspec.Raw()
"""Value of a field that the request does not have."""
SEED_FIELDS = (
    *("cache_salt", "documents", "chat_template", "chat_template_kwargs", "reasoning_effort"),
    *("reasoning", "thinking", "add_special_tokens", "truncate_prompt_tokens"),
    *("mm_processor_kwargs", "previous_response_id"),
)
"""Fields that change how a prompt begins."""
OPTION_FIELDS = (
    *("output_config", "truncation", "truncation_side", "media_io_kwargs", "suffix"),
    *("prompt_embeds", "kv_transfer_params", "continue_final_message", "add_generation_prompt"),
    "tool_choice",
)
"""Fields of the same kind that are rarely sent, and some that change other parts of a prompt."""
_NO_SEEDS = (ABSENT,) * len(SEED_FIELDS)
_NO_OPTIONS = (ABSENT,) * len(OPTION_FIELDS)


class PromptParts(msgspec.Struct, frozen=True):
    """Raw JSON of the fields that make up a prompt; empty where the request has none."""

    messages: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    seeds: tuple[msgspec.Raw, ...] = ()
    """Fields that change how the prompt begins once the engine has rendered it, `SEED_FIELDS`;
    empty where there are none."""
    options: tuple[tuple[str, msgspec.Raw], ...] = ()
    """Those of `OPTION_FIELDS` that the request has, by name."""


class RequestHead(msgspec.Struct, frozen=True):
    """Fields of a request's body that the gateway itself needs."""

    model: str
    prompt: PromptParts = PromptParts()
    max_tokens: int | None = None
    """Limit of an answer in tokens, if the client sets one."""
    is_stream: bool = False
    """The answer is to come as a stream of events."""
    sequences: int = 1
    """Sequences that an engine runs for it: its answers, for each of its prompts."""
    prompts_bytes: int = 0
    """Bytes of the JSON of all its prompts; 0 where it has no list of them."""
    users: tuple[msgspec.Raw, ...] = ()
    """Fields that may name the user it is for, the first choice first."""

    @property
    def user(self) -> bytes:
        """The user that its client names; empty where it names none. Parsed at every call."""
        return next(filter(None, map(_user, self.users)), b"")


class _Metadata(msgspec.Struct):
    """Field in which Anthropic's API has the user."""

    user_id: str | None = None


class _RawHead(msgspec.Struct):
    """All fields but the model as they were written: the engine rejects those of a wrong type."""

    model: str | None = None
    messages: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    cache_salt: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    documents: msgspec.Raw = ABSENT
    chat_template: msgspec.Raw = ABSENT
    chat_template_kwargs: msgspec.Raw = ABSENT
    reasoning_effort: msgspec.Raw = ABSENT
    reasoning: msgspec.Raw = ABSENT
    thinking: msgspec.Raw = ABSENT
    previous_response_id: msgspec.Raw = ABSENT
    output_config: msgspec.Raw = ABSENT
    truncation: msgspec.Raw = ABSENT
    truncation_side: msgspec.Raw = ABSENT
    media_io_kwargs: msgspec.Raw = ABSENT
    suffix: msgspec.Raw = ABSENT
    prompt_embeds: msgspec.Raw = ABSENT
    kv_transfer_params: msgspec.Raw = ABSENT
    continue_final_message: msgspec.Raw = ABSENT
    add_generation_prompt: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    add_special_tokens: msgspec.Raw = ABSENT
    truncate_prompt_tokens: msgspec.Raw = ABSENT
    mm_processor_kwargs: msgspec.Raw = ABSENT
    max_tokens: msgspec.Raw = ABSENT
    max_completion_tokens: msgspec.Raw = ABSENT
    max_output_tokens: msgspec.Raw = ABSENT
    stream: msgspec.Raw = ABSENT
    user: msgspec.Raw = ABSENT
    safety_identifier: msgspec.Raw = ABSENT
    prompt_cache_key: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT
    n: msgspec.Raw = ABSENT
    best_of: msgspec.Raw = ABSENT

    @property
    def parts(self) -> PromptParts:
        seeds = _seeds_of(self)
        options = _options_of(self)
        return PromptParts(
            *(self.messages, self.system, self.prompt, self.input, self.instructions, self.tools),
            () if seeds == _NO_SEEDS else seeds,
            () if options == _NO_OPTIONS else _named(options),
        )

    @property
    def limit(self) -> int | None:
        for limit in (self.max_completion_tokens, self.max_tokens, self.max_output_tokens):
            text = bytes(limit)
            if text.isdigit() and len(text) < LIMIT_DIGITS:
                return int(text)
        return None

    @property
    def users(self) -> tuple[msgspec.Raw, ...]:
        if self.user is self.safety_identifier is self.prompt_cache_key is self.metadata is ABSENT:
            return ()
        return (self.user, self.safety_identifier, self.prompt_cache_key, self.metadata)

    @property
    def answers(self) -> int:
        texts = [bytes(raw) for raw in (self.n, self.best_of) if raw is not ABSENT]
        counts = [int(text) for text in texts if text.isdigit() and len(text) <= ANSWERS_DIGITS]
        return max(1, *counts) if counts else 1

    @property
    def prompts(self) -> bytes:
        """The list of its prompts, as JSON; empty where it has none."""
        for raw in (self.prompt, self.input):
            if raw is not ABSENT and _PROMPTS.match(text := bytes(raw)):
                return text
        return b""


_seeds_of = attrgetter(*SEED_FIELDS)
_options_of = attrgetter(*OPTION_FIELDS)
_decoder = msgspec.json.Decoder(_RawHead)
_user_decoder = msgspec.json.Decoder(str | _Metadata | None)


def parse_json(body: bytes) -> RequestHead:
    """The head of a JSON body; O(length), nothing but the head is kept.

    Raises:
        InvalidJSON: the body is not one JSON object.
        MissingParameter: it names no model.
        InvalidRequest: its model is not a string.
    """
    try:
        head = _decoder.decode(body)
    except msgspec.ValidationError as error:
        if "$.model" in str(error):
            raise InvalidRequest("`model` must be a string.", "model") from None
        raise InvalidJSON(f"The request body must be a JSON object: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJSON(
            f"We could not parse the JSON body of your request: {_reason(error)}."
        ) from None
    except RecursionError:
        raise InvalidJSON("The JSON body of your request is nested too deeply.") from None
    is_stream = bytes(head.stream) == b"true"
    prompts = head.prompts
    sequences = head.answers * (_count(prompts) if prompts else 1)
    return RequestHead(
        *(_checked_model(head.model), head.parts, head.limit, is_stream),
        *(min(sequences, SEQUENCES_LIMIT), len(prompts), head.users),
    )


def parse_form(body: bytes, content_type: bytes) -> RequestHead:
    """The head of a `multipart/form-data` body, which is searched up to its `model` field.

    Raises:
        InvalidRequest: the body is no such form.
        MissingParameter: it names no model.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("The request body must be multipart/form-data with a boundary.")
    search = _ModelSearch()
    view = memoryview(body)
    try:
        parser = MultipartParser(boundary, search.callbacks)  # type: ignore[arg-type]
        for start in range(0, len(body), FORM_WINDOW):
            parser.write(bytes(view[start : start + FORM_WINDOW]))
            if search.model is not None or search.parts > PARTS_LIMIT:
                break
    except FormParserError:
        raise InvalidRequest("The request body is not valid multipart/form-data.") from None
    if search.model is None:
        return RequestHead(_checked_model(None))
    return RequestHead(_checked_model(search.model.decode(errors="replace")))


def _named(options: tuple[msgspec.Raw, ...]) -> tuple[tuple[str, msgspec.Raw], ...]:
    pairs = zip(OPTION_FIELDS, options, strict=True)
    return tuple((name, raw) for name, raw in pairs if raw is not ABSENT)


def _user(raw: msgspec.Raw) -> bytes:
    """The user that a field names; empty where it names none."""
    if raw is ABSENT:
        return b""
    try:
        value = _user_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return b""
    name = value.user_id if isinstance(value, _Metadata) else value
    return (name or "").encode()[:USER_LIMIT]


def _count(prompts: bytes) -> int:
    """How many texts, or lists of token ids, a list has; nothing is parsed for it."""
    if _LISTS.match(prompts):
        return prompts.count(b"[") - 1
    text = prompts.replace(rb"\\", b"")
    return (text.count(b'"') - text.count(rb"\"")) // 2


def _checked_model(model: str | None) -> str:
    if not model:
        raise MissingParameter("you must provide a model parameter", "model")
    return model


def _reason(error: msgspec.DecodeError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not valid UTF-8"
    return str(error).removeprefix("JSON is malformed: ")


class _ModelSearch:
    """Callbacks of the form parser that keep the value of the field `model` and nothing else."""

    def __init__(self) -> None:
        self.model: bytes | None = None
        self.parts = 0
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._field = bytearray()
        self._is_wanted = False

    @property
    def callbacks(self) -> Mapping[str, object]:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._extend_header,
            "on_header_value": self._extend_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._extend_field,
            "on_part_end": self._end_part,
        }

    def _begin_part(self) -> None:
        self.parts += 1
        self._disposition = b""
        self._field.clear()
        self._is_wanted = False

    def _extend_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _extend_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._is_wanted = options.get(b"name") == b"model" and b"filename" not in options

    def _extend_field(self, data: bytes, start: int, end: int) -> None:
        if self._is_wanted and len(self._field) < FIELD_LIMIT:
            self._field += data[start:end]

    def _end_part(self) -> None:
        if self._is_wanted and self.model is None:
            self.model = bytes(self._field)

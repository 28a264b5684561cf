"""The head of an inference request, read from the raw body in one pass; the body stays bytes."""

from collections.abc import Mapping, Sequence
from operator import attrgetter

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors.request import InvalidJSON, InvalidRequest, MissingParameter
from gateway.request.encoding import check_encoding, check_surrogates
from gateway.request.lax_json import is_true, read_bool, read_int
from gateway.request.raw_fields import ABSENT, RawFields
from gateway.request.sequences import answers

FORM_WINDOW = 1 << 16
"""Bytes of a form that are parsed at a time: fields commonly stand before the file."""
FORM_FIELDS = frozenset({b"model", b"stream"})
FIELD_LIMIT = 4096
"""Bytes of a form's field that are kept."""
PARTS_LIMIT = 256
"""Parts of a form that are parsed; megabytes of tiny ones would delay all other requests."""
MAX_TOKENS = 10**9
"""More tokens than any answer has: no limit at all."""
LARGE_BODY = 1 << 20
"""Bytes of a body whose fields are counted before it is parsed."""
MAX_FIELDS = 1_000_000
"""Fields of a JSON body, nested ones included: its colons, which also stand in texts."""
USER_LIMIT = 256
"""Bytes of a user's name that count."""
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
TOKEN_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Fields with the limit of an answer in tokens, on one route or another."""
_NULL = msgspec.Raw(b"null")
_NO_USERS = (ABSENT,) * 4
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
    fields: RawFields = RawFields()
    """All fields of its JSON that the gateway reads, as they were written."""
    size: int = 0
    """Bytes of its JSON."""
    prompts: int = 1
    """Prompts that it has: texts to complete or embed, documents to rank."""

    @property
    def user(self) -> bytes:
        """The user that its client names; empty where it names none. Parsed at every call."""
        return next(filter(None, map(_user, self.users)), b"")


class _Metadata(msgspec.Struct):
    """Field in which Anthropic's API has the user."""

    user_id: str | None = None


_seeds_of = attrgetter(*SEED_FIELDS)
_options_of = attrgetter(*OPTION_FIELDS)
_decoder = msgspec.json.Decoder(RawFields)
_user_decoder = msgspec.json.Decoder(str | _Metadata | None)


def parse_json(body: bytes, token_limits: Sequence[str] = TOKEN_LIMITS) -> RequestHead:
    """The head of a JSON body with one prompt; O(length), nothing is copied.

    `token_limits`: fields in which the route takes the limit of an answer, the first choice first.

    Raises:
        InvalidJSON: the body is not one JSON object.
        MissingParameter: it names no model.
        InvalidRequest: its model is not a string, or it has too many fields.
    """
    if len(body) > LARGE_BODY and (fields := body.count(b":")) > MAX_FIELDS:
        raise InvalidRequest(
            f"The request body has {fields:,} fields or colons; at most {MAX_FIELDS:,} are allowed."
        )
    try:
        head = _decoder.decode(body)
    except msgspec.ValidationError as error:
        if "$.model" in str(error):
            raise InvalidRequest("`model` must be a string.", "model") from None
        raise InvalidJSON(f"The request body must be a JSON object: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        check_surrogates(body)  # the parser rejects some of them in words of its own
        raise InvalidJSON(
            f"We could not parse the JSON body of your request: {_reason(error)}."
        ) from None
    except RecursionError:
        raise InvalidJSON("The JSON body of your request is nested too deeply.") from None
    check_encoding(body)
    return RequestHead(
        *(_checked_model(head.model), _parts(head), _max_tokens(head, token_limits)),
        is_stream=head.stream is not ABSENT and read_bool(head.stream),
        sequences=answers(head),
        users=_users(head),
        fields=head,
        size=len(body),
    )


def parse_form(body: bytes, content_type: bytes) -> RequestHead:
    """The head of a `multipart/form-data` body, searched up to the last field that matters.

    Raises:
        InvalidRequest: the body is no such form.
        MissingParameter: it names no model.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("The request body must be multipart/form-data with a boundary.")
    search = _FieldSearch()
    view = memoryview(body)
    wanted = 2 if b"stream" in body else 1
    try:
        parser = MultipartParser(boundary, search.callbacks)  # type: ignore[arg-type]
        for start in range(0, len(body), FORM_WINDOW):
            parser.write(bytes(view[start : start + FORM_WINDOW]))
            if len(search.found) == wanted or search.parts > PARTS_LIMIT:
                break
    except FormParserError:
        raise InvalidRequest("The request body is not valid multipart/form-data.") from None
    model = search.found.get(b"model", b"").decode(errors="replace")
    return RequestHead(_checked_model(model), is_stream=is_true(search.found.get(b"stream", b"")))


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


def _parts(fields: RawFields) -> PromptParts:
    seeds, options = _seeds_of(fields), _options_of(fields)
    return PromptParts(
        *(fields.messages, fields.system, fields.prompt, fields.input, fields.instructions),
        fields.tools,
        () if seeds == _NO_SEEDS else seeds,
        () if options == _NO_OPTIONS else _named(options),
    )


def _max_tokens(fields: RawFields, names: Sequence[str]) -> int | None:
    for name in names:
        raw: msgspec.Raw = getattr(fields, name)
        if raw is not ABSENT and raw != _NULL:  # the engine goes by it, and by no other
            limit = read_int(raw)
            return limit if limit is not None and 0 <= limit < MAX_TOKENS else None
    return None


def _users(fields: RawFields) -> tuple[msgspec.Raw, ...]:
    users = (fields.user, fields.safety_identifier, fields.prompt_cache_key, fields.metadata)
    return () if users == _NO_USERS else users


def _checked_model(model: str | None) -> str:
    if not model:
        raise MissingParameter("you must provide a model parameter", "model")
    return model


def _reason(error: msgspec.DecodeError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not valid UTF-8"
    return str(error).removeprefix("JSON is malformed: ")


class _FieldSearch:
    """Callbacks of the form parser that keep the fields `model` and `stream`, and nothing else."""

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}
        """The first value of each field."""
        self.parts = 0
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._field = bytearray()
        self._name = b""
        """The field that is read now, if it is wanted."""

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
        self._name = b""

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
        name = options.get(b"name", b"")
        if name in FORM_FIELDS and b"filename" not in options:
            self._name = name

    def _extend_field(self, data: bytes, start: int, end: int) -> None:
        if self._name and len(self._field) < FIELD_LIMIT:
            self._field += data[start:end]

    def _end_part(self) -> None:
        if self._name:
            self.found.setdefault(self._name, bytes(self._field))

"""The head of a request: read from any body, with errors that name what is wrong."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import InvalidJSON, InvalidRequest, MissingParameter
from gateway.request.head import (
    FORM_WINDOW,
    MAX_FIELDS,
    USER_LIMIT,
    PromptParts,
    RequestHead,
    parse_form,
    parse_json,
)
from gateway.request.routes import parse_head

FORM = b"multipart/form-data; boundary=XX"
SEED_NAMES = [
    *(b"cache_salt", b"documents", b"chat_template", b"chat_template_kwargs"),
    *(b"reasoning_effort", b"reasoning", b"thinking", b"add_special_tokens"),
    *(b"truncate_prompt_tokens", b"mm_processor_kwargs", b"previous_response_id"),
]
SEEDS = len(SEED_NAMES)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def part(value: bytes, disposition: bytes) -> bytes:
    """One part of a form."""
    return b"--XX\r\ncontent-disposition: form-data; %b\r\n\r\n%b\r\n" % (disposition, value)


MODEL_PART = part(b"whisper", b'name="model"')
END = b"--XX--\r\n"


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"m"}', "m"),
        (b'{"stream":true,"model":"a/b"}', "a/b"),
        (b'{"stream":1e999999,"model":"m"}', "m"),
        (b'{"n":null,"model":"m","t":1e999999}', "m"),
        (b' {"model":"\\u00e9\xc3\xa9"}\n', "éé"),
        (b'{"model":"a","model":"b"}', "b"),
    ],
)
def test_head_is_read_from_json(body: bytes, model: str) -> None:
    """The model is found among other fields, and only it is judged."""
    assert parse_json(body).model == model


@pytest.mark.parametrize(
    ("value", "is_stream"),
    [
        *((value, True) for value in ("true", "1", "1.0", '"true"', '"True"', '"yes"', '"Y"')),
        *((value, True) for value in ('"on"', '"ON"', '"t"', '"1"', '"\\u0079es"')),
        *((value, False) for value in ("false", "null", "0", '"no"', '"off"', '"f"', '"0"')),
        *((value, False) for value in ("2", '" true"', '"yes\\n"', '""', "[]", "{}", "1.5")),
    ],
)
def test_a_stream_is_asked_for_as_engines_read_it(value: str, is_stream: bool) -> None:
    """Engines take many values for true; what they reject asks for no stream."""
    assert parse_json(b'{"model":"m","stream":%b}' % value.encode()).is_stream is is_stream


@pytest.mark.parametrize(
    ("value", "is_stream"), [(b"true", True), (b"YES", True), (b"1", True), (b"no", False)]
)
def test_a_form_asks_for_a_stream(value: bytes, is_stream: bool) -> None:
    """The field may stand before the model, or behind the file."""
    file = part(b"x" * 3 * FORM_WINDOW, b'name="file"; filename="a"')
    stream = part(value, b'name="stream"')
    for body in (stream + MODEL_PART + file, MODEL_PART + file + stream):
        assert parse_form(body + END, FORM).is_stream is is_stream


@pytest.mark.parametrize("name", ["messages", "system", "prompt", "input", "instructions"])
@pytest.mark.parametrize("value", [b'"x"', b"[1,\t2]", b'{"a": 1e999999}', b"null", b"7"])
def test_prompt_is_kept_as_it_was_written(name: str, value: bytes) -> None:
    """A prompt of any kind of value is kept as bytes and not judged."""
    parts = parse_json(b'{"model":"m","%b":%b}' % (name.encode(), value)).prompt
    assert bytes(getattr(parts, name)) == value
    assert parts == replace(PromptParts(), **{name: Raw(value)})


def test_all_that_changes_a_prompts_beginning_is_kept_apart() -> None:
    """Each of these fields has its own place, which is empty if the field is absent."""
    found = []
    for name in SEED_NAMES:
        seeds = parse_json(b'{"model":"m","%b":5,"seed":6}' % name).prompt.seeds
        assert sorted(map(bytes, seeds)) == [b""] * (SEEDS - 1) + [b"5"]
        found.append(seeds.index(Raw(b"5")))
    assert sorted(found) == list(range(SEEDS))


def test_rare_fields_are_kept_by_name() -> None:
    """Only those that a request has; most requests have none."""
    parts = parse_json(b'{"model":"m","truncation":"auto","suffix":null}').prompt
    assert parts.options == (("truncation", Raw(b'"auto"')), ("suffix", Raw(b"null")))
    assert parse_json(b'{"model":"m"}').prompt.options == ()


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        (b'"max_tokens":100', 100),
        (b'"max_completion_tokens":100', 100),
        (b'"max_output_tokens":100', 100),
        (b'"max_tokens":5,"max_completion_tokens":100', 100),
        (b'"max_tokens":100,"max_completion_tokens":null', 100),
        (b'"max_tokens":0', 0),
        (b'"max_tokens":null', None),
        (b'"max_tokens":-1', None),
        (b'"max_tokens":"100"', 100),
        (b'"max_tokens":100.0', 100),
        (b'"max_tokens":"lots"', None),
        (b'"max_tokens":1.5', None),
        (b'"max_tokens":1e999999', None),
        (b'"max_tokens":99999999999999999999', None),
        (b'"max_tokens":1,"max_completion_tokens":99999999999999999999', None),
    ],
)
def test_limit_of_an_answer_is_read_where_it_is_a_number(fields: bytes, limit: int | None) -> None:
    """Each API has its own name for it; the engine reports a wrong value."""
    assert parse_json(b'{"model":"m",%b}' % fields).max_tokens == limit


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        (b'"user":"ann"', "ann"),
        (b'"safety_identifier":"ann"', "ann"),
        (b'"prompt_cache_key":"ann"', "ann"),
        (b'"metadata":{"user_id":"ann","more":[1]}', "ann"),
        (b'"prompt_cache_key":"bob","user":"ann"', "ann"),
        (b'"metadata":{"user_id":"bob"},"safety_identifier":"ann"', "ann"),
        # equal names are equal, however they are written
        (b'"user": "\\u0061n\\u006e"', "ann"),
        (b'"user":"\\u00e9\\/"', "é/"),
        # nobody
        (b'"temperature":0', ""),
        (b'"user":null', ""),
        (b'"user":""', ""),
        (b'"user":7', ""),
        (b'"user":{"user_id":null}', ""),
        (b'"metadata":null', ""),
        (b'"metadata":[]', ""),
        (b'"metadata":{"user_id":7}', ""),
        (b'"metadata":{"kind":"x"}', ""),
        (b'"user":null,"safety_identifier":"","prompt_cache_key":"ann"', "ann"),
    ],
)
def test_the_user_is_read_from_the_first_field_that_names_one(fields: bytes, user: str) -> None:
    """Fields without a name are skipped."""
    assert parse_json(b'{"model":"m",%b}' % fields).user == user.encode()


def test_a_long_user_name_is_truncated() -> None:
    """Only its first bytes count."""
    head = parse_json(b'{"model":"m","user":"%b"}' % (b"x" * 2 * USER_LIMIT))
    assert head.user == b"x" * USER_LIMIT


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"", InvalidJSON, "truncated"),
        (b"{", InvalidJSON, "truncated"),
        (b'{"a":NaN}', InvalidJSON, r"invalid character \(byte 5\)"),
        (b'{"model":"m"}x', InvalidJSON, r"trailing characters \(byte 14\)"),
        (b"[]", InvalidJSON, "got `array`"),
        (b"null", InvalidJSON, "got `null`"),
        (b"\xff\xfe{\x00}\x00", InvalidJSON, "byte 0"),
        (b'{"model":"\xff"}', InvalidJSON, "not valid UTF-8"),
        (b'{"model":"\\ud800"}', InvalidJSON, "could not parse"),
        (b'{"model":"m","x":{"y":"\xff"}}', InvalidJSON, "not valid UTF-8"),
        (b'{"model":"m","prompt":"a\\uD83d b"}', InvalidJSON, r"\\uD83d \(byte 24\)"),
        (b'{"a":Infinity,"model":"m"}', InvalidJSON, "invalid character"),
        (b'{"a":' + b"[" * 200_000, InvalidJSON, "nested too deeply"),
        (b'{"stream":' + b"[" * 200_000, InvalidJSON, "nested too deeply"),
        (b"{}", MissingParameter, "^you must provide a model parameter$"),
        (b'{"model":null}', MissingParameter, "model parameter"),
        (b'{"model":""}', MissingParameter, "model parameter"),
        (b'{"model":7}', InvalidRequest, "`model` must be a string"),
        (b'{"model":["m"]}', InvalidRequest, "`model` must be a string"),
        (b'{"model":1e999999}', InvalidRequest, "`model` must be a string"),
    ],
)
def test_bad_json_is_named(body: bytes, error: type[GatewayError], words: str) -> None:
    """Each kind of bad body has its own error."""
    with pytest.raises(error, match=words) as raised:
        parse_json(body)
    assert type(raised.value) is error
    assert raised.value.param == (None if error is InvalidJSON else "model")


@pytest.mark.parametrize("field", [b'"n":1', b'"":1', b'"model" :"m"', b'"metadata":{"a":{}}'])
def test_a_body_of_nothing_but_fields_is_not_parsed(field: bytes) -> None:
    """Each field takes time, known or not; ten thousand are parsed."""
    assert parse_json(b'{"model":"m",' + b",".join([field] * 10_000) + b"}").model == "m"
    with pytest.raises(InvalidRequest, match="at most 1,000,000"):
        parse_json(b'{"model":"m",' + b",".join([field] * (MAX_FIELDS + 1)) + b"}")


@given(
    st.dictionaries(st.text() | st.sampled_from(["prompt", "tools"]), JSON_VALUES, max_size=5),
    st.text(min_size=1),
    st.integers(0, 10**6),
)
def test_any_object_gives_its_model(fields: dict[str, object], model: str, limit: int) -> None:
    """The model and the limit are found in an object with any other fields."""
    body = json.dumps({**fields, "model": model, "max_tokens": limit}, ensure_ascii=False)
    head = parse_json(body.encode())
    assert (head.model, head.max_tokens) == (model, limit)


@given(st.binary(max_size=60) | st.builds(lambda v: json.dumps(v).encode(), JSON_VALUES))
def test_any_bytes_are_a_head_or_a_client_error(body: bytes) -> None:
    """No body whatever gives anything but a head or a 400."""
    with contextlib.suppress(InvalidRequest):
        assert parse_json(body).model


@pytest.mark.parametrize(
    "body",
    [
        MODEL_PART + part(b"RIFF", b'name="file"; filename="a.wav"') + END,
        part(b"RIFF", b'name="file"; filename="a.wav"') + MODEL_PART + END,
        part(b"x" * 3 * FORM_WINDOW, b'name="file"; filename="a"') + MODEL_PART + END,
        part(b"not me", b'name="model"; filename="model"') + MODEL_PART + END,
        MODEL_PART + part(b"other", b'name="model"') + END,
        part(b"x" * (FORM_WINDOW - 150), b'name="file"; filename="a"') + MODEL_PART + END,
        MODEL_PART.replace(b"content-disposition", b"Content-Disposition") + END,
        b"--XX\r\ncontent-type: text/plain\r\ncontent-disposition: form-data; name=model\r\n\r\n"
        b"whisper\r\n" + END,
    ],
)
def test_head_is_read_from_a_form(body: bytes) -> None:
    """The model field is found before, behind and far behind a file, and only a field counts."""
    assert parse_form(body, FORM) == RequestHead("whisper")


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (part(b"RIFF", b'name="file"') + END, FORM, MissingParameter),
        (part(b"", b'name="model"') + END, FORM, MissingParameter),
        (b"", FORM, MissingParameter),
        (part(b"", b'name="x"') * 10_000 + MODEL_PART + END, FORM, MissingParameter),
        (b"no form at all", FORM, InvalidRequest),
        (MODEL_PART, b"multipart/form-data", InvalidRequest),
        (MODEL_PART, b"multipart/form-data; boundary=" + b"y" * 500, InvalidRequest),
        (b'{"model":"m"}', b"application/json", InvalidRequest),
        (MODEL_PART, b"", InvalidRequest),
    ],
)
def test_bad_form_is_named(body: bytes, content_type: bytes, error: type[GatewayError]) -> None:
    """A form without a model and a body that is no form have different errors."""
    with pytest.raises(error) as raised:
        parse_form(body, content_type)
    assert type(raised.value) is error


@given(
    st.binary(max_size=80), st.sampled_from([b"", MODEL_PART, b"--XX\r\n"]), st.binary(max_size=9)
)
def test_any_form_bytes_are_a_head_or_a_client_error(
    body: bytes, start: bytes, boundary: bytes
) -> None:
    """No form whatever gives anything but a head or a 400."""
    for content_type in (FORM, b"multipart/form-data; boundary=" + boundary):
        with contextlib.suppress(InvalidRequest):
            assert parse_form(start + body, content_type).model


@pytest.mark.parametrize(
    ("path", "has_prompt"),
    [("/v1/embeddings", True), ("/tokenize", False), ("/v1/messages/count_tokens", False)],
)
def test_only_a_prompt_that_goes_through_the_model_is_one(path: str, has_prompt: bool) -> None:
    """Texts that are only turned into tokens need no KV cache, and no more than one slot."""
    head = parse_head(path, b'{"model":"m","prompt":["a", "b"],"user":"u"}', b"")
    parsed = (bytes(head.prompt.prompt), head.sequences, head.prompts_bytes)
    assert parsed == ((b'["a", "b"]', 2, 10) if has_prompt else (b"", 1, 0))
    assert head.user == b"u"

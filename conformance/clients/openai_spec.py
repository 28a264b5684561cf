"""29 requests to OpenAI's API, answers and events held against its own specification.

Without a file of the specification (`--spec`), OpenAI's SDK stands in for it: its types are made
from the same source, but say less about what may be null. Two things that OpenAI itself does
against its specification are let pass: `finish_reason: null` in the chunks of text completions, and
`usage: null` in the first events of a response.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from conformance.checks import Check, CheckTarget
from conformance.http_answers import Answer, ask
from conformance.requests_table import read_stream
from conformance.shapes import SHAPES, deviations

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
SCHEMAS = {
    "chat": ("CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"),
    "completion": ("CreateCompletionResponse", "CreateCompletionResponse"),
    "response": ("Response", "ResponseStreamEvent"),
    "model": ("Model", None),
    "models": ("ListModelsResponse", None),
    "files": ("ListFilesResponse", None),
    "batches": ("ListBatchesResponse", None),
    "error": ("ErrorResponse", None),
}
"""Schemas of whole answers and of events in the specification, by our name of the shape."""
HELLO = [{"role": "user", "content": "Say hello."}]
ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
KIND = {
    "type": "json_schema",
    "json_schema": {
        "name": "kind",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"kind": {"enum": ["model"]}},
            "required": ["kind"],
            "additionalProperties": False,
        },
    },
}


def whole(target: CheckTarget, answer: Answer, shape: str, status: int) -> Any:
    """The value of an answer with this status, which must be valid."""
    assert answer.status == status, f"{answer.status}: {answer.body[:300]!r}"
    if answer.is_stream:
        value, wrongs = read_stream(answer, shape)
        assert not wrongs, wrongs
        for event in value["events"]:
            _validate(target, event, shape, is_event=True)
        return value
    _validate(target, answer.json, shape, is_event=False)
    return answer.json


def _validate(target: CheckTarget, value: Any, shape: str, *, is_event: bool) -> None:
    if target.spec is None:
        if shape in SHAPES:
            type_ = SHAPES[shape].event if is_event else SHAPES[shape].answer
            found = deviations(value, type_, SHAPES[shape].extras)
            assert not found, found
        return
    name = SCHEMAS[shape][is_event]
    if shape == "response" and is_event:
        name = _event_schema(target.spec, value["type"])
    error = best_match(_validator(target.spec, str(name)).iter_errors(_let_pass(value, shape)))
    assert error is None, f"{error.json_path}: {error.message[:200]}"


def _let_pass(value: Any, shape: str) -> Any:
    """The value without what OpenAI itself does against its specification."""
    if shape == "completion":
        return {
            **value,
            "choices": [
                {**choice, "finish_reason": choice["finish_reason"] or "stop"}
                for choice in value["choices"]
            ],
        }
    inner = value.get("response") if shape == "response" else None
    if inner and inner.get("usage", 0) is None:
        return {**value, "response": {k: v for k, v in inner.items() if k != "usage"}}
    return value


@cache
def _specification(file: str) -> dict[str, Any]:
    path = Path(file)
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    document: dict[str, Any] = _with_nulls(json.loads(text))
    return document


def _with_nulls(schema: Any) -> Any:
    """The schema with `nullable` in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_with_nulls(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _with_nulls(each) for name, each in schema.items() if name != "nullable"}
    if schema.get("nullable") is True:
        return {"anyOf": [plain, {"type": "null"}]}
    return plain


@cache
def _validator(file: str, name: str) -> Draft202012Validator:
    components = _specification(file)["components"]
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components})


@cache
def _event_schema(file: str, type_: str) -> str:
    """The schema of an event of the Responses API: the union's own errors would name none."""
    schemas = _specification(file)["components"]["schemas"]
    union = schemas["ResponseStreamEvent"]
    for member in union.get("anyOf") or union.get("oneOf"):
        name = member["$ref"].rpartition("/")[2]
        if type_ in schemas[name].get("properties", {}).get("type", {}).get("enum", ()):
            return str(name)
    raise AssertionError(f"no such event: {type_}")


def posted(path: str, shape: str, status: int = 200, **fields: object) -> Check:
    """A check that posts these fields."""

    def check(target: CheckTarget) -> None:
        body = json.dumps({"model": target.model, **fields}).encode()
        whole(target, ask(target.url, "POST", path, body), shape, status)

    return check


def got(method: str, path: str, shape: str, status: int = 200) -> Check:
    """A check that sends no body."""

    def check(target: CheckTarget) -> None:
        answer = ask(target.url, method, path.replace("MODEL", target.model))
        whole(target, answer, shape, status)

    return check


def chat(**fields: object) -> Callable[[CheckTarget], object]:
    """A check of a chat completion that is answered."""
    given: Any = {"messages": HELLO, "max_tokens": 64, **fields}
    return posted(CHAT, "chat", **given)


def _checks() -> Iterator[tuple[str, Check]]:  # noqa: PLR0915 - one statement for each
    system = [{"role": "developer", "content": "You are helpful."}, *HELLO]
    parts = [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]
    named = {"type": "function", "function": {"name": "get_weather"}}
    usage = {"include_usage": True}
    long = [{"role": "user", "content": "word " * 40_000}]
    yield "chat", chat()
    yield "chat stream", chat(stream=True)
    yield "chat stream with usage", chat(stream=True, stream_options=usage)
    yield "chat stream with logprobs", chat(stream=True, logprobs=True, top_logprobs=1)
    yield "chat with a required tool", chat(messages=ASKED, tools=[TOOL], tool_choice="required")
    yield (
        "chat stream with a named tool",
        chat(messages=ASKED, tools=[TOOL], tool_choice=named, stream=True),
    )
    yield "chat with a JSON schema", chat(response_format=KIND)
    yield "chat with two answers", chat(n=2)
    yield "chat with max_completion_tokens", chat(max_completion_tokens=4)
    yield "chat with a developer message", chat(messages=system)
    yield "chat with content parts", chat(messages=parts)
    yield "completion", posted(COMPLETIONS, "completion", prompt="Hello", max_tokens=4)
    yield (
        "completion stream",
        posted(COMPLETIONS, "completion", prompt="Hello", max_tokens=4, stream=True),
    )
    yield (
        "completion with two answers",
        posted(COMPLETIONS, "completion", prompt="Hello", max_tokens=4, n=2),
    )
    yield "models", got("GET", "/v1/models", "models")
    yield "one model", got("GET", "/v1/models/MODEL", "model")
    yield "an unknown model", got("GET", "/v1/models/gpt-9", "error", 404)
    yield "an unknown route", got("GET", "/v1/nothing", "error", 404)
    yield "response", posted(RESPONSES, "response", input="Count to ten.")
    yield "response stream", posted(RESPONSES, "response", input="Count to ten.", stream=True)
    yield "a response that is not there", got("GET", f"{RESPONSES}/resp_x", "error", 404)
    yield "delete a response that is not there", got("DELETE", f"{RESPONSES}/resp_x", "error", 404)
    yield (
        "input items of a response that is not there",
        got("GET", f"{RESPONSES}/resp_x/input_items", "error", 404),
    )
    yield "no messages", posted(CHAT, "error", 400)
    yield "a temperature of 9", posted(CHAT, "error", 400, messages=HELLO, temperature=9)
    yield "too long a prompt", posted(CHAT, "error", 400, messages=long)
    yield "empty messages", posted(CHAT, "error", 400, messages=[])
    yield "batches", got("GET", "/v1/batches", "batches")
    yield "files", got("GET", "/v1/files", "files")


CHECKS: dict[str, Check] = dict(_checks())

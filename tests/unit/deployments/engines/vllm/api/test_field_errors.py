"""Pydantic's errors, and the one of them that helps."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from deployments.engines.vllm.api.field_errors import explain
from gateway.errors.gateway_error import ErrorDetail


class _Text(TypedDict):
    type: Literal["text"]
    text: str


class _Image(TypedDict):
    type: Literal["image"]
    url: str


class _User(TypedDict):
    role: Literal["user"]
    content: str | list[_Text | _Image]


class _Assistant(TypedDict):
    role: Literal["assistant"]
    content: str | None
    name: str


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")
    messages: list[_User | _Assistant] = Field(min_length=1)
    temperature: Annotated[float, Field(ge=0, le=2)] = 1
    n: Annotated[int, Field(ge=1)] = 1
    stop: Annotated[list[str], Field(max_length=4)] | str = ""
    effort: Literal["low", "high"] = "low"


HELLO = [{"role": "user", "content": "hello"}]


def explained(body: object) -> ErrorDetail:
    """What a client is told about its request."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(_Request).validate_python(body)
    errors = [{**each, "loc": ("body", *each["loc"])} for each in caught.value.errors()]
    return explain(errors, body, "/v1/chat/completions")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "messages", "missing_required_parameter"),
        ({"messages": "hello"}, "messages", "invalid_type"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": ["hello"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "nonsense"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        ({"messages": HELLO, "temperature": 9.5}, "temperature", "decimal_above_max_value"),
        ({"messages": HELLO, "temperature": "warm"}, "temperature", "invalid_type"),
        ({"messages": HELLO, "n": 0}, "n", "integer_below_min_value"),
        ({"messages": HELLO, "n": 1.5}, "n", "invalid_type"),
        ({"messages": HELLO, "stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"messages": HELLO, "effort": "bogus"}, "effort", "invalid_value"),
        ({"messages": HELLO, "extra": 1}, "extra", "unknown_parameter"),
    ],
)
def test_the_error_that_helps_is_shown(body: object, param: str, code: str) -> None:
    """It names the place as OpenAI does, and what kind of mistake it is."""
    detail = explained(body)
    assert (detail.param, detail.code) == (param, code)
    assert detail.type == "invalid_request_error"
    assert param in detail.message or code == "invalid_value"


def test_all_values_that_are_supported_are_listed() -> None:
    """Those of all forms together."""
    detail = explained({"messages": [{"role": "nobody", "content": "x"}]})
    assert detail.message == (
        "Invalid value: 'nobody'. Supported values are: 'user' and 'assistant'."
    )


def test_a_request_that_is_no_object_has_no_parameter() -> None:
    """Its error is about the whole."""
    assert explained("hello").param is None


def test_an_object_without_the_field_that_names_its_form_lacks_it() -> None:
    """Pydantic would speak of tags and discriminators."""

    class Request(BaseModel):
        part: Annotated[_Text | _Image, Field(discriminator="type")]

    body = {"part": {"text": "x"}}
    with pytest.raises(ValidationError) as caught:
        Request.model_validate(body)
    detail = explain(caught.value.errors(), body, "/v1/chat/completions")
    assert (detail.param, detail.code) == ("part.type", "missing_required_parameter")
    body = {"part": {"type": "sound"}}
    with pytest.raises(ValidationError) as caught:
        Request.model_validate(body)
    detail = explain(caught.value.errors(), body, "/v1/chat/completions")
    assert detail.message.endswith("Supported values are: 'text' and 'image'.")

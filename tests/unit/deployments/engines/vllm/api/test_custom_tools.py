"""Custom tools of chats and of responses."""

from typing import Any

import pytest

from deployments.engines.vllm.api.custom_tools import check_format, input_schema, pattern_of
from deployments.engines.vllm.api.refused_request import RefusedRequest

REGEX = {"syntax": "regex", "definition": "[a-c]+"}


def formats(grammar: Any) -> list[tuple[dict[str, Any], str | None, str]]:
    """A grammar as responses and as chats have it, and the place of it."""
    flat = {"type": "grammar", **(grammar if isinstance(grammar, dict) else {})}
    return [
        (flat, None, "format"),
        ({"type": "grammar", "grammar": grammar}, "grammar", "format.grammar"),
    ]


def test_a_regular_expression_is_the_pattern_of_the_input() -> None:
    """Wherever the API has it."""
    for form, holder, _ in formats(REGEX):
        check_format("format", form, holder)
        assert pattern_of(form, holder) == "[a-c]+"
    schema = input_schema("[a-c]+")
    assert schema["properties"]["input"]["pattern"] == "[a-c]+"
    assert schema["required"] == ["input"]


@pytest.mark.parametrize("form", [None, {"type": "text"}])
def test_any_other_text_has_no_pattern(form: dict[str, Any] | None) -> None:
    """A format that is not there is a text."""
    if form is not None:
        check_format("format", form)
    assert pattern_of(form) is None
    assert "pattern" not in input_schema(None)["properties"]["input"]


@pytest.mark.parametrize(
    ("grammar", "param", "code"),
    [
        ({**REGEX, "syntax": "lark"}, ".syntax", "unsupported_parameter"),
        ({**REGEX, "syntax": "ebnf"}, ".syntax", "invalid_value"),
        ({"syntax": "regex"}, ".definition", "missing_required_parameter"),
    ],
)
def test_other_grammars_are_refused(grammar: dict[str, str], param: str, code: str) -> None:
    """By the field that is wrong, in both forms."""
    for form, holder, place in formats(grammar):
        with pytest.raises(RefusedRequest) as refused:
            check_format("format", form, holder)
        assert (refused.value.param, refused.value.code) == (place + param, code)


@pytest.mark.parametrize(
    ("form", "holder", "param"),
    [
        ("text", None, "format"),
        ({"type": "json"}, None, "format.type"),
        ({"type": "grammar"}, "grammar", "format.grammar"),
    ],
)
def test_what_is_no_format_is_refused(form: Any, holder: str | None, param: str) -> None:
    """By its place."""
    with pytest.raises(RefusedRequest) as refused:
        check_format("format", form, holder)
    assert refused.value.param == param

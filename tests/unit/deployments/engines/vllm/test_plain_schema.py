"""Plain JSON schemas, which compile at once, and all others."""

import pytest
from pydantic import JsonValue

from deployments.engines.vllm.plain_schema import MAX_NODES, is_plain, is_plain_tag

TEXT: JsonValue = {"type": "string", "description": "any"}
OBJECT: JsonValue = {"type": "object", "properties": {"a": TEXT}}


def of(schema: JsonValue) -> JsonValue:
    """An object with such a property."""
    properties: JsonValue = {"a": TEXT, "b": schema}
    return {"type": "object", "properties": properties, "required": ["a"]}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        TEXT,
        {"type": ["string", "null"], "default": None},
        {"enum": ["a", 1, None]},
        {"const": "x"},
        {"type": "array", "items": TEXT, "minItems": 1},
        {"anyOf": [TEXT, OBJECT]},
        {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False},
    ],
)
def test_ordinary_schemas_are_plain(schema: JsonValue) -> None:
    """By themselves and as properties."""
    assert is_plain(schema)
    assert is_plain(of(schema))


@pytest.mark.parametrize(
    "schema",
    [
        True,
        "text",
        None,
        [],
        {"$ref": "#"},
        {"enum": []},
        {"enum": [{"a": 1}]},
        {"enum": list(range(MAX_NODES + 1))},
        {"type": "nonsense"},
        {"type": 5},
        {"type": []},
        {"type": [["string"]]},
        {"anyOf": []},
        {"oneOf": [TEXT]},
        {"allOf": [TEXT]},
        {"type": "string", "minLength": -1},
        {"type": "string", "maxLength": 1000},
        {"type": "string", "pattern": "a"},
        {"type": "string", "format": "uri"},
        {"type": "array", "minItems": 1000},
        {"type": "array", "items": []},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {"a": 5}},
        {"type": "object", "required": "a"},
        {"type": "object", "additionalProperties": TEXT},
        {"type": "object", "patternProperties": {"a": TEXT}},
        {"type": "object", "properties": {str(i): TEXT for i in range(MAX_NODES)}},
    ],
)
def test_schemas_that_may_fail_or_take_long_are_not_plain(schema: JsonValue) -> None:
    """By themselves and as properties."""
    assert not is_plain(schema)
    assert not is_plain(of(schema))


def test_depth_is_bounded() -> None:
    """No schema is too deep to be looked at."""
    schema = TEXT
    for _ in range(10_000):
        schema = {"type": "array", "items": schema}
    assert not is_plain(schema)


def tag_of(schema: JsonValue) -> JsonValue:
    """A structural tag, as vLLM makes one of a request's tools."""
    content: JsonValue = {
        "type": "json_schema",
        "json_schema": schema,
        "style": "json",
        "any_order": False,
        "max_whitespace_cnt": None,
        "excludes": [],
    }
    tag: JsonValue = {"type": "tag", "begin": "<tool_call>", "content": content, "end": "</t>"}
    format_: JsonValue = {"type": "triggered_tags", "triggers": ["<tool_call>"], "tags": [tag]}
    return {"type": "structural_tag", "format": format_}


def test_tools_with_plain_parameters_are_plain() -> None:
    """A request that only offers tools waits for no trial."""
    assert is_plain_tag(tag_of(OBJECT))


@pytest.mark.parametrize(
    "tag",
    [
        tag_of({"type": "string", "pattern": "a{1,1000}"}),
        tag_of({"$ref": "#"}),
        {"type": "structural_tag", "format": {"type": "regex", "pattern": "a"}},
        {"type": "structural_tag", "format": {"type": "grammar", "grammar": "root ::= root"}},
        {"type": "structural_tag", "format": {"type": "sequence", "elements": [{}] * MAX_NODES}},
        "{",
    ],
)
def test_tags_with_anything_else_are_tried_first(tag: JsonValue) -> None:
    """Patterns, references, grammars, very many parts, and what is no tag."""
    assert not is_plain_tag(tag)

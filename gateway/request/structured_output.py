"""Limits of constraints on an answer's structure, in all spellings of OpenAI, Anthropic and vLLM.

Engines compile them to a grammar before the first token. That cannot be cancelled, and for some its
time grows with the square of their length.

Cost: a count of brackets for a small schema; a larger one is parsed once, up to its limit of bytes.
"""

from collections.abc import Iterator

import msgspec

from gateway.config.limits import Limits
from gateway.errors import LimitExceeded
from gateway.request.parse_cost import parse_cost
from gateway.request.raw_fields import ABSENT, RawFields
from gateway.request.sequences import count_items

SMALL_TOOLS = 1 << 14
"""Bytes of tools that are not looked into."""
ITEM_BYTES = 2
"""Bytes of an item in a list at least, with its comma."""
_FREE_CHOICES = (ABSENT, msgspec.Raw(b'"auto"'), msgspec.Raw(b'"none"'), msgspec.Raw(b"null"))
"""Values of `tool_choice` that leave the arguments of tools free."""


class _Constraints(msgspec.Struct, frozen=True):
    """The kinds of constraints, as vLLM's `structured_outputs` has them."""

    json: msgspec.Raw = ABSENT
    structural_tag: msgspec.Raw = ABSENT
    regex: msgspec.Raw = ABSENT
    choice: msgspec.Raw = ABSENT
    grammar: msgspec.Raw = ABSENT


_constraints_decoder = msgspec.json.Decoder(_Constraints)
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)
_value_decoder = msgspec.json.Decoder()


def check_structured_output(fields: RawFields, limits: Limits) -> None:
    """Check all constraints of a request; those that engines reject anyway may pass.

    Raises:
        LimitExceeded: one of them is too large.
    """
    for name in ("response_format", "text", "output_format", "output_config"):
        _check_schema(name, getattr(fields, name), limits)
    legacy = _Constraints(
        json=fields.guided_json,
        regex=fields.guided_regex,
        choice=fields.guided_choice,
        grammar=fields.guided_grammar,
    )
    _check("guided_", legacy, limits)
    if fields.structured_outputs is not ABSENT:
        _check("structured_outputs.", _constraints(fields.structured_outputs), limits)


def check_tools(fields: RawFields, limits: Limits) -> None:
    """Check the number and the size of tools, and of schemas that their arguments must follow.

    Raises:
        LimitExceeded: there are too many, or they are too large.
    """
    raw = fields.tools
    check_bytes("tools", raw, limits.tools_bytes, "tools_bytes")
    if len(raw) <= SMALL_TOOLS:
        return
    text = bytes(raw)
    if text.count(b'"name"') > limits.tools:  # a tool has at least one
        check_count("tools", count_items(raw), limits.tools, "tools")
    is_strict = fields.tool_choice not in _FREE_CHOICES or b'"strict"' in text
    if is_strict and _may_exceed(raw, limits):
        for i, tool in enumerate(_items(raw)):
            _check_schema(f"tools[{i}]", tool, limits)


def check_bytes(field: str, raw: msgspec.Raw, allowed: int, limit: str) -> None:
    """Check the length of a field's JSON; `limit`: name of the limit.

    Raises:
        LimitExceeded: it is too long.
    """
    if len(raw) > allowed:
        raise LimitExceeded.of(field, len(raw), "bytes", allowed, limit)


def check_count(field: str, found: int, allowed: int, limit: str, unit: str = "items") -> None:
    """Check the number of what a field has; `limit`: name of the limit.

    Raises:
        LimitExceeded: there are too many.
    """
    if found > allowed:
        raise LimitExceeded.of(field, found, unit, allowed, limit)


def _items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    try:
        return _list_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _constraints(raw: msgspec.Raw) -> _Constraints:
    try:
        return _constraints_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Constraints()


def _check(prefix: str, constraints: _Constraints, limits: Limits) -> None:
    _check_schema(f"{prefix}json", constraints.json, limits)
    _check_schema(f"{prefix}structural_tag", constraints.structural_tag, limits)
    check_bytes(f"{prefix}regex", constraints.regex, limits.regex_bytes, "regex_bytes")
    check_bytes(f"{prefix}grammar", constraints.grammar, limits.grammar_bytes, "grammar_bytes")
    choice = constraints.choice
    if choice is not ABSENT:
        check_bytes(f"{prefix}choice", choice, limits.choices_bytes, "choices_bytes")
        check_count(f"{prefix}choice", count_items(choice), limits.choices, "choices")


def _check_schema(field: str, raw: msgspec.Raw, limits: Limits) -> None:
    """Check a schema, with what is around it; it may be JSON, or a text that holds JSON."""
    if raw is ABSENT:
        return
    check_bytes(field, raw, limits.schema_bytes, "schema_bytes")
    if not _may_exceed(raw, limits):
        return
    try:
        text = _text_decoder.decode(raw) if bytes(raw)[:1] == b'"' else raw
        value = _value_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return
    _Schema(field, limits).check(value)


def _may_exceed(raw: msgspec.Raw, limits: Limits) -> bool:
    """Whether a schema has to be looked into, by the bytes that it consists of."""
    text = bytes(raw)
    if len(text) > min(limits.regex_bytes, ITEM_BYTES * limits.choices, limits.choices_bytes):
        return True
    is_deep = text.count(b"{") + text.count(b"[") > limits.schema_depth
    return is_deep or parse_cost(text) > limits.schema_values


class _Schema:
    """Measures of a parsed schema, which are checked while it is walked through."""

    def __init__(self, field: str, limits: Limits) -> None:
        self._field = field
        self._limits = limits
        self._values = 0

    def check(self, schema: object) -> None:
        """Walk through the schema, level by level.

        Raises:
            LimitExceeded: it is too large.
        """
        field, limits = self._field, self._limits
        level, depth = [schema], 0
        while level:
            depth += 1
            self._values += len(level)
            check_count(field, depth, limits.schema_depth, "schema_depth", "levels")
            check_count(field, self._values, limits.schema_values, "schema_values", "values")
            level = [inner for value in level for inner in self._inner(value)]

    def _inner(self, value: object) -> Iterator[object]:
        if isinstance(value, dict):
            self._check_keywords(value)
            yield from value.values()
        elif isinstance(value, list):
            yield from value

    def _check_keywords(self, schema: dict[object, object]) -> None:
        field, limits = self._field, self._limits
        pattern, enum = schema.get("pattern"), schema.get("enum")
        if isinstance(pattern, str):
            check_count(field, len(pattern), limits.regex_bytes, "regex_bytes", "bytes in a regex")
        if isinstance(enum, list):
            check_count(field, len(enum), limits.choices, "choices", "items in an `enum`")
            size = sum(len(item) for item in enum if isinstance(item, str))
            check_count(field, size, limits.choices_bytes, "choices_bytes", "bytes in an `enum`")

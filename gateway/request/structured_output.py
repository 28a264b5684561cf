"""Limits of constraints on an answer's structure, in all spellings of OpenAI, Anthropic and vLLM.

Engines compile them to a grammar before the first token. That cannot be cancelled, and for some its
time grows with the square of their length.

Cost: a count of brackets for a small schema; a larger one is parsed once, up to its limit of bytes.
"""

import msgspec

from gateway.config.limits import Limits
from gateway.errors.request import LimitExceeded
from gateway.request.raw_fields import ABSENT, RawFields
from gateway.request.schema_limits import SchemaCheck, check_count, may_exceed
from gateway.request.sequences import count_items


class _Constraints(msgspec.Struct, frozen=True):
    """The kinds of constraints, as vLLM's `structured_outputs` has them."""

    json: msgspec.Raw = ABSENT
    structural_tag: msgspec.Raw = ABSENT
    regex: msgspec.Raw = ABSENT
    choice: msgspec.Raw = ABSENT
    grammar: msgspec.Raw = ABSENT


_constraints_decoder = msgspec.json.Decoder(_Constraints)
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


def check_bytes(field: str, raw: msgspec.Raw, allowed: int, limit: str) -> None:
    """Check the length of a field's JSON; `limit`: name of the limit.

    Raises:
        LimitExceeded: it is too long.
    """
    if len(raw) > allowed:
        raise LimitExceeded.of(field, len(raw), "bytes", allowed, limit)


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
    if not may_exceed(raw, limits):
        return
    try:
        text = _text_decoder.decode(raw) if bytes(raw)[:1] == b'"' else raw
        value = _value_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return
    SchemaCheck(field, limits).check(value)

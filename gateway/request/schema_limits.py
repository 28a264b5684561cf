"""Limits of a JSON schema whose grammar an engine compiles, and of regexes and grammars in it."""

from collections.abc import Iterator

import msgspec

from gateway.config.limits import Limits
from gateway.errors.request import LimitExceeded
from gateway.request.parse_cost import parse_cost

ITEM_BYTES = 2
"""Bytes of an item in a list at least, with its comma."""
COST_PER_VALUE = 8
"""Cost of parsing that a value has on average at most; its texts have commas and escapes, too."""
_REGEXES = ("pattern", "regex")
_GRAMMARS = ("grammar", "ebnf", "definition")


def check_count(field: str, found: int, allowed: int, limit: str, unit: str = "items") -> None:
    """Check the number of what a field has; `limit`: name of the limit.

    Raises:
        LimitExceeded: there are too many.
    """
    if found > allowed:
        raise LimitExceeded.of(field, found, unit, allowed, limit)


def check_cost(field: str, text: bytes, values: int, limit: str) -> None:
    """Check that a JSON text is not too costly to be parsed, by the values that it may have.

    Raises:
        LimitExceeded: it is.
    """
    most = COST_PER_VALUE * values
    check_count(field, parse_cost(text, most), most, limit, "commas, brackets and escapes")


def may_exceed(raw: msgspec.Raw, limits: Limits) -> bool:
    """Whether a schema has to be looked into, by the bytes that it consists of."""
    text = bytes(raw)
    if len(text) > min(
        *(limits.regex_bytes, limits.grammar_bytes),
        *(ITEM_BYTES * limits.choices, limits.choices_bytes),
    ):
        return True
    is_deep = text.count(b"{") + text.count(b"[") > limits.schema_depth
    return is_deep or parse_cost(text, limits.schema_values) > limits.schema_values


class SchemaCheck:
    """Check of a parsed schema, which is measured while it is walked through."""

    def __init__(self, field: str, limits: Limits) -> None:
        self._field = field
        self._limits = limits
        self.values = 0

    def check(self, schema: object) -> None:
        """Walk through the schema, level by level.

        Raises:
            LimitExceeded: it is too large.
        """
        field, limits = self._field, self._limits
        level, depth = [schema], 0
        while level:
            depth += 1
            self.values += len(level)
            check_count(field, depth, limits.schema_depth, "schema_depth", "levels")
            check_count(field, self.values, limits.schema_values, "schema_values", "values")
            level = [inner for value in level for inner in self._inner(value)]

    def _inner(self, value: object) -> Iterator[object]:
        if isinstance(value, dict):
            self._check_texts(value)
            self._check_enum(value.get("enum"))
            yield from value.values()
        elif isinstance(value, list):
            yield from value

    def _check_texts(self, schema: dict[object, object]) -> None:
        for name in _REGEXES:
            self._check_text(schema.get(name), self._limits.regex_bytes, "regex")
        for name in _GRAMMARS:
            self._check_text(schema.get(name), self._limits.grammar_bytes, "grammar")
        patterns = schema.get("patternProperties")
        for pattern in patterns if isinstance(patterns, dict) else ():
            self._check_text(pattern, self._limits.regex_bytes, "regex")

    def _check_text(self, text: object, allowed: int, kind: str) -> None:
        if isinstance(text, str):
            check_count(self._field, len(text), allowed, f"{kind}_bytes", f"bytes in a {kind}")

    def _check_enum(self, enum: object) -> None:
        if isinstance(enum, list):
            field, limits = self._field, self._limits
            check_count(field, len(enum), limits.choices, "choices", "items in an `enum`")
            size = sum(len(item) for item in enum if isinstance(item, str))
            check_count(field, size, limits.choices_bytes, "choices_bytes", "bytes in an `enum`")

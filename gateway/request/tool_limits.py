"""Limits of tools: of their number and size, and of schemas that their arguments must follow.

Cost: about 1 µs for each KiB of tools that are seen for the first time, and a hash for those that
agents send every time. Tools with schemas to follow are parsed once, up to a limit in total.
"""

import re
from collections import OrderedDict
from operator import attrgetter

import msgspec
from xxhash import xxh3_128_digest

from gateway.config.limits import Limits
from gateway.request.parse_cost import list_items
from gateway.request.raw_fields import ABSENT, RawFields
from gateway.request.schema_limits import SchemaCheck, check_cost, check_count
from gateway.request.sequences import count_items

SMALL_TOOLS = 1 << 14
"""Bytes of tools that are not looked into."""
CACHED_TOOLS = 64
_FREE_CHOICES = (ABSENT, msgspec.Raw(b'"auto"'), msgspec.Raw(b'"none"'), msgspec.Raw(b"null"))
"""Values of `tool_choice` that leave the arguments of tools free."""
_FREE_TYPES = frozenset({"auto", "none"})
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")
"""A spelling of letters that no JSON encoder has, so that names in the text are not what they seem.
"""
_limits_of = attrgetter(
    *("tools", "tools_values", "schema_bytes", "schema_values", "schema_depth", "choices"),
    *("choices_bytes", "regex_bytes", "grammar_bytes"),
)


class _ToolChoiceType(msgspec.Struct):
    """Anthropic's form of `tool_choice`."""

    type: str = ""


class _FunctionStrictness(msgspec.Struct):
    strict: msgspec.Raw = ABSENT


class _ToolStrictness(msgspec.Struct):
    """What tells whether the arguments of a tool must follow its schema."""

    type: str | None = None
    strict: msgspec.Raw = ABSENT
    function: _FunctionStrictness | None = None

    @property
    def is_free(self) -> bool:
        """Whether they need not."""
        inner = self.function.strict if self.function else ABSENT
        return self.type != "custom" and all(raw in _FALSE for raw in (self.strict, inner))


_FALSE = (ABSENT, msgspec.Raw(b"false"), msgspec.Raw(b"null"))
_choice_decoder = msgspec.json.Decoder(_ToolChoiceType)
_tool_decoder = msgspec.json.Decoder(_ToolStrictness)
_value_decoder = msgspec.json.Decoder()


class CheckedTools:
    """Tools that were within the limits when they were last seen: agents send them every time."""

    def __init__(self) -> None:
        self._keys: OrderedDict[tuple[object, ...], None] = OrderedDict()

    def __len__(self) -> int:
        """Number of the tools that are known."""
        return len(self._keys)

    def check(self, fields: RawFields, limits: Limits) -> None:
        """Check the tools of a request, unless they are known.

        Raises:
            LimitExceeded: there are too many, or they are too large.
        """
        raw = fields.tools
        if not SMALL_TOOLS < len(raw) <= limits.tools_bytes:
            check_tools(fields, limits)
            return
        is_forced = _is_forced(fields.tool_choice)
        key = (xxh3_128_digest(memoryview(raw)), is_forced, _limits_of(limits))
        if key in self._keys:
            self._keys.move_to_end(key)
            return
        check_tools(fields, limits)
        self._keys[key] = None
        if len(self._keys) > CACHED_TOOLS:
            self._keys.popitem(last=False)


def check_tools(fields: RawFields, limits: Limits) -> None:
    """Check the number and the size of tools, and of schemas that their arguments must follow.

    Raises:
        LimitExceeded: there are too many, or they are too large.
    """
    raw = fields.tools
    check_count("tools", len(raw), limits.tools_bytes, "tools_bytes", "bytes")
    if len(raw) <= SMALL_TOOLS:
        return
    text = bytes(raw)
    is_disguised = b"\\u00" in text and _ESCAPED_LETTER.search(text) is not None
    is_forced = _is_forced(fields.tool_choice)
    is_parsed = is_forced or is_disguised or b'"strict"' in text or b'"custom"' in text
    if is_parsed:
        check_cost("tools", text, limits.tools_values, "tools_values")
    if is_parsed or text.count(b'"name"') > limits.tools:  # a tool has at least one
        check_count("tools", count_items(raw), limits.tools, "tools")
    if is_parsed:
        _check_schemas(raw, limits, is_forced=is_forced)


def _check_schemas(raw: msgspec.Raw, limits: Limits, *, is_forced: bool) -> None:
    values = 0
    for i, tool in enumerate(list_items(raw)):
        if is_forced or not _is_free(tool):
            values += _check_schema(f"tools[{i}]", tool, limits)
            check_count("tools", values, limits.tools_values, "tools_values", "values")


def _check_schema(field: str, tool: msgspec.Raw, limits: Limits) -> int:
    """Check a tool and return the values that it has, if they are many."""
    check_count(field, len(tool), limits.schema_bytes, "schema_bytes", "bytes")
    try:
        value = _value_decoder.decode(tool)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return 0
    check = SchemaCheck(field, limits)
    check.check(value)
    return check.values


def _is_forced(choice: msgspec.Raw) -> bool:
    """Whether a choice of tools makes the model call one, with arguments that follow its schema."""
    if choice in _FREE_CHOICES:
        return False
    try:
        return _choice_decoder.decode(choice).type not in _FREE_TYPES
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return True


def _is_free(tool: msgspec.Raw) -> bool:
    try:
        return _tool_decoder.decode(tool).is_free
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
